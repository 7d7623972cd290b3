"""The durable record of which streams, or partitions of streams, somebody has paused, in the state file."""

import sqlite3
import time
from collections.abc import Collection
from typing import Final, NamedTuple

WHOLE: Final = -1  # where a partition's number would be: all of the stream


class Pause(NamedTuple):
    """Who paused it, and when (Unix seconds)."""

    by: str
    at: float


class Pauses:
    """The table of them. Every change is durable when its method returns."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def of(self, function: str) -> dict[int, Pause]:
        """What is paused of a function's stream: partitions, and WHOLE."""
        rows = self._db.execute(
            "SELECT partition, by, at FROM pauses WHERE function = ? ORDER BY partition", (function,)
        )
        return {partition: Pause(by, at) for partition, by, at in rows}

    def note(self, function: str, partitions: Collection[int], by: str) -> None:
        """Paused from now on, all in one transaction; what was paused before keeps who did it."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            rows = [(function, partition, by, time.time()) for partition in partitions]
            self._db.executemany("INSERT OR IGNORE INTO pauses VALUES (?, ?, ?, ?)", rows)

    def forget(self, function: str, partitions: Collection[int] | None = None) -> None:
        """Paused no more: these, or whatever is."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            if partitions is None:
                self._db.execute("DELETE FROM pauses WHERE function = ?", (function,))
            else:
                rows = [(function, partition) for partition in partitions]
                self._db.executemany("DELETE FROM pauses WHERE function = ? AND partition = ?", rows)
