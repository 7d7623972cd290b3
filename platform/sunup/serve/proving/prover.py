"""A prover: a process forked from the nursery that proves bundles one after another, for a deploy of many.

It does what a worker's birth does, and then lets go of the model instead of serving it. It ends with its supervisor.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sunup.bundle.store import verify
from sunup.errors import SunupError
from sunup.execute.executor import Executor
from sunup.function import Cost
from sunup.link.channel import Channel, Message
from sunup.serve.attached import Attached
from sunup.serve.opening import load

_LOG = logging.getLogger(__name__)


async def live(spec: dict[str, Any], fds: list[int], begun: float, _: Executor | None) -> None:
    """Prove what it is asked to, until it is told to end."""
    prover = Prover(spec, fds)
    prover.attached.ready({"fork": begun - spec["asked"]})
    await prover.attached.ended.wait()


class Prover:
    """The process as the supervisor sees it. {"op": "prove", "bundle", "settings", "prove"} is answered by {"op":
    "proved", "cost", "error"}; the supervisor asks for the next one when it has the answer."""

    def __init__(self, spec: Mapping[str, Any], fds: list[int]) -> None:
        self.attached = Attached(spec, fds, self._heard, self._closed)
        self._known = {"machine": spec["machine"], "role": spec["role"]}  # what a birth says, and "prove" does not
        self._loop = asyncio.get_running_loop()
        self._job: asyncio.Task[None] | None = None

    def _heard(self, _: Channel, message: Message) -> None:
        match message.head["op"]:
            case "prove":
                self._job = self._loop.create_task(self._prove(message.head))
            case "drain":
                self.attached.ended.set()

    def _closed(self, _: Channel) -> None:
        self.attached.ended.set()

    async def _prove(self, head: Mapping[str, Any]) -> None:
        begun = time.monotonic()
        cost, error = None, None
        try:
            cost = await prove({**head, **self._known})
        except SunupError as refused:
            error = {"code": refused.code, "message": refused.message}
        except Exception as failed:
            _LOG.exception("%s cannot be proven", head["bundle"])
            error = {"code": "internal", "message": f"{failed!r}; prover.log says more."}
        if error is not None:
            _LOG.error("%s is refused after %.3f s: %s", head["bundle"], time.monotonic() - begun, error["message"])
        self.attached.tell({"op": "proved", "cost": cost, "error": error})


async def prove(head: Mapping[str, Any]) -> Cost | None:
    """Check every byte of a bundle and, with `prove`, its answers; what a model run costs. Raises what load does."""
    if not head["prove"]:
        verify(Path(head["bundle"]))
        return None
    function = await load(head, None)
    await function.aclose()
    return function.cost
