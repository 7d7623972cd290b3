"""The follower: looks once a second which version each followed alias names, and deploys it when that changed.

It runs as `python -m sunup.cli.follow.follower RUN_FOLDER OWN_FD`, a child of the engine, and ends with it. It imports
no MLflow: aliases are asked for over REST or in SQLite, and conversion is the packager's, which it keeps warm, because
importing MLflow and Feast again would take longer than a move may.
"""

import asyncio
import logging
import os
import random
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from sunup.cli.client import Asker, Resident
from sunup.cli.deploy import worker_settings
from sunup.cli.follow.watched import Followed, Key, Watched
from sunup.engine.local.client import LocalEngine
from sunup.errors import CommandError, RegistryError
from sunup.limits import (
    FOLLOW_KEEP_SECONDS,
    FOLLOW_LOOK_SECONDS,
    FOLLOW_REASON_CHARS_MAX,
    FOLLOW_REGISTRIES_MAX,
    FOLLOW_RETRY_SECONDS_MAX,
)
from sunup.link.channel import Channel, Message
from sunup.link.process import inherit_listener, introduction, name_process, reap
from sunup.serve.telemetry.log import JsonLines, configure
from sunup.settings import Project

_LOG: Final = logging.getLogger("sunup.follow")
_LOST: Final = (
    "The engine was started where MLFLOW_TRACKING_URI names another registry than the one this function was deployed "
    "from. Set it and start the engine again, or deploy with --follow again."
)
T = TypeVar("T")


