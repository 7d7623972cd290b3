"""A worker pod: `python -m sunup.serve.pod`. What it serves, and how, its environment says (docs/pods.md).

It ends with 0 when it was told to (SIGTERM), else with a code of ending.Exit and one JSON line on stderr.
"""

import os
import signal

if __name__ == "__main__":  # before the imports: a container's first process is not told what it has no handler for
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # nothing is in hand yet
# Before them, too: a pod is scaled by its container, and threads of numpy's libraries would only get in its way.
os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")

import logging
import sys
import time
from typing import TYPE_CHECKING, Any, NoReturn

from sunup.serve.pod import environment
from sunup.serve.pod.ending import Exit, exit_of, last_words
from sunup.serve.telemetry import log

if TYPE_CHECKING:  # see _run
    from collections.abc import Callable, Coroutine

    from sunup.serve.pod.life import Pod


def main() -> NoReturn:
    """Entry point."""
    begun = time.clock_gettime(time.CLOCK_BOOTTIME)
    try:
        _run(begun)
    except BaseException as error:  # whatever it is, somebody wants to know
        _end(error)
    _end(None)


def _run(begun: float) -> None:
    log.configure(None)
    found = environment.read(os.environ)
    # Behind the environment: what is wrong with it is said in 0.1 s, and the rest takes 0.3 s to import.
    from asyncio import Runner

    from uvloop import new_event_loop  # see above

    from sunup.access.rights import confine  # see above
    from sunup.limits import CONNECTIONS_MAX, SPARE_DESCRIPTORS  # see above
    from sunup.link.process import name_process, raise_nofile, started  # see above
    from sunup.serve.pod.life import Pod, read_bundle  # see above

    raise_nofile()
    confine(descriptors=CONNECTIONS_MAX + SPARE_DESCRIPTORS)
    manifest = read_bundle(found)
    name_process(f"sunup-{manifest.function}")
    log.configure(None, function=manifest.function, revision=found.revision)
    if found.role == environment.STREAM:
        from sunup.serve.pod.stream import score as run  # Kafka's loop, which pods for calls do without
    else:
        from sunup.serve.pod.calls import serve as run  # what a stream does without

    imported = time.clock_gettime(time.CLOCK_BOOTTIME)
    stages = {"process": begun - started(), "import": imported - begun}
    with Runner(loop_factory=new_event_loop) as runner:
        runner.run(_live(run, Pod(found, manifest, stages)))


async def _live(run: "Callable[[Pod], Coroutine[Any, Any, None]]", pod: "Pod") -> None:
    """The end comes before the loop's own, which would wait for threads."""
    try:
        await run(pod)
    except BaseException as error:  # as in main
        _end(error)
    _end(None)


def _end(error: BaseException | None) -> NoReturn:
    """At once, without waiting for threads: what had to be finished is, or cannot be."""
    code = Exit.DONE if error is None else exit_of(error)
    try:
        if code is Exit.FAILED:
            logging.getLogger("sunup.serve.pod").error("cannot go on", exc_info=error)
        if error is not None:
            last_words(error)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
