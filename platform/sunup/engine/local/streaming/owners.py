"""Each stream feature view of an online store is aggregated by one function: two would overwrite each other's."""

from collections.abc import Iterable, Mapping
from typing import Protocol, TypeAlias
from urllib.parse import urlsplit

from sunup.engine.local.state import Revision
from sunup.errors import EngineError
from sunup.settings import FEATURES_URL

Views: TypeAlias = dict[tuple[str, str], str]  # (store, Feast project/view) -> the function that aggregates it


class Deployed(Protocol):
    """What is needed to know of a function that is live. `aggregates`: see Manifest."""

    @property
    def revision(self) -> Revision: ...
    @property
    def aggregates(self) -> tuple[str, ...]: ...


def owners(deployed: Iterable[Deployed]) -> Views:
    """Which function aggregates what."""
    return {view: one.revision.function for one in deployed for view in owned(one.revision.settings, one.aggregates)}


def owned(settings: Mapping[str, str], aggregates: Iterable[str]) -> list[tuple[str, str]]:
    """What a function with these settings aggregates; a store is the same one whoever logs in."""
    url = urlsplit(settings.get(FEATURES_URL, ""))
    store = url._replace(netloc=url.netloc.rpartition("@")[2]).geturl()
    return [(store, view) for view in aggregates]


def check_owner(function: str, settings: Mapping[str, str], aggregates: Iterable[str], known: Views) -> None:
    """Raises EngineError if another function of `known` aggregates a view that `function` would."""
    for view in owned(settings, aggregates):
        owner = known.get(view, function)
        if owner != function:
            name = view[1].rpartition("/")[2]
            raise EngineError(
                f"{function} would aggregate the stream feature view {name}, which {owner} aggregates. Write "
                f"`aggregate = []` under [stream] in functions/{function}/function.toml, and {function} reads what "
                f"{owner} writes; or remove {owner} before."
            )
