"""Everything an online store holds of some views, read as Feast lays it out and not with code of sunup."""

import sqlite3
import struct
from collections.abc import Iterable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import mmh3
import redis
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp  # type: ignore[import-untyped]


class Stored(NamedTuple):
    """One entity's row. `values`: by feature, None: null. `at`: its event time, whole seconds since the epoch."""

    values: dict[str, float | int | None]
    at: float


class OnlineStore(Protocol):
    """`url`: as workers are told it; `config`: `online_store` of feature_store.yaml, in YAML's flow style."""

    url: str
    config: str

    def read(self, project: str, view: str, features: Sequence[str], cards: Iterable[int], /) -> dict[int, Stored]:
        """Those of the cards that are there."""
        ...

    def lose(self) -> None:
        """Everything it holds."""
        ...


def key_of(card: int) -> bytes:
    key = EntityKey(join_keys=["card_id"], entity_values=[Value(int64_val=card)])
    return bytes(serialize_entity_key(key, entity_key_serialization_version=3))


def value_of(stored: bytes | None) -> float | int | None:
    value = Value()
    value.ParseFromString(stored or b"")
    kind = value.WhichOneof("val")
    return None if kind is None else getattr(value, kind)


class SqliteStore:
    """A file, where Feast's SQLite store would have it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.url = f"sqlite://{path}"
        self.config = f"{{type: sqlite, path: {path}}}"

    def read(self, project: str, view: str, features: Sequence[str], cards: Iterable[int]) -> dict[int, Stored]:
        cards_of = {key_of(card): card for card in cards}
        found: dict[int, dict[str, Any]] = {}
        at: dict[int, set[float]] = {}
        query = f'SELECT entity_key, feature_name, value, event_ts FROM "{project}_{view}"'
        with closing(sqlite3.connect(self._path)) as connection:
            for key, name, value, time in connection.execute(query):
                if name in features and (card := cards_of.get(key)) is not None:
                    found.setdefault(card, {})[name] = value_of(value)
                    at.setdefault(card, set()).add(_seconds(time))
        for card, times in at.items():
            assert len(times) == 1, f"card {card} of {view} is of several times: {times}"
        return {card: Stored(values, at[card].pop()) for card, values in found.items()}

    def lose(self) -> None:
        with closing(sqlite3.connect(self._path, timeout=10)) as connection, connection:
            tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            for table in tables:
                if not table.startswith("sqlite_"):
                    connection.execute(f'DELETE FROM "{table}"')


def _seconds(said: Any) -> float:
    """Feast writes times of SQLite as naive UTC ones, which its adapter turns into seconds since the epoch."""
    if isinstance(said, int | float):
        return float(said)
    return datetime.fromisoformat(str(said)).replace(tzinfo=UTC).timestamp()


class RedisStore:
    """A server."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.config = f"{{type: redis, connection_string: '{url.removeprefix('redis://').partition('/')[0]}'}}"
        self._client = redis.Redis.from_url(url)

    def read(self, project: str, view: str, features: Sequence[str], cards: Iterable[int]) -> dict[int, Stored]:
        fields = [struct.pack("<I", mmh3.hash(f"{view}:{name}", signed=False)) for name in features]
        asked, pipeline = list(cards), self._client.pipeline(transaction=False)
        for card in asked:
            pipeline.hmget(key_of(card) + project.encode(), [*fields, f"_ts:{view}".encode()])
        return {
            card: Stored({name: value_of(v) for name, v in zip(features, values, strict=True)}, _time_of(at))
            for card, (*values, at) in zip(asked, pipeline.execute(), strict=True)
            if at is not None
        }

    def lose(self) -> None:
        self._client.flushall()

    def close(self) -> None:
        self._client.close()


def _time_of(stored: bytes) -> float:
    time: Any = Timestamp()
    time.ParseFromString(stored)
    return float(time.seconds + time.nanos / 1e9)
