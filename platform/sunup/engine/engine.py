"""What the command line asks of an engine."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

Event = Callable[[dict[str, Any]], None]


class Engine(Protocol):
    """Keeps functions live. Every method raises a CommandError that says what to do."""

    def deploy(
        self,
        function: str,
        digest: str,
        *,
        settings: Mapping[str, str],
        on_event: Event,
        follow: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Prove and route a bundle of the store. Returns function, revision, digest, url, unchanged, seconds, follows.

        `follow`: which alias the function follows from now on (None: none).
        """
        ...

    def rollback(self, function: str, revision: int | None) -> dict[str, Any]:
        """Route an earlier revision again (None: the one before the current)."""
        ...

    def remove(self, function: str) -> dict[str, Any]:
        """Stop serving a function and forget its revisions."""
        ...

    def pause(self, function: str, partitions: Sequence[int] | None) -> dict[str, Any]:
        """Read nothing of the function's topic, or nothing of these partitions, until `resume`, whatever restarts in
        between. Returns function, paused ("all" or partitions) and workers: how many still finish what they have."""
        ...

    def resume(self, function: str, partitions: Sequence[int] | None) -> dict[str, Any]:
        """Read on: all that is paused, or these partitions. Returns what `pause` does."""
        ...

    def status(self, function: str | None, *, latency: bool = False) -> dict[str, Any]:
        """Facts about the engine and its functions (None: all). `latency`: with histograms, under that name."""
        ...

    def logs(self, function: str) -> Path:
        """The file that holds the function's log lines."""
        ...