class Follower:
    """One task per registry; blocking questions are asked in threads, deploys are made one after another in one."""

    def __init__(self, project: Project, tell: Callable[[dict[str, Any]], object]) -> None:
        self._project = project
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._looks = ThreadPoolExecutor(FOLLOW_REGISTRIES_MAX)
        self._deploys = ThreadPoolExecutor(1)
        self._keeps = ThreadPoolExecutor(1)
        self._functions: dict[str, Followed] = {}
        self._registries: dict[Key, Watched] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._kept: Asker | None = None  # for whom the packager stays warm: who said --follow last

    def __repr__(self) -> str:
        return f"Follower({', '.join(self._functions)})"

    def heard(self, head: dict[str, Any]) -> None:
        """What the engine says: `follow`, instead of what was known of that function, or `forget`."""
        if head["op"] == "forget":
            self._forget(head["function"])
        elif head["op"] == "follow":
            known = head["environment"] is not None
            asker = Asker(head["environment"], head["folder"]) if known else Asker.here(self._project)
            self._begin(Followed(self._project, head["follow"], asker))

    def _begin(self, one: Followed) -> None:
        self._forget(one.function)
        self._functions[one.function] = one
        if one.is_lost:
            self._looked([one.function], _LOST)
            return
        if self._kept is None:
            self._start(self._keep())
        self._kept = one.asker
        registry = self._registries.get(one.key)
        if registry is None:
            registry = self._registries[one.key] = Watched(self._project, one)
            self._start(self._watch(one.key, registry))
        registry.functions[one.function] = one

    def _forget(self, function: str) -> None:
        one = self._functions.pop(function, None)
        if one is not None and one.key in self._registries:
            self._registries[one.key].functions.pop(function, None)

    async def _watch(self, key: Key, registry: Watched) -> None:
        """Look at the aliases of one registry until no function follows one of them."""
        pause, known = FOLLOW_LOOK_SECONDS, ""
        while registry.functions:
            began = self._loop.time()
            away = await self._round(registry)
            if away != known:
                _LOG.warning(away or "The registry answers again.", extra={"functions": sorted(registry.functions)})
            known = away
            # One that is slow is asked half of the time at most, one that is away ever less often.
            took = self._loop.time() - began
            pause = min(FOLLOW_RETRY_SECONDS_MAX, 2 * pause) if away else max(FOLLOW_LOOK_SECONDS, took)
            await asyncio.sleep(pause * random.uniform(0.9, 1.1))  # the period of looking: a registry does not call
        del self._registries[key]
        registry.close()

    async def _round(self, registry: Watched) -> str:
        """Look once at every alias. Returns why the registry cannot be asked, or ""."""
        seen: dict[str, list[str]] = {}
        away = ""
        for one in list(registry.functions.values()):
            trouble = away
            if not away:
                try:
                    version = await self._do(self._looks, partial(registry.version, one.model, one.alias))
                except RegistryError as error:
                    trouble = away = error.message
                except CommandError as error:
                    trouble = error.message
                    away = away if error.code != RegistryError.code else trouble
                except Exception as error:  # a bug; what else is followed goes on, and this one says what it is
                    _LOG.exception("looking at %s failed", one.name)
                    trouble = f"{error!r}; follower.log says more"
                else:
                    self._found(one, version)
                    trouble = one.trouble
            seen.setdefault(trouble, []).append(one.function)
        for trouble, functions in seen.items():
            self._looked(functions, trouble)
        return away

    def _found(self, one: Followed, version: str) -> None:
        if one.wants(version, self._loop.time()) and self._functions.get(one.function) is one:
            one.busy = True
            self._start(self._move(one, version))

    async def _move(self, one: Followed, version: str) -> None:
        """The alias moved to `version`: deploy what it names."""
        where = {"function": one.function, "follows": one.name}
        try:
            facts = await self._do(self._deploys, partial(self._deploy, one))
        except Exception as failure:
            error = failure if isinstance(failure, CommandError) else CommandError(repr(failure))
            if self._functions.get(one.function) is not one:
                return  # somebody deployed it or removed it meanwhile
            before = one.trouble
            last = one.failed(error, self._loop.time())
            if last or one.trouble != before:
                said = f"version {version} is {'refused' if last else 'not deployed yet'}: {error.message}"
                _LOG.error(said, extra=where, exc_info=None if error is failure else failure)
            if last:
                one.acted(version)
                reason = error.message[:FOLLOW_REASON_CHARS_MAX]
                self._tell(
                    {"op": "refused", "function": one.function, "id": one.id, "version": version, "reason": reason}
                )
        else:
            one.model, _, deployed = facts["model"].rpartition("/")
            one.acted(deployed)
            _LOG.info("version %s is deployed as revision %s", deployed, facts["revision"], extra=where)
        finally:
            one.busy = False

    def _deploy(self, one: Followed) -> dict[str, Any]:
        """Package what the alias names now, and have the engine prove and route it."""
        arguments = {"name": one.name, "accept_difference": 0.0}
        built = Resident(self._project, one.asker).ask("build", arguments, _unheard)
        if built["function"] != one.function:
            raise CommandError(f"{one.name} is the function {built['function']} now. Deploy it with --follow again.")
        model, _, version = built["model"].rpartition("/")
        follow = {"id": one.id, "model": model, "version": version}
        settings, _ = worker_settings(self._project, built, one.asker.environment)
        done = LocalEngine(self._project).deploy(
            one.function, built["digest"], settings=settings, on_event=_unheard, follow=follow
        )
        return {**done, "model": built["model"]}

    async def _keep(self) -> None:
        """Keep the packager warm, and start it again when it is gone."""
        while True:
            if self._kept is not None and self._registries:
                try:
                    await self._do(self._keeps, partial(Resident(self._project, self._kept).ask, "keep", {}, _unheard))
                except CommandError as error:
                    _LOG.warning(error.message)
            await asyncio.sleep(FOLLOW_KEEP_SECONDS)  # the period of its reminders

    def _looked(self, functions: list[str], trouble: str) -> None:
        self._tell({"op": "looked", "functions": functions, "trouble": trouble[:FOLLOW_REASON_CHARS_MAX]})

    def _start(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _do(self, threads: ThreadPoolExecutor, call: Callable[[], T]) -> T:
        return await self._loop.run_in_executor(threads, call)


class _FunctionLog(logging.Handler):
    """What is said about a function is in its own log too. A log that no worker has begun yet is not made here: with
    --user it must not be ours."""

    def __init__(self, logs: Path) -> None:
        super().__init__()
        self._logs = logs
        self.setFormatter(JsonLines({}))

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        function = getattr(record, "function", None)
        if function is None:
            return
        try:
            log = os.open(self._logs / f"{function}.log", os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
        except FileNotFoundError:
            return
        with open(log, "ab") as file:
            file.write(self.format(record).encode() + b"\n")


def _unheard(_: dict[str, Any]) -> None:
    pass


async def live(run: Path, own: int) -> None:
    """Follow until the engine says stop, or is gone."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGCHLD, reap)  # packagers that were started here
    ended = asyncio.Event()
    listener = inherit_listener(own)
    sock, _ = listener.accept()  # the engine connected before this process was born, and nobody else is to
    listener.close()

    def heard(_: Channel, message: Message) -> None:
        if message.head["op"] == "stop":
            ended.set()
        else:
            follower.heard(message.head)

    channel = Channel(loop, sock, heard, lambda _: ended.set())
    follower = Follower(Project(run.parent.parent), channel.send)
    channel.send({"op": "hello", **introduction()})
    await ended.wait()


def main(run: str, own: str) -> None:
    """Entry point."""
    name_process("sunup-follower")
    configure(None)
    logging.getLogger().addHandler(_FunctionLog(Path(run).parent / "logs"))
    asyncio.run(_until_ended(Path(run), int(own)))


async def _until_ended(run: Path, own: int) -> None:
    await live(run, own)
    # A deploy under way needs an engine, and threads that wait for a registry do not end when asked.
    logging.shutdown()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
