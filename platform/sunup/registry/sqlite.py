"""MLflow's SQLite registry read directly: the same answers as mlflow.py in milliseconds, not after a 3 s import.

The default registry is a SQLite file with artifacts on the same disk, and everything `platform deploy` asks it is in
four tables. They are MLflow's own and may change, so `open_sqlite` looks at their columns first and returns None for
what it does not know; the caller then uses mlflow.py. A test compares the two on the same file.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from sunup.errors import RegistryError
from sunup.limits import REGISTRY_SECONDS_MAX
from sunup.registry.folder import copy_model
from sunup.registry.source import Entry, Reference, Resolved, Source, Version, choose, problem

PREFIX: Final = "sqlite:///"
_DELETED: Final = "Deleted_Internal"  # MLflow keeps the row of a deleted version under this stage
_TABLES: Final = {
    "registered_models": {"name"},
    "model_versions": {"name", "version", "current_stage", "source", "run_id", "status", "status_message"}
    | {"storage_location"},
    "registered_model_aliases": {"name", "alias", "version"},
}


def open_sqlite(tracking_uri: str, otherwise: Callable[[], Source]) -> "SqliteSource | None":
    """A source over the SQLite file `tracking_uri` names, or None when it is no such address or its tables are not the
    known ones. `otherwise` makes the source that fetches what is not on this disk."""
    path = Path(tracking_uri.removeprefix(PREFIX))
    if not tracking_uri.startswith(PREFIX) or "?" in tracking_uri or not path.is_file():
        return None
    try:
        with _read(path) as connection:
            for table, columns in _TABLES.items():
                have = {row[1]: row for row in connection.execute(f"PRAGMA table_info({table})")}
                if not columns <= have.keys():
                    return None
            workspaces = bool(
                connection.execute(
                    "SELECT 1 FROM pragma_table_info('model_versions') WHERE name = 'workspace'"
                ).fetchone()
            )
    except sqlite3.Error:
        return None  # not a database, or not readable: MLflow's own message is the better one
    return SqliteSource(path, workspaces=workspaces, otherwise=otherwise)


class SqliteSource:
    """A Source over MLflow's SQLite file; made by `open_sqlite`. Opens the file read-only for each question."""

    def __init__(self, path: Path, *, workspaces: bool, otherwise: Callable[[], Source]) -> None:
        self._path = path
        self._where = " AND workspace = 'default'" if workspaces else ""
        self._otherwise = otherwise

    def __repr__(self) -> str:
        return f"SqliteSource({str(self._path)!r})"

    def resolve(self, reference: Reference) -> Resolved:
        """See Source."""
        return choose(reference, find=self._find, names=self.models, where=f"{PREFIX}{self._path}")

    def fetch(self, resolved: Resolved, into: Path) -> Path:
        """Copy the model's files to `into`/<name>-<version>; through the other source when they are elsewhere."""
        location = self._location(resolved)
        if location is None:
            return self._otherwise().fetch(resolved, into)
        return copy_model(location, into / f"{resolved.name}-{resolved.version}")

    def models(self) -> list[str]:
        """See Source."""
        rows = self._rows(f"SELECT name FROM registered_models WHERE 1 = 1{self._where} ORDER BY name")
        return sorted(row[0] for row in rows)

    def _find(self, name: str) -> Entry | None:
        if not self._rows(f"SELECT 1 FROM registered_models WHERE name = ?{self._where}", name):
            return None
        versions = self._rows(
            "SELECT version, run_id, source, status, status_message FROM model_versions "
            f"WHERE name = ? AND current_stage IS NOT '{_DELETED}'{self._where}",
            name,
        )
        aliases = self._rows(f"SELECT alias, version FROM registered_model_aliases WHERE name = ?{self._where}", name)
        return Entry(
            name,
            {
                str(v): Version(run or "", source or "", problem(status or "READY", why))
                for v, run, source, status, why in versions
            },
            {alias: str(version) for alias, version in aliases},
        )

    def _location(self, resolved: Resolved) -> Path | None:
        """The folder of a version on this disk, or None when its files are elsewhere."""
        rows = self._rows(
            f"SELECT storage_location, source FROM model_versions WHERE name = ? AND version = ?{self._where}",
            resolved.name,
            int(resolved.version),
        )
        uri = next((row[0] or row[1] for row in rows), "") or ""
        parts = urlsplit(uri)
        if parts.scheme == "file" and parts.netloc in ("", "localhost"):
            return Path(unquote(parts.path))
        return Path(uri) if uri.startswith("/") else None

    def _rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        try:
            with _read(self._path) as connection:
                return connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise RegistryError(
                f"The model registry {self._path} cannot be read: {error}. Is another program writing it?"
            ) from error


@contextmanager
def _read(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=REGISTRY_SECONDS_MAX)
    try:
        yield connection
    finally:
        connection.close()
