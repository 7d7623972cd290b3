"""A function with features in SQLite and a served-feature log, on a real engine; its log as rows."""

import hashlib
import http.client
import json
import sqlite3
import struct
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow.parquet
from tests.engine_fixture import PATIENCE_SECONDS, Engine, until
from tests.small_bundle import logistic, make_bundle
from tests.store_fill import int64, put_sqlite

from sunup.bundle.manifest import LogSpec, Scale, StreamSpec
from sunup.bundle.store import Store
from sunup.lookup.keys import key_maker
from sunup.lookup.plan import Entity, Feature, JoinKey, ReadPlan, View, dump, entity_columns
from sunup.settings import STREAM_BROKER
from sunup.types import Field

USER = JoinKey("user_id", "user_id", "INT64")
STATS = View("stats", "stats", None, None, (Feature("f1", "f1", "DOUBLE"), Feature("f2", "f2", "DOUBLE", 0.5)))
SEEN = View("seen", "seen", None, 3600.0, (Feature("count", "count", "INT64", 0),))
ENTITIES = (Entity((USER,), (STATS, SEEN)),)
PLAN = ReadPlan(1, "contract", 3, 1000.0, "default", ENTITIES, entity_columns(ENTITIES))
REQUEST = (Field("user_id", "int64"), Field("f0", "float64"))
ROWS = np.array([[0.1, 0.2, 0.3], [1.0, -1.0, 0.5]])
LOG = LogSpec("served", rotate_s=3600.0, size=1 << 20)
AGE_S = 100.0
user_key = key_maker([USER], {"user_id": 0})


class Logged:
    """The function `score` of an engine. Users 1 to 9 are stored, with AGE_S old values; user 5's count is stale."""

    def __init__(self, engine: Engine, now: float) -> None:
        self.engine = engine
        self.store = engine.project.root / "online.db"
        make_tables(self.store)
        for user in range(1, 10):
            key, at = user_key((user,)), int(now - AGE_S)
            put_sqlite(self.store, "stats", key, {"f1": double(user / 8), "f2": double(user / 16)}, at)
            put_sqlite(self.store, "seen", key, {"count": int64(user)}, at if user != 5 else now - 7200)

    def deploy(
        self,
        log: LogSpec | None = LOG,
        *,
        scale: Scale | None = None,
        stream: StreamSpec | None = None,
        bias: float = 0.0,
        request: tuple[Field, ...] = REQUEST,
    ) -> int:
        """The revision. `bias` makes another model of it, so another bundle."""
        folder = self.engine.project.root / f"made-{len(list(self.engine.project.root.glob('made-*')))}"
        model = logistic(3)
        given: dict[str, Any] = {"request": request, "features": dump(PLAN), "log": log, "scale": scale or Scale(max=2)}
        digest = make_bundle(folder, model, ROWS + bias, **given)
        if stream is not None:
            digest = with_stream(folder, digest, stream)
        Store(self.engine.project.bundles).take(folder / digest)
        settings = {"features_url": f"sqlite://{self.store}"}
        settings |= {STREAM_BROKER: stream.broker} if stream else {}
        facts = self.engine.deploy("score", digest, settings=settings, on_event=lambda _: None)
        revision: int = facts["revision"]
        return revision

    def call(self, *users: int, id: str, **more: Any) -> list[dict[str, Any]]:
        """Predictions of these users, f0 = user / 4."""
        records = [{"user_id": user, "f0": user / 4} for user in users]
        headers = {"x-request-id": id}
        answer = self.engine.ask("POST", "/functions/score", json.dumps(records).encode(), headers=headers, **more)
        assert answer.status == 200, answer
        predictions: list[dict[str, Any]] = answer.json["predictions"]
        return predictions

    @property
    def files(self) -> list[Path]:
        return sorted((self.engine.project.root / "served").rglob("*.parquet"))

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Everything in the log."""
        found = [row for path in self.files for row in pyarrow.parquet.ParquetFile(path).read().to_pylist()]
        return sorted(found, key=lambda row: (row["event_timestamp"], row["request_id"], row["record"]))

    @property
    def ids(self) -> list[str]:
        return sorted(row["request_id"] for row in self.rows)

    @property
    def dropped(self) -> float:
        """As Prometheus would scrape it."""
        used = http.client.HTTPConnection("127.0.0.1", self.engine.metrics_port, timeout=PATIENCE_SECONDS)
        used.request("GET", "/metrics")
        lines = used.getresponse().read().decode().splitlines()
        used.close()
        assert any(line.startswith("sunup_requests_total{") for line in lines)
        return sum(float(line.split()[-1]) for line in lines if line.startswith("sunup_log_dropped_total{"))

    def spooled(self) -> list[str]:
        return sorted(path.name for path in self.engine.project.spool.iterdir())

    def remove(self) -> None:
        """The function goes, and all it served is in files."""
        workers = [Path(f"/proc/{w['pid']}") for w in self.engine.status("score")["functions"][0]["workers"]]
        self.engine.remove("score")
        until(lambda: not any(path.exists() for path in workers), "its workers to end")
        until(lambda: not self.spooled(), "the spool to be empty")


def make_tables(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        for view in PLAN.views:
            connection.execute(
                f'CREATE TABLE "{PLAN.project}_{view.stored}" (entity_key BLOB, feature_name TEXT, value BLOB, '
                "event_ts timestamp, created_ts timestamp, PRIMARY KEY(entity_key, feature_name))"
            )
    connection.close()


def double(value: float) -> bytes:
    """A Value holding a double."""
    return b"\x29" + struct.pack("<d", value)


def with_stream(folder: Path, digest: str, stream: StreamSpec) -> str:
    """The same bundle, reading a topic."""
    manifest = msgspec.json.decode((folder / digest / "manifest.json").read_bytes())
    manifest["stream"] = msgspec.to_builtins(stream)
    data = msgspec.json.encode(manifest)
    (folder / digest / "manifest.json").write_bytes(data)
    named = hashlib.sha256(data).hexdigest()
    (folder / digest).rename(folder / named)
    return named


def score(*values: float) -> float:
    """What the model answers."""
    return float(1 / (1 + np.exp(-sum(values))))
