"""Feast's PostgreSQL online store, written: tables as `stores/postgres/store.py` says, and per entity one more row,
named `_sunup`, with the version of what is there. It is in the same table, for it must go when that is dropped.

One statement writes all: the rows of versions first, which locks their entities until the end, and then the features
of those entities whose version was not older. So a writer that waited for another's lock sees what that one wrote.
"""

import os
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from operator import itemgetter
from typing import Final, NamedTuple

from psycopg import sql

from sunup.limits import STORE_CONNECT_SECONDS_MAX, STORE_WRITE_ROWS, STORE_WRITE_SECONDS_MAX
from sunup.lookup.plan import ReadPlan
from sunup.lookup.stores.postgres.address import Address
from sunup.lookup.writing.encode import encoder, parts
from sunup.lookup.writing.postgres.link import BYTEA, TEXT, TIMESTAMP, Link, array
from sunup.lookup.writing.target import NOBODY, OWN, Target, targets
from sunup.lookup.writing.writer import FeatureWriter, Write

_value: Final = encoder("BYTES")  # what we keep in a row of our own is a Value, too
_moment: Final = struct.Struct(">q").pack  # a timestamp in binary: microseconds from 2000 on
_YEAR_2000: Final = 946_684_800  # seconds since the epoch


class _View(NamedTuple):
    target: Target
    upsert: bytes  # of arrays: keys, versions, event times, then values and texts of each feature
    kinds: tuple[int, ...]
    mark: bytes
    marked: bytes


class PostgresWriter(FeatureWriter):
    """Writes over one connection the tables that `feast apply` has made."""

    def __init__(self, address: Address, plan: ReadPlan) -> None:
        self._address = address
        self._views = {name: _view(target, plan.project) for name, target in targets(plan).items()}
        self._link: Link | None = None
        self.mark = b""

    def __repr__(self) -> str:
        return f"<PostgresWriter {self._address}>"

    def write(self, view: str, rows: Sequence[Write]) -> None:
        deadline = time.monotonic() + STORE_WRITE_SECONDS_MAX
        about = self._views[view]
        ordered = sorted(rows, key=itemgetter(0))  # whoever locks in one order waits for nobody who waits
        for start in range(0, len(ordered), STORE_WRITE_ROWS):
            columns = _columns(about.target, ordered[start : start + STORE_WRITE_ROWS])
            with self._connected(deadline) as link:
                link.run(about.upsert, columns, about.kinds, deadline)

    def is_lost(self) -> bool:
        found, whole = self._found()
        if whole and not self.mark:
            self.mark = found
        return not whole or found != self.mark

    def begin(self) -> None:
        deadline = time.monotonic() + STORE_WRITE_SECONDS_MAX
        for view in self._views.values():
            with self._connected(deadline) as link:
                link.run(view.mark, [array(BYTEA, [_value(os.urandom(8))])], [BYTEA], deadline)
        self.mark, _ = self._found()

    def close(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close()

    def _found(self) -> tuple[bytes, bool]:
        """What marks the database now, and whether all of it is there. The server's own life is part of it: one that
        was restored, or was a replica before, may lack the last writes."""
        deadline = time.monotonic() + STORE_WRITE_SECONDS_MAX
        marks = []
        for view in self._views.values():
            with self._connected(deadline) as link:
                marks.append(link.run(view.marked, [], [], deadline))
        return repr(marks).encode(), [] not in marks

    @contextmanager
    def _connected(self, deadline: float) -> Iterator[Link]:
        """The connection, or a new one; whatever failed on it, the next one is new."""
        link, self._link = self._link, None
        if link is not None and not link.idle:
            link.close()
            link = None
        if link is None:
            link = Link(self._address, min(deadline, time.monotonic() + STORE_CONNECT_SECONDS_MAX))
        try:
            yield link
        except BaseException:
            link.close()
            raise
        self._link = link


def _columns(target: Target, rows: Sequence[Write]) -> list[bytes]:
    """The rows as arrays, a column each."""
    columns = [
        array(BYTEA, [row.key for row in rows]),
        array(BYTEA, [_value(row.version) for row in rows]),
        array(TIMESTAMP, [_time(row.at) for row in rows]),
    ]
    for number, (encode, tell) in enumerate(zip(target.encoders, target.tellers, strict=True)):
        texts = [tell(row.values[number]) for row in rows]
        columns.append(array(BYTEA, [encode(row.values[number]) for row in rows]))
        columns.append(array(TEXT, [None if text is None else text.encode() for text in texts]))
    return columns


def _time(at: float) -> bytes:
    """A time of UTC without a zone, as Feast hands it over: the server takes it for one of its session's."""
    seconds, micros = parts(at)
    return _moment((seconds - _YEAR_2000) * 1_000_000 + micros)


def _view(target: Target, project: str) -> _View:
    table = sql.Identifier(f"{project}_{target.stored}")
    own = {"table": table, "own": sql.Literal(OWN), "nobody": sql.Literal(NOBODY)}
    mark = sql.SQL(
        "INSERT INTO {table} (entity_key, feature_name, value) SELECT {nobody}, {own}, ($1::bytea[])[1] "
        "ON CONFLICT (entity_key, feature_name) DO NOTHING"
    ).format(**own)
    marked = sql.SQL(
        "SELECT value, pg_postmaster_start_time() FROM {table} WHERE entity_key = {nobody} AND feature_name = {own}"
    ).format(**own)
    kinds = (BYTEA, BYTEA, TIMESTAMP, *((BYTEA, TEXT) * len(target.features)))
    upsert = _upsert(target, own)
    return _View(target, upsert, kinds, mark.as_bytes(None), marked.as_bytes(None))


def _upsert(target: Target, own: dict[str, sql.Composable]) -> bytes:
    numbers = range(len(target.features))
    arrays = ["$1::bytea[]", "$2::bytea[]", "$3::timestamp[]"]
    arrays += [f"${2 * number + 4}::bytea[], ${2 * number + 5}::text[]" for number in numbers]
    columns = ["entity_key", "version", "at", *(f"v{number}, t{number}" for number in numbers)]
    features = sql.SQL(", ").join(
        sql.SQL("({name}, v{number}, t{number})").format(name=sql.Literal(name), number=sql.SQL(str(number)))
        for number, name in zip(numbers, target.features, strict=True)
    )
    return (
        sql.SQL(
            "WITH given AS MATERIALIZED (SELECT * FROM unnest({arrays}) AS given({columns})), newer AS ("
            "INSERT INTO {table} AS stored (entity_key, feature_name, value, event_ts) "
            "SELECT entity_key, {own}, version, at::timestamptz FROM given ON CONFLICT (entity_key, feature_name) "
            "DO UPDATE SET value = EXCLUDED.value, event_ts = EXCLUDED.event_ts WHERE stored.value <= EXCLUDED.value "
            "RETURNING entity_key) "
            "INSERT INTO {table} (entity_key, feature_name, value, value_text, event_ts) "
            "SELECT entity_key, feature.name, feature.value, feature.text, at::timestamptz FROM given JOIN newer USING "
            "(entity_key) CROSS JOIN LATERAL (VALUES {features}) AS feature (name, value, text) "
            "ON CONFLICT (entity_key, feature_name) DO UPDATE SET value = EXCLUDED.value, "
            "value_text = EXCLUDED.value_text, event_ts = EXCLUDED.event_ts, created_ts = NULL"
        )
        .format(
            arrays=sql.SQL(", ".join(arrays)),
            columns=sql.SQL(", ".join(columns)),
            features=features,
            **own,
        )
        .as_bytes(None)
    )
