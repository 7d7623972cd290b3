"""The stages of a command, told while they go on: {"stage", "detail"} at the beginning, {"stage", "seconds"} behind."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from sunup.engine.engine import Event


class Steps:
    """Tells `on_event` what goes on."""

    def __init__(self, on_event: Event) -> None:
        self._on_event = on_event
        self._name = ""

    @contextmanager
    def step(self, name: str, detail: str = "") -> Iterator[None]:
        """One stage; its end is told only when nothing was raised."""
        began, self._name = time.monotonic(), name
        self._on_event({"stage": name, "detail": detail})
        yield
        self._on_event({"stage": name, "seconds": time.monotonic() - began})

    def tell(self, detail: str) -> None:
        """What the stage waits for now."""
        self._on_event({"stage": self._name, "detail": detail})

    def note(self, text: str) -> None:
        """Something a person should know."""
        self._on_event({"note": text})
