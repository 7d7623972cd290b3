"""What the follower knows: the functions that follow an alias, and the registries their aliases are in."""

from collections.abc import Mapping
from typing import Any, Final

from sunup.cli.client import Asker, Resident
from sunup.errors import CommandError, ConversionRefused, FeaturesRefused, ParityFailed, UsageError
from sunup.limits import FOLLOW_DEPLOY_SECONDS_MAX, FOLLOW_TRIES_MAX
from sunup.registry.alias import RELEVANT, Aliases, fingerprint, open_aliases
from sunup.settings import Project

Key = tuple[str, ...]

# What is wrong with the model or its declaration, and will be until somebody changes it.
_FINAL: Final = frozenset({error.code for error in (UsageError, ConversionRefused, ParityFailed, FeaturesRefused)})
_REGISTRY: Final = "registry"  # it may come back: asked as long as it takes


class Followed:
    """One function that follows an alias. `version`: the last one acted upon; `trouble`: why the one its alias names is
    not deployed yet."""

    def __init__(self, project: Project, follow: Mapping[str, Any], asker: Asker) -> None:
        self.function: str = follow["function"]
        self.id: str = follow["id"]
        self.name: str = follow["name"]
        self.model: str = follow["model"]
        self.alias: str = follow["alias"]
        self.version: str = follow["version"]
        self.asker = asker
        self.uri = asker.registry(project)
        self.is_lost = fingerprint(self.uri) != follow["registry"]
        self.trouble = ""
        self.busy = False
        self._tries = 0
        self._not_before = 0.0

    def __repr__(self) -> str:
        return f"Followed({self.function}: {self.name} at {self.version}, busy={self.busy})"

    @property
    def key(self) -> Key:
        """Of its registry: the address, and what else decides how that is reached."""
        relevant = (f"{name}={value}" for name, value in self.asker.environment.items() if RELEVANT.fullmatch(name))
        return self.uri, *sorted(relevant)

    def wants(self, version: str, now: float) -> bool:
        """Whether its alias, which names `version`, moved, and it is time to act on that."""
        return version != self.version and not self.busy and now >= self._not_before

    def acted(self, version: str) -> None:
        """A version is deployed, or refused."""
        self.version, self.trouble = version, ""
        self._tries, self._not_before = 0, 0.0

    def failed(self, error: CommandError, now: float) -> bool:
        """A deploy failed; whether that was the last attempt at this version."""
        self._tries = min(self._tries + 1, 20)
        if error.code in _FINAL or (error.code != _REGISTRY and self._tries >= FOLLOW_TRIES_MAX):
            return True
        self.trouble = f"not deployed yet: {error.message}"
        self._not_before = now + min(FOLLOW_DEPLOY_SECONDS_MAX, 0.5 * 2.0**self._tries)
        return False


class Watched:
    """One registry, and the functions that follow aliases in it, by name. One thread at a time may ask it."""

    def __init__(self, project: Project, one: Followed) -> None:
        self._project = project
        self._uri = one.uri
        self._asker = one.asker
        self._aliases: Aliases | None = None
        self.functions: dict[str, Followed] = {}

    def __repr__(self) -> str:
        return f"Watched({', '.join(self.functions)})"

    def version(self, model: str, alias: str) -> str:
        """See registry.alias.Aliases."""
        if self._aliases is None:
            self._aliases = open_aliases(self._uri, self._asker.environment) or _Packaged(self._project, self._asker)
        return self._aliases.version(model, alias)

    def close(self) -> None:
        """Nobody asks any more."""
        if self._aliases is not None:
            self._aliases.close()


class _Packaged:
    """Aliases as MLflow's own client sees them, in the resident process that has it imported."""

    def __init__(self, project: Project, asker: Asker) -> None:
        self._resident = Resident(project, asker)

    def version(self, model: str, alias: str) -> str:
        """See registry.alias.Aliases."""
        found: str = self._resident.ask("version", {"model": model, "alias": alias}, lambda _: None)["version"]
        return found

    def close(self) -> None:
        """See registry.alias.Aliases; nothing is."""
