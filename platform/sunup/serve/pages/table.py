"""The functions there are, and how a page finds the one it is about."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec
from starlette.requests import Request as Asked
from starlette.responses import Response as Answer

from sunup.bundle.manifest import Manifest
from sunup.errors import UnknownFunction

NAMES_SHOWN: Final = 20  # names an error lists; more would bury it


class Entry(msgspec.Struct, frozen=True):
    """A deployed function. `model`: its name and version, with a slash; `state`: ready, starting, cold (at zero: the
    next call wakes it), leaving (its pod ends) or failed. `read` gives the manifest of a digest: who knows thousands
    of functions holds no manifest, which is 10 KB, and reads one when a page is about it."""

    function: str
    model: str
    revision: int
    state: str
    digest: str
    read: Callable[[str], Manifest]

    @property
    def manifest(self) -> Manifest:
        return self.read(self.digest)

    @property
    def version(self) -> str:
        """Of the model."""
        return self.model.rpartition("/")[2]

    @property
    def ready(self) -> bool:
        """Whether a call would be answered, at once or after waking a worker, and should come."""
        return self.state not in ("failed", "leaving")


Table = Mapping[str, Entry]  # by function name


class Part(Mapping[str, Entry]):
    """The functions of a table that have one of these names, looked at anew each time."""

    def __init__(self, table: Table, names: frozenset[str]) -> None:
        self._table = table
        self._names = names

    def __getitem__(self, name: str) -> Entry:
        if name not in self._names:
            raise KeyError(name)
        return self._table[name]

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._table if name in self._names)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def find(table: Table, asked: Asked) -> Entry:
    """The function, and the version if one is, named by the path. Raises UnknownFunction."""
    name, version = asked.path_params["name"], asked.path_params.get("version")
    entry = table.get(name)
    if entry is None:
        raise UnknownFunction(f"There is no function {name!r} here. {_names(table)}")
    served = entry.version
    if version not in (None, served):
        raise UnknownFunction(f"Version {version!r} of {name!r} is not served here; version {served!r} is.")
    return entry


def _names(table: Table) -> str:
    names = sorted(table)
    if not names:
        return "None is deployed yet."
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return f"There is {', '.join(names[:NAMES_SHOWN])}{more}."


def json(value: Any, status: int = 200) -> Answer:
    """A value as a JSON answer."""
    return Answer(msgspec.json.encode(value), status, media_type="application/json")
