"""A pod for calls: load and prove, listen, answer; when told to end, answer what still comes, then end."""

import asyncio
import logging
import time
from typing import Any, Final

from sunup.access.guard import Guard
from sunup.access.keys import Key
from sunup.access.watched import KeyFile
from sunup.errors import CommandError, EngineError, UsageError
from sunup.limits import POD_LOOK_SECONDS, POD_QUIET_SECONDS, POD_WOKEN_SECONDS, TRIM_SECONDS
from sunup.link.process import trim_heap
from sunup.serve.opening import open_function
from sunup.serve.pod.handler import PodHandler
from sunup.serve.pod.life import Leaving, Pod
from sunup.serve.pod.listening import Listening, bind

_LOG: Final = logging.getLogger("sunup.serve.pod")


async def serve(pod: Pod) -> None:
    """To the end of the process. Raises what `function.load` does, UsageError, or EngineError for calls cut off."""
    sock = bind(pod.environment.port, "PORT")
    await pod.begin()
    opened = await open_function(pod.spec, None, PodHandler)
    handler = opened.handler
    assert isinstance(handler, PodHandler)
    pod.loaded(opened.timings)
    _guard(pod, handler)
    listening = Listening(sock, handler)
    await listening.open()
    pod.trouble = ""
    handler.cold = pod.ready()
    loop = asyncio.get_running_loop()
    loop.call_later(POD_WOKEN_SECONDS, _forget_cold, handler)
    loop.call_later(TRIM_SECONDS, trim_heap)  # loading a model took twice what it keeps
    await pod.told.wait()
    try:
        await _leave(handler, listening)
    finally:
        handler.close()


def _guard(pod: Pod, handler: PodHandler) -> None:
    """Let in who has a key, as the file says now and later."""
    path = pod.environment.api_keys
    if path is None:
        return

    def changed(keys: list[Key]) -> None:
        handler.guard = Guard(keys, None)

    try:
        file = KeyFile(path, changed, _LOG.info)
    except CommandError as error:
        raise UsageError(f"SUNUP_API_KEYS: {error.message}") from error
    changed(file.keys)


def _forget_cold(handler: PodHandler) -> None:
    handler.cold = None


async def _leave(handler: PodHandler, listening: Listening) -> None:
    """No call is lost: routers hear that no more should come, and whatever comes until they have is answered, with
    word that its connection ends. Then nothing new is accepted, and what is in hand ends."""
    leaving = Leaving(time.monotonic())
    handler.leave()
    listening.leaving = True
    _LOG.info("told to end", extra={"inflight": handler.inflight, "connections": len(listening)})
    while not leaving.takes_none(time.monotonic(), last_call=handler.last_call, inflight=handler.inflight):
        await asyncio.sleep(POD_LOOK_SECONDS)  # calls do not say that they were the last: this is the period of looking
    await listening.stop()
    while len(listening):
        listening.close_silent(POD_QUIET_SECONDS)
        if leaving.gives_up(time.monotonic()):
            cut: dict[str, Any] = {"inflight": handler.inflight, "connections": len(listening)}
            _LOG.error("ends all the same", extra=cut)
            if handler.inflight:
                raise EngineError(
                    f"{handler.inflight} calls were not answered in the time a pod has to end, and are cut off."
                )
            return
        await asyncio.sleep(POD_LOOK_SECONDS)
    _LOG.info("ended")
