"""One connection to a PostgreSQL server: statements out, results matched by their order, callers let go in time.

psycopg makes the connection (addresses, TLS, passwords); reading goes through libpq's pipeline mode as psycopg wraps
it, on a reader of the event loop: 15 us of CPU for a read of two views where psycopg's own cursor takes 40, and any
number of reads at once on one connection, where the cursor takes one.
"""

import asyncio
import logging
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import psycopg
from psycopg.adapt import Transformer
from psycopg.pq import DiagnosticField, ExecStatus, Format

from sunup.limits import POSTGRES_INFLIGHT_MAX, STORE_STALL_SECONDS_MAX
from sunup.lookup.store import StoreUnavailable
from sunup.lookup.stores.waiting import Replied, Request, Waiting, settling

_log = logging.getLogger("sunup.lookup")

_NAME: Final = b"sunup_read"
_BYTEA, _BYTEA_ARRAY = 17, 1001  # the types' numbers, the same in every server
_HEAD: Final = struct.Struct(">iiiii")  # dimensions, has NULLs, element type, length, lower bound
_LENGTH: Final = struct.Struct(">i")
_EMPTY: Final = struct.pack(">iii", 0, 0, _BYTEA)
_CANCELLED: Final = b"57014"  # by the statement timeout; any other error says that something is wrong here


class Link:
    """One connection with the read prepared in it. Results come in order: the oldest request owns the next.

    A Sync behind each makes an error the error of one request.
    """

    def __init__(
        self,
        connection: "psycopg.AsyncConnection[Any]",
        loop: asyncio.AbstractEventLoop,
        on_lost: Callable[["Link", str], None],
    ) -> None:
        self._pq = connection.pgconn
        self._loop = loop
        self._on_lost = on_lost
        self._transformer = Transformer(connection)
        self._formats: list[Format] = []
        self._waiting = Waiting(loop, self._stalled)
        self._writing = False
        self.load = 0  # statements sent and not answered
        self._pq.nonblocking = 1
        self._pq.enter_pipeline_mode()
        self._socket = self._pq.socket
        loop.add_reader(self._socket, self._readable)

    def __repr__(self) -> str:
        return f"<Link {len(self._waiting.queue)} waiting>"

    async def prepare(self, query: bytes, parameters: int, *, timeout_ms: int, deadline: float) -> None:
        """Prepare `query`, whose parameters are bytea[], plan it by running it once with none, and set the timeout of
        what follows. Raises StoreUnavailable: a table is missing, or something of the like."""
        self._formats = [Format.BINARY] * parameters

        def send() -> None:
            self._pq.send_prepare(_NAME, query, [_BYTEA_ARRAY] * parameters)
            self._pq.send_query_prepared(_NAME, [array(())] * parameters, self._formats, Format.BINARY)
            self._pq.send_query_params(b"SELECT set_config('statement_timeout', $1, false)", [b"%d" % timeout_ms])

        prepared: asyncio.Future[list[Any]] = self._loop.create_future()
        self._ask(send, 3, deadline, settling(prepared))
        await prepared

    def request(self, statements: Sequence[Sequence[bytes]], deadline: float) -> "asyncio.Future[list[Any]]":
        """Run the prepared read once for each of `statements`, which are its parameters (see `array`), in one round
        trip; the future holds the rows of all of them, or StoreUnavailable."""
        future: asyncio.Future[list[Any]] = self._loop.create_future()
        self.ask(statements, deadline, settling(future))
        return future

    def ask(self, statements: Sequence[Sequence[bytes]], deadline: float, told: Replied) -> Request:
        """The same for a caller that is told within the read that brings the last row. `told` must not raise."""
        if len(self._waiting.queue) >= POSTGRES_INFLIGHT_MAX:
            raise StoreUnavailable("too many reads waiting")
        if time.monotonic() > deadline:
            raise StoreUnavailable("the deadline passed before the read")

        def send() -> None:
            for parameters in statements:
                self._pq.send_query_prepared(_NAME, parameters, self._formats, Format.BINARY)

        return self._ask(send, len(statements), deadline, told)

    def drop(self) -> None:
        """Close at once; everything waiting fails."""
        self._end("the connection was closed")

    def _ask(self, send: Callable[[], None], count: int, deadline: float, told: Replied) -> Request:
        if self._socket < 0:
            raise StoreUnavailable("the connection is closed")
        try:
            send()
            self._pq.pipeline_sync()
            self._flush()
        except psycopg.Error as error:
            reason = f"the connection was lost ({_said(error)})"
            self._end(reason)
            raise StoreUnavailable(reason) from error
        request = Request(told, count, deadline)
        self._waiting.add(request)
        self.load += count
        return request

    def _flush(self) -> None:
        """Write what the socket takes; the rest when it takes more."""
        unsent = bool(self._pq.flush())
        if unsent is not self._writing:
            self._writing = unsent
            if unsent:
                self._loop.add_writer(self._socket, self._writable)
            else:
                self._loop.remove_writer(self._socket)

    def _writable(self) -> None:
        try:
            self._flush()
        except psycopg.Error as error:
            self._end(f"the connection was lost ({_said(error)})")

    def _readable(self) -> None:
        try:
            self._pq.consume_input()
            while self._waiting.queue and not self._pq.is_busy():
                result = self._pq.get_result()
                if result is not None:  # None ends a statement's results
                    self._take(result)
            if self._writing:
                self._flush()
        except psycopg.Error as error:
            self._end(f"the connection was lost ({_said(error)})")

    def _take(self, result: Any) -> None:
        request, status = self._waiting.queue[0], result.status
        if status == ExecStatus.PIPELINE_SYNC:
            self._waiting.queue.popleft()
            self.load -= request.count
            if request.told is not None:
                request.tell(self._rows(request.replies))
        elif status == ExecStatus.TUPLES_OK:
            if request.told is not None:
                request.replies.append(result)
        elif status not in (ExecStatus.COMMAND_OK, ExecStatus.PIPELINE_ABORTED):
            code, says = result.error_field(DiagnosticField.SQLSTATE), result.get_error_message().splitlines()
            request.tell(StoreUnavailable(f"the store refused a read: {says[0] if says else code}"))
            if code != _CANCELLED:
                self._end(f"the store refused a read ({says[0] if says else code})")

    def _rows(self, results: list[Any]) -> list[Any] | StoreUnavailable:
        """Their rows as tuples: int, str, bytes and float as their columns are."""
        rows: list[Any] = []
        try:
            for result in results:
                self._transformer.set_pgresult(result)
                rows += self._transformer.load_rows(0, result.ntuples, tuple)
        except psycopg.Error as error:
            return StoreUnavailable(f"the store sent what cannot be read: {_said(error)}")
        return rows

    def _end(self, reason: str) -> None:
        """The connection is over, whoever ended it."""
        if self._socket < 0:
            return
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket = -1
        self._pq.finish()
        self._waiting.end(reason)
        self._on_lost(self, reason)

    def _stalled(self) -> None:
        self._end(f"no reply for {STORE_STALL_SECONDS_MAX:.1f} s")


def array(keys: Sequence[bytes]) -> bytes:
    """A bytea[] in PostgreSQL's binary form (src/backend/utils/adt/arrayfuncs.c, array_send)."""
    if not keys:
        return _EMPTY
    return _HEAD.pack(1, 0, _BYTEA, len(keys), 1) + b"".join([_LENGTH.pack(len(key)) + key for key in keys])


def _said(error: psycopg.Error) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
