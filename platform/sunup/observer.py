"""Who is told what a pipeline does while it answers: the counters of a worker."""

from collections.abc import Callable
from typing import Protocol, TypeAlias

from sunup.types import Features

# Who counts what a cache was asked: its name, how many were looked for, how many were found.
Tell: TypeAlias = Callable[[str, int, int], None]


class Observer(Protocol):
    """What a pipeline tells while it works. All are called on the event loop and must return at once."""

    def features(self, found: Features) -> None:
        """A lookup ended."""
        ...

    def queued(self, calls: int) -> None:
        """So many calls now wait for the model."""
        ...

    def recalled(self, cache: str, looked: int, found: int) -> None:
        """So many rows or keys were looked for in a cache, and so many found. Only of functions that have one."""
        ...


class Unobserved:
    """Nobody looks."""

    def features(self, found: Features) -> None:
        """See Observer."""

    def queued(self, calls: int) -> None:
        """See Observer."""

    def recalled(self, cache: str, looked: int, found: int) -> None:
        """See Observer."""
