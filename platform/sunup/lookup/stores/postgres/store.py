"""Feast's PostgreSQL online store: every view of every key of a call in one statement, on one of few connections.

Layout (feast/infra/online_stores/postgres_online_store/postgres.py): one table `"{project}_{view}"` per view in the
schema `db_schema`, a row per (entity_key bytea, feature_name text) with the Value bytes (bytea) and event_ts
(timestamptz). Feast hands the server a naive UTC time, which the server takes for a time of its session's time zone:
event_ts is off by that zone's offset. Casting it to a timestamp, in a session that has the server's time zone as
Feast's has, undoes that (but for the hour a year in which a zone with summer time has no or two such times).
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

import psycopg
from psycopg import sql

from sunup.limits import (
    LOOKUP_ROWS_PER_DEADLINE,
    POSTGRES_CONNECTIONS,
    POSTGRES_STATEMENT_SECONDS_MIN,
    STORE_CONNECT_SECONDS_MAX,
)
from sunup.lookup.plan import ReadPlan
from sunup.lookup.store import Answer, Found, Keys, Reading, Store, StoreUnavailable, Told, nothing, slots
from sunup.lookup.stores.dial import Dial
from sunup.lookup.stores.postgres.address import Address
from sunup.lookup.stores.postgres.link import Link, array

# A statement reads as many keys of each entity as one deadline is for, so that one deadline bounds it in the server.
_KEYS: Final = LOOKUP_ROWS_PER_DEADLINE
# The session: reads only; planned once and by the index, whatever the statistics of a table that grows say.
_SESSION: Final = {
    "default_transaction_read_only": "on",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "jit": "off",
    "statement_timeout": f"{STORE_CONNECT_SECONDS_MAX * 1000:.0f}",
}


class PostgresStore(Store):
    """The store behind POSTGRES_CONNECTIONS connections, reconnected in the background while the store is open.

    Reads do not wait for one another's round trip even on one connection; the others are opened when reads overlap,
    so that a read of many keys holds up fewer of those beside it.
    """

    inline = False

    def __init__(self, address: Address, plan: ReadPlan) -> None:
        self._address = address
        self._query = _query(plan)
        self._nothing = nothing(plan)
        self._timeout_ms = round(max(plan.deadline_ms, POSTGRES_STATEMENT_SECONDS_MIN * 1000))
        # Per view, counted through all entities: its entity's number, feature name -> slot, the slot of its time.
        self._views: list[tuple[int, dict[str, int], int]] = []
        for number, entity in enumerate(plan.entities):
            layout = slots(entity)
            for view, start, end in zip(entity.views, layout.starts, layout.times, strict=True):
                names = {feature.name: slot for slot, feature in enumerate(view.features, start)}
                self._views.append((number, names, end))
        self._dials = [self._dial() for _ in range(POSTGRES_CONNECTIONS)]

    def __repr__(self) -> str:
        return f"<PostgresStore {self._address} {self._dials[0]!r}>"

    async def open(self) -> None:
        """Connect, waiting for the first attempt's end; on failure keep trying every STORE_RETRY_SECONDS."""
        await self._dials[0].open()

    def read_now(self, keys: Keys, deadline: float) -> Answer:  # noqa: ARG002
        raise StoreUnavailable("a PostgreSQL store cannot be read inline")

    async def read(self, keys: Keys, deadline: float) -> Answer:
        statements = _statements(keys)
        if not statements:
            return [[] for _ in keys]
        link = self._link() or await self._dials[0].linked(deadline)
        return self._folded(keys, await link.request(statements, deadline))

    def ask(self, keys: Keys, deadline: float, told: Told) -> Reading:
        statements, link = _statements(keys), self._link()
        if link is None or not statements:
            return super().ask(keys, deadline, told)

        def replied(rows: list[Any] | StoreUnavailable) -> None:
            told(self._folded(keys, rows) if type(rows) is list else rows)

        return link.ask(statements, deadline, replied)

    async def close(self) -> None:
        for dial in self._dials:
            await dial.close()

    def _link(self) -> Link | None:
        """The first connection unless it is busy, then of those there are the least busy; the others are asked for."""
        least = self._dials[0].link
        if least is not None and not least.load:
            return least
        for dial in self._dials:
            link = dial.link
            if link is None:
                dial.begin()
            elif least is None or link.load < least.load:
                least = link
        return least

    def _folded(self, keys: Keys, rows: list[tuple[Any, ...]]) -> Answer:
        """Rows (view, entity key, feature name, Value bytes, event time) as an Answer."""
        founds: list[dict[bytes, Found]] = [
            {key: list(empty) for key in wanted} for wanted, empty in zip(keys, self._nothing, strict=True)
        ]
        views = self._views
        for view, key, name, value, at in rows:
            number, names, time_slot = views[view]
            found = founds[number][key]
            found[names[name]] = value
            seen = found[time_slot]
            if seen is None or at < seen:  # a view is as old as the oldest feature read from it
                found[time_slot] = at
        return [[found[key] for key in wanted] for wanted, found in zip(keys, founds, strict=True)]

    def _dial(self) -> Dial[Link]:
        def lost(link: Link, reason: str) -> None:
            dial.lost(link, reason)

        async def connect() -> Link:
            return await self._connected(lost)

        dial = Dial(self._address, connect)
        return dial

    async def _connected(self, on_lost: Callable[[Link, str], None]) -> Link:
        """A new connection with the read prepared in it."""
        parameters = self._address.parameters(_SESSION)
        try:
            made = await psycopg.AsyncConnection.connect(autocommit=True, **parameters)
        except psycopg.Error as error:
            raise StoreUnavailable(" ".join(str(error).split())) from error
        link = Link(made, asyncio.get_running_loop(), on_lost)
        try:
            deadline = time.monotonic() + STORE_CONNECT_SECONDS_MAX
            await link.prepare(self._query, len(self._nothing), timeout_ms=self._timeout_ms, deadline=deadline)
        except BaseException:  # cancelled by the time limit too: no half-made connection may stay
            link.drop()
            raise
        return link


def _statements(keys: Keys) -> list[list[bytes]]:
    """The parameters of as many runs of the read as `keys` need."""
    return [
        [array(wanted[start : start + _KEYS]) for wanted in keys]
        for start in range(0, max(map(len, keys), default=0), _KEYS)
    ]


def _query(plan: ReadPlan) -> bytes:
    """Every view of the plan in one statement; parameter n, a bytea[], holds keys of entity n.

    Features that the plan does not use are left in the server: a view may have many more.
    """
    views = [(number, view) for number, entity in enumerate(plan.entities) for view in entity.views]
    selects = [
        sql.SQL(
            "SELECT {tag}::int2, entity_key, feature_name, value, date_part('epoch', event_ts::timestamp) FROM {table} "
            "WHERE entity_key = ANY({keys}) AND feature_name = ANY(ARRAY[{names}]::text[])"
        ).format(
            tag=sql.Literal(tag),
            table=sql.Identifier(f"{plan.project}_{view.stored}"),
            keys=sql.SQL(f"${number + 1}"),
            names=sql.SQL(", ").join(sql.Literal(feature.name) for feature in view.features),
        )
        for tag, (number, view) in enumerate(views)
    ]
    return sql.SQL(" UNION ALL ").join(selects).as_bytes(None)
