"""The durable record of which function follows which alias, in the state file."""

import sqlite3
from typing import NamedTuple


class Follow(NamedTuple):
    """One function that follows an alias.

    `id`: of this decision, so that work begun under an earlier one is known. `name`: as it was typed; `model`, `alias`:
    what that means in the registry; `registry`: a digest of the registry's address. `version`: the last one that was
    acted upon: deployed, or refused with `reason` ("": it was deployed). `at`: Unix seconds of that.
    """

    function: str
    id: str
    name: str
    model: str
    alias: str
    registry: str
    version: str
    reason: str
    at: float


class Follows:
    """The table of them, in a state file."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def all(self) -> list[Follow]:
        """Every function that follows an alias, by name."""
        columns = ", ".join(Follow._fields)
        return [Follow(*row) for row in self._db.execute(f"SELECT {columns} FROM follows ORDER BY function")]

    def note(self, follow: Follow) -> None:
        """Remember, durably, instead of what was known of its function."""
        columns, values = ", ".join(Follow._fields), ", ".join("?" * len(Follow._fields))
        self._db.execute(f"INSERT OR REPLACE INTO follows ({columns}) VALUES ({values})", follow)

    def forget(self, function: str) -> None:
        """A function follows nothing any more."""
        self._db.execute("DELETE FROM follows WHERE function = ?", (function,))
