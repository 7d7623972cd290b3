"""One blocking connection to a PostgreSQL server, through libpq as psycopg wraps it, everything within a deadline.

psycopg's own connection waits for at least two seconds to connect, and for a result without end.
"""

import struct
from collections.abc import Sequence
from typing import Any, Final

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo
from psycopg.pq import ConnStatus, DiagnosticField, ExecStatus, Format, PollingStatus
from psycopg.pq.abc import PGconn, PGresult

from sunup.limits import STORE_WRITE_SECONDS_MAX
from sunup.lookup.store import StoreUnavailable
from sunup.lookup.stores.postgres.address import Address
from sunup.lookup.writing.within import left, ready, resolve, shares

BYTEA, TEXT, TIMESTAMP = 17, 25, 1114  # the types' numbers, the same in every server
_ARRAY_OF: Final = {BYTEA: 1001, TEXT: 1009, TIMESTAMP: 1115}
_HEAD: Final = struct.Struct(">iiiii")  # dimensions, has NULLs, element type, length, lower bound
_LENGTH: Final = struct.Struct(">i")
_NULL: Final = _LENGTH.pack(-1)
_UNDEFINED: Final = (b"42P01", b"42703")  # a table, a column that is not there
# What is written is given up by the server, too, when nobody waits for it any more.
_SESSION: Final = {"statement_timeout": f"{STORE_WRITE_SECONDS_MAX * 1000:.0f}", "jit": "off"}


class Link:
    """A connection; of no use after an error."""

    def __init__(self, at: Address, deadline: float) -> None:
        self._at = at
        self._pq = _connected(at, deadline)
        self._prepared: dict[bytes, bytes] = {}  # names by query

    def __repr__(self) -> str:
        return f"<Link {self._at}>"

    @property
    def idle(self) -> bool:
        """Whether it stands, as far as can be seen without asking."""
        try:
            if any(ready(self._pq.socket, reads=True, writes=False, seconds=0.0)):
                self._pq.consume_input()
        except (psycopg.Error, OSError):
            return False
        return self._pq.status == ConnStatus.OK

    def run(self, query: bytes, parameters: Sequence[bytes], kinds: Sequence[int], deadline: float) -> list[list[Any]]:
        """The rows of one statement, in a transaction of its own: bytes as the server writes them, None for NULL.

        `parameters` are arrays (see `array`) of the types `kinds`. Raises StoreUnavailable.
        """
        formats = [Format.BINARY] * len(parameters)
        try:
            name = self._prepared.get(query)
            if name is None:
                name = b"sunup_%d" % len(self._prepared)
                self._pq.send_prepare(name, query, [_ARRAY_OF[kind] for kind in kinds])
                self._results(deadline)
                self._prepared[query] = name
            self._pq.send_query_prepared(name, parameters, formats, Format.TEXT)
            (result,) = self._results(deadline)
        except TimeoutError as error:
            raise StoreUnavailable(f"{self._at}: no answer in time") from error
        except (psycopg.Error, OSError) as error:
            raise StoreUnavailable(f"{self._at}: the connection was lost ({said(error)})") from error
        return [[result.get_value(row, column) for column in range(result.nfields)] for row in range(result.ntuples)]

    def close(self) -> None:
        self._pq.finish()

    def _results(self, deadline: float) -> list[PGresult]:
        """What comes of what was sent. Raises StoreUnavailable for what the server refuses."""
        found: list[PGresult] = []
        while self._pq.flush():
            if ready(self._pq.socket, reads=True, writes=True, seconds=left(deadline))[0]:
                self._pq.consume_input()
        while True:
            while self._pq.is_busy():
                if any(ready(self._pq.socket, reads=True, writes=False, seconds=left(deadline))):
                    self._pq.consume_input()
            result = self._pq.get_result()
            if result is None:
                return found
            if result.status not in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
                raise self._refused(result)
            found.append(result)

    def _refused(self, result: PGresult) -> StoreUnavailable:
        code, says = result.error_field(DiagnosticField.SQLSTATE), result.get_error_message().splitlines()
        apply = ": run `feast apply`" if code in _UNDEFINED else ""
        return StoreUnavailable(f"{self._at} refused: {says[0] if says else repr(code)}{apply}")


def array(kind: int, elements: Sequence[bytes | None]) -> bytes:
    """An array in PostgreSQL's binary form (src/backend/utils/adt/arrayfuncs.c, array_send) of elements in theirs."""
    packed = [_NULL if each is None else _LENGTH.pack(len(each)) + each for each in elements]
    return _HEAD.pack(1, int(None in elements), kind, len(elements), 1) + b"".join(packed)


def said(error: Exception) -> str:
    """The first line of what an error says."""
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


def _connected(at: Address, deadline: float) -> PGconn:
    failure = "no address"
    places = [None] if at.host.startswith("/") else [place.to[0] for place in resolve(at.host, at.port, deadline)]
    for place, until in zip(places, shares(len(places), deadline), strict=True):
        made = pq.PGconn.connect_start(_conninfo(at, place))
        try:
            _poll(made, until)
        except TimeoutError:
            failure = "no answer in time"
        except (psycopg.Error, OSError) as error:
            failure = said(error)
        else:
            made.nonblocking = 1
            return made
        made.finish()
    raise StoreUnavailable(f"cannot connect to {at}: {failure}")


def _poll(made: PGconn, deadline: float) -> None:
    """Connect: libpq says what it waits for."""
    while True:
        status = made.connect_poll()
        if status == PollingStatus.OK:
            return
        if status == PollingStatus.FAILED:
            raise psycopg.OperationalError(made.get_error_message())
        reads, seconds = status == PollingStatus.READING, left(deadline)
        if not any(ready(made.socket, reads=reads, writes=not reads, seconds=seconds)):
            raise TimeoutError


def _conninfo(at: Address, place: str | None) -> bytes:
    more = {} if place is None else {"hostaddr": place}
    return make_conninfo(**at.parameters(_SESSION), **more).encode()
