"""The file under the embedded log: one SQLite database, one writer at a time, errors that say what to do."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from msgspec import MsgspecError

from sunup.limits import EMBEDDED_BUSY_SECONDS
from sunup.stream.broker import BrokerError, Trouble

_WHAT_TO_DO: Final = {
    "SQLITE_BUSY": f"; another process has been writing to it for {EMBEDDED_BUSY_SECONDS:g} s: see what that one does",
    "SQLITE_FULL": "; make room, and it goes on by itself",
    "SQLITE_CORRUPT": "; it is damaged: stop what uses it and move it away, a new one begins empty",
    "SQLITE_NOTADB": "; it is damaged or something else: move it away, a new one begins empty",
    "SQLITE_READONLY": "; give this user the right to write it",
    "SQLITE_CANTOPEN": "; see that this user may write in its folder",
}


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """The only one that writes to its file; nothing of it stays where it does not end well."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


class SqliteFile:
    """Connects when first used, from any thread, one at a time. Every method raises BrokerError.

    `schema`: statements that make its tables where they are missing.
    """

    def __init__(self, path: Path, schema: str) -> None:
        self.path = path
        self._schema = schema
        self._opened: sqlite3.Connection | None = None

    def select(self, query: str, *values: Any) -> list[Any]:
        """All rows at once."""
        with self.use() as connection:
            return connection.execute(query, values).fetchall()

    @contextmanager
    def change(self) -> Iterator[sqlite3.Connection]:
        """One transaction, the only one that writes to the file; within another one, part of it."""
        with self.use() as connection:
            if connection.in_transaction:
                yield connection
                return
            with transaction(connection):
                yield connection

    @contextmanager
    def use(self) -> Iterator[sqlite3.Connection]:
        """The connection, where several rows are too many at once."""
        try:
            self._opened = self._opened or self._open()
            yield self._opened
        except (sqlite3.Error, OSError, MsgspecError) as error:
            name = getattr(error, "sqlite_errorname", "")
            what = next((what for code, what in _WHAT_TO_DO.items() if name.startswith(code)), "")
            raise BrokerError(Trouble.FAILED, f"the log {self.path}: {error}{what}") from error

    def close(self) -> None:
        """Let go of the file; it opens again when used."""
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        opened = sqlite3.connect(self.path, EMBEDDED_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            opened.execute("PRAGMA journal_mode = WAL")
            opened.execute("PRAGMA synchronous = FULL")  # what was acknowledged outlives a power cut
            opened.executescript(self._schema)
        except BaseException:
            opened.close()
            raise
        return opened
