"""The durable record of functions and revisions: one SQLite file, every change committed before it is acted on.

Its version is `PRAGMA user_version`. An older file is brought up step by step when it is opened, each step with its new
number in one transaction; a file of a newer Sunup is refused.
"""

import json
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

from sunup.engine.follow.record import Follows
from sunup.engine.local.streaming.record import Pauses
from sunup.errors import EngineError
from sunup.limits import REVISIONS_KEPT
from sunup.settings import Settings

# Step i leads from version i to i + 1. A step that was released is never changed: the next change is another step.
MIGRATIONS: Final = (
    """
    CREATE TABLE functions (name TEXT PRIMARY KEY, revision INTEGER NOT NULL) STRICT;
    CREATE TABLE revisions (
      function TEXT NOT NULL, revision INTEGER NOT NULL, digest TEXT NOT NULL, model TEXT NOT NULL,
      settings TEXT NOT NULL, created REAL NOT NULL, PRIMARY KEY (function, revision)
    ) STRICT;
    CREATE TABLE proofs (digest TEXT NOT NULL, machine TEXT NOT NULL, PRIMARY KEY (digest, machine)) STRICT;
    """,
    # Many files of version 1 have this table: it was made outside of the schema. The collector asks by digest.
    """
    CREATE TABLE IF NOT EXISTS silences (function TEXT PRIMARY KEY, data BLOB NOT NULL) STRICT;
    CREATE INDEX revisions_by_digest ON revisions (digest);
    """,
    # See engine/follow/record.py.
    """
    CREATE TABLE follows (
      function TEXT PRIMARY KEY, id TEXT NOT NULL, name TEXT NOT NULL, model TEXT NOT NULL, alias TEXT NOT NULL,
      registry TEXT NOT NULL, version TEXT NOT NULL, reason TEXT NOT NULL, at REAL NOT NULL
    ) STRICT;
    """,
    # See engine/local/streaming/record.py.
    """
    CREATE TABLE pauses (
      function TEXT NOT NULL, partition INTEGER NOT NULL, by TEXT NOT NULL, at REAL NOT NULL,
      PRIMARY KEY (function, partition)
    ) STRICT;
    """,
)
VERSION: Final = len(MIGRATIONS)


class Revision(NamedTuple):
    """One deployed bundle of a function. `created`: Unix seconds. `settings`: what a worker gets at birth."""

    function: str
    revision: int
    digest: str
    model: str
    settings: Mapping[str, str]
    created: float


