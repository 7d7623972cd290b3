"""Pausing a stream, or partitions of it: recorded first, then acted on."""

from collections.abc import Callable, Sequence
from typing import Any

from sunup.engine.local.streaming.record import WHOLE, Pauses
from sunup.engine.local.streaming.streams import Streams
from sunup.errors import EngineError


class Pausing:
    """What people ask of it. Each method returns {"function", "paused", "workers"} and raises EngineError.

    `known(function)` raises it for a function that is not deployed.
    """

    def __init__(self, streams: Streams, pauses: Pauses, known: Callable[[str], object]) -> None:
        self._streams = streams
        self._pauses = pauses
        self._known = known

    def pause(self, function: str, partitions: Sequence[int] | None, by: str) -> dict[str, Any]:
        """Read nothing, or nothing of these partitions, until `resume`. Workers finish the batch they have."""
        self._check(function, partitions)
        self._pauses.note(function, [WHOLE] if partitions is None else partitions, by)
        return self._told(function)

    def resume(self, function: str, partitions: Sequence[int] | None) -> dict[str, Any]:
        """Read on: everything, or these partitions."""
        paused = self._check(function, partitions)["paused"]
        if partitions is not None and paused == "all":
            raise EngineError(
                f"All of {function}'s stream is paused. Resume all of it: platform stream resume {function}"
            )
        self._pauses.forget(function, partitions)
        return self._told(function)

    def _check(self, function: str, partitions: Sequence[int] | None) -> dict[str, Any]:
        self._known(function)
        facts: dict[str, Any] = self._streams.facts(function).get("stream", {})
        if not facts:
            raise EngineError(f"{function} has no [stream] in its function.toml.")
        known = [one["partition"] for one in facts["partitions"]]
        strange = sorted(set(partitions or ()) - set(known))
        if strange and not known:
            raise EngineError(
                f"The partitions of {facts['input']} are not known yet: {facts.get('reason', 'try again')}"
            )
        if strange:
            raise EngineError(f"{facts['input']} has no partition {strange[0]}: it has {known[0]} to {known[-1]}.")
        return facts

    def _told(self, function: str) -> dict[str, Any]:
        self._streams.repause(function)
        facts = self._streams.facts(function)["stream"]
        return {"function": function, "paused": facts["paused"], "workers": facts["workers"]}
