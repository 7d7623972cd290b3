"""What pods of both roles do: probes from the first moment on, stages timed, SIGTERM heard."""

import asyncio
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from signal import SIGINT, SIGTERM
from typing import Any, Final, NamedTuple

from sunup.bundle.manifest import Manifest
from sunup.bundle.store import MANIFEST, digest_file, read_manifest
from sunup.errors import BundleDamaged, UsageError
from sunup.limits import POD_END_SECONDS, POD_GRACE_SECONDS, POD_INTAKE_SECONDS_MAX, POD_QUIET_SECONDS
from sunup.link.process import started
from sunup.serve.opening import settle
from sunup.serve.pod.environment import STREAM, Environment, check_stream
from sunup.serve.pod.handler import Probes
from sunup.serve.pod.listening import Listening, bind

_LOG: Final = logging.getLogger("sunup.serve.pod")


def read_bundle(environment: Environment) -> Manifest:
    """The manifest of the bundle that is to be served. Raises BundleDamaged, or UsageError for a role it has not."""
    folder = environment.bundle
    try:
        manifest = read_manifest(folder)
    except UsageError as error:  # of another version's format: no variable would help
        raise BundleDamaged(error.message) from error
    found = digest_file(folder / MANIFEST)
    if environment.digest not in ("", found):
        raise BundleDamaged(
            f"The bundle in {folder} is {found}, and SUNUP_DIGEST says {environment.digest}. The image or the volume "
            "is another bundle's: deploy again."
        )
    if environment.role == STREAM:
        if manifest.stream is None:
            raise UsageError(
                f"SUNUP_ROLE is {STREAM}, and {manifest.function} has no stream. Run it for calls, or give its "
                "function.toml a [stream]."
            )
        check_stream(environment.settings)
    return manifest


class Leaving(NamedTuple):
    """When a pod that was told to end at `told` may stop what it does. Monotonic seconds."""

    told: float

    def takes_none(self, now: float, *, last_call: float, inflight: int) -> bool:
        """Whether nobody is expected any more, or enough time was given."""
        quiet = not inflight and now - max(self.told, last_call) >= POD_QUIET_SECONDS
        return quiet or now - self.told >= POD_INTAKE_SECONDS_MAX

    def gives_up(self, now: float) -> bool:
        """Whether what is still in hand cannot be waited for."""
        return now - self.told >= POD_GRACE_SECONDS - POD_END_SECONDS


class Pod:
    """The process of one pod. `spec`: what opening.load and its like ask for. `trouble`: why nothing should come, "" if
    it should; `told`: SIGTERM came."""

    def __init__(self, environment: Environment, manifest: Manifest, stages: Mapping[str, float]) -> None:
        self.environment = environment
        self.trouble = "loading"
        self.told = asyncio.Event()
        self.spec: dict[str, Any] = {
            "alone": True,
            "role": environment.role,
            "function": manifest.function,
            "revision": environment.revision,
            "bundle": str(environment.bundle),
            "model": f"{manifest.model.name}/{manifest.model.version}",
            "settings": environment.settings,
            "prove": True,
            "cost": None,
            "machine": "",  # nothing is laid out: the next start may be anywhere
            "slot": 0,
            "run": str(environment.state / "run"),
        }
        self._stages = dict(stages)
        self._is_ready = False
        self._loaded = 0.0

    def __repr__(self) -> str:
        return (
            f"Pod({self.spec['function']}/{self.spec['revision']}, {self.environment.role}, trouble={self.trouble!r})"
        )

    async def begin(self) -> None:
        """Probes are answered, and SIGTERM heard, from now on. Raises UsageError."""
        counters = Path(self.spec["run"], "counters")
        try:
            counters.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"SUNUP_STATE {self.environment.state} cannot be written to: {error.strerror}. Mount a folder there."
            ) from error
        for number in (SIGTERM, SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._tell)
        sock = bind(self.environment.metrics_port, "METRICS_PORT")
        await Listening(sock, Probes(counters, lambda: self.trouble)).open()

    def loaded(self, timings: Mapping[str, float]) -> None:
        """The model answers as it should."""
        settle()
        self._stages |= timings
        self._loaded = time.monotonic()

    def ready(self) -> dict[str, float]:
        """It serves: the seconds of each stage, said in the log, too."""
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        stages = {**self._stages, "listen": time.monotonic() - self._loaded}
        self._is_ready = True
        told = {**stages, "total": now - started()}
        _LOG.info("ready", extra={"ms": {stage: round(1000 * seconds, 3) for stage, seconds in told.items()}})
        return stages

    def _tell(self) -> None:
        if not self._is_ready:
            os._exit(0)  # there is nothing in hand
        self.trouble = "leaving"
        self.told.set()