class Silences:
    """What was learned of functions' silences, in the state file."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def of(self, function: str) -> bytes:
        """What was last noted of a function; empty if nothing was."""
        row = self._db.execute("SELECT data FROM silences WHERE function = ?", (function,)).fetchone()
        return b"" if row is None else bytes(row[0])

    def note(self, learned: Mapping[str, bytes]) -> None:
        """Remember what was learned, by function, in one transaction."""
        if learned:
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                self._db.executemany("INSERT OR REPLACE INTO silences VALUES (?, ?)", learned.items())


class Kept:
    """Which bundles the state file refers to, and the end of what it says of others."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def digests(self) -> set[str]:
        """The bundles of every remembered revision."""
        return {digest for (digest,) in self._db.execute("SELECT DISTINCT digest FROM revisions")}

    def proven(self) -> set[str]:
        """The bundles that passed their self-proof on any machine."""
        return {digest for (digest,) in self._db.execute("SELECT DISTINCT digest FROM proofs")}

    def forget(self, digests: Iterable[str]) -> None:
        """These bundles are gone: forget that they were proven."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("DELETE FROM proofs WHERE digest = ?", [(digest,) for digest in digests])


class StateFile:
    """The state of one project. WAL, synchronous=FULL: what `route` or `forget` returned from survives a power cut."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None)
        path.chmod(0o600)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        _migrate(self._db, path)
        self.silences = Silences(self._db)
        self.kept = Kept(self._db)
        self.follows = Follows(self._db)
        self.pauses = Pauses(self._db)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def current(self) -> list[Revision]:
        """The routed revision of every function, by name."""
        return self._revisions(
            "JOIN functions f ON f.name = r.function AND f.revision = r.revision ORDER BY r.function"
        )

    def revisions(self, function: str) -> list[Revision]:
        """The revisions remembered for one function, oldest first."""
        return self._revisions("WHERE r.function = ? ORDER BY r.revision", function)

    def next_revision(self, function: str) -> int:
        """The number the next new revision of a function gets."""
        (last,) = self._db.execute("SELECT max(revision) FROM revisions WHERE function = ?", (function,)).fetchone()
        return (last or 0) + 1

    def route(self, *revisions: Revision, proven_on: str | None = None) -> None:
        """Make each its function's current one, all in one transaction, durably; forget the oldest beyond the limit.
        `proven_on`: the machine their bundles passed their self-proof on, to be remembered too."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            for revision in revisions:
                self._write(revision)
                if proven_on is not None:
                    self.note_proof(revision.digest, proven_on)

    def forget(self, function: str) -> None:
        """Remove a function and its revisions, durably."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("DELETE FROM functions WHERE name = ?", (function,))
            self._db.execute("DELETE FROM revisions WHERE function = ?", (function,))
            self._db.execute("DELETE FROM silences WHERE function = ?", (function,))
            self._db.execute("DELETE FROM pauses WHERE function = ?", (function,))

    def proven(self, digest: str, machine: str) -> bool:
        """Whether a bundle passed its self-proof on `machine` (CPU flags and runtime version)."""
        query = "SELECT 1 FROM proofs WHERE digest = ? AND machine = ?"
        return self._db.execute(query, (digest, machine)).fetchone() is not None

    def note_proof(self, digest: str, machine: str) -> None:
        """Remember that a bundle passed its self-proof on `machine`."""
        self._db.execute("INSERT OR IGNORE INTO proofs VALUES (?, ?)", (digest, machine))

    def _write(self, revision: Revision) -> None:
        r = revision
        self._db.execute(
            "INSERT OR REPLACE INTO revisions VALUES (?, ?, ?, ?, ?, ?)",
            (r.function, r.revision, r.digest, r.model, json.dumps(dict(r.settings), sort_keys=True), r.created),
        )
        self._db.execute("INSERT OR REPLACE INTO functions VALUES (?, ?)", (r.function, r.revision))
        self._db.execute(
            "DELETE FROM revisions WHERE function = ? AND revision <= ? - ? AND revision <> ?",
            (r.function, self.next_revision(r.function) - 1, REVISIONS_KEPT, r.revision),
        )

    def _revisions(self, clause: str, *values: str) -> list[Revision]:
        columns = "r.function, r.revision, r.digest, r.model, r.settings, r.created"
        rows = self._db.execute(f"SELECT {columns} FROM revisions r {clause}", values)
        return [Revision(f, n, d, m, Settings(json.loads(s)), c) for f, n, d, m, s, c in rows]


def recorded_settings(path: Path, function: str) -> Settings:
    """Of the routed revision, for who only looks: the file may be another process's. Raises EngineError without one."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
        routed = "JOIN functions f ON f.name = r.function AND f.revision = r.revision"
        query = f"SELECT r.settings FROM revisions r {routed} WHERE r.function = ?"
        row = db.execute(query, (function,)).fetchone()
    if row is None:
        raise EngineError(f"No function {function!r} is deployed.")
    return Settings(json.loads(row[0]))


def _migrate(db: sqlite3.Connection, path: Path) -> None:
    """Bring a state file to VERSION. Raises EngineError for a file of a newer Sunup."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise EngineError(
            f"{path} was written by a newer Sunup (state version {version}; this one reads up to {VERSION}). Run that "
            f"Sunup; or, to go back to this one, put back the copy of {path.parent} made before the upgrade, or move "
            f"{path.name} away and deploy again."
        )
    for number in range(version, VERSION):
        db.executescript(f"BEGIN IMMEDIATE; {MIGRATIONS[number]} PRAGMA user_version={number + 1}; COMMIT;")
