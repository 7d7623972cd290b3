"""Where the topics of a deployed function are, for commands that go to them past the engine."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from sunup.bundle.manifest import StreamSpec
from sunup.bundle.store import Store, read_manifest
from sunup.cli.streams.broker import broker_settings
from sunup.cli.terminal import show_note
from sunup.engine.local.client import LocalEngine
from sunup.engine.local.state import StateFile
from sunup.errors import UsageError
from sunup.settings import EMBEDDED, STREAM_BROKER, Project
from sunup.stream.admin import Admin
from sunup.stream.broker import Broker, BrokerError, Reader, Stream, Trouble
from sunup.stream.open import open_admin, open_broker

LOOK_SECONDS: Final = 0.1  # neither the engine nor a broker calls back

Given = TypeVar("Given")


class Source(NamedTuple):
    """The stream of a function's routed revision. `settings`: how to speak to its broker; `log`: the embedded log;
    `bundle`: the folder of the revision's."""

    function: str
    stream: Stream
    settings: Mapping[str, str]
    log: Path
    bundle: Path

    @property
    def where(self) -> str:
        """The broker, for people."""
        broker = self.settings[STREAM_BROKER]
        return "the embedded log" if broker == EMBEDDED else f"Kafka at {broker}"

    def admin(self) -> Admin:
        return open_admin(self.settings, self.log)

    def broker(self, stream: Stream, reader: Reader) -> Broker:
        return open_broker(self.settings, stream, self.log, reader)


def source_of(project: Project, function: str, environment: Mapping[str, str]) -> Source:
    """The stream that the engine reads for a function, or would if it ran. Which broker, it says itself; what else is
    needed to speak to that, passwords for example, is taken from `environment` as a deployer's is.

    Raises UsageError for a function without a stream, and where the environment lacks something.
    """
    digest, broker = _routed(project, function)
    bundle = Store(project.bundles).open(digest)
    declared = read_manifest(bundle).stream
    if declared is None:
        raise UsageError(f"{function} has no [stream] in its function.toml.")
    settings, _ = broker_settings(declared, _with(declared, broker, environment), project.root)
    stream = Stream(declared.group, declared.input, declared.output, declared.dead_letter)
    return Source(function, stream, settings, project.embedded_log, bundle)


def _routed(project: Project, function: str) -> tuple[str, str]:
    """(digest, broker) of the revision that serves, from the engine or, where none runs, from what it remembers."""
    engine = LocalEngine(project)
    if engine.running() is not None:
        facts = engine.status(function)["functions"][0]
        return facts["digest"], facts.get("stream", {}).get("broker", "")
    path = project.state / "state.db"
    found = []
    if path.exists():
        state = StateFile(path)
        found = [one for one in state.current() if one.function == function]
        state.close()
    if not found:
        raise UsageError(f"No engine runs for {project.root}, and none has deployed a function {function!r} there.")
    return found[0].digest, found[0].settings.get(STREAM_BROKER, "")


def _with(declared: StreamSpec, broker: str, environment: Mapping[str, str]) -> Mapping[str, str]:
    """The environment in which the declaration means `broker`: that of the deployer need not be ours."""
    if not declared.broker.startswith("env:"):
        return environment
    name, _, otherwise = declared.broker.removeprefix("env:").partition(" or ")
    return {**environment, name: "" if broker == otherwise else broker}


def unfenced(act: Callable[[], Given], seconds: float, note: str) -> Given:
    """What `act` returns as soon as the broker lets it; for so long it is tried. `note`: said where that takes time."""
    until, said = time.monotonic() + seconds, False
    while True:
        try:
            return act()
        except BrokerError as error:
            if error.trouble is not Trouble.FENCED or time.monotonic() > until:
                raise
            if not said:
                show_note(note)
            said = True
            time.sleep(LOOK_SECONDS)
