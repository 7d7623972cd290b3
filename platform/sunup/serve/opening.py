"""From what a process was born with to the handler it serves."""

import asyncio
import gc
import logging
import socket
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from sunup import function as functions
from sunup.access.guard import LOOPBACK, Guard
from sunup.batch.respond import Log
from sunup.execute.executor import Executor
from sunup.link.counters import Segment, counters_path
from sunup.pipeline import Pipeline
from sunup.serve.front import FrontHandler
from sunup.serve.handler import FunctionHandler
from sunup.serve.http.connection import Connection
from sunup.serve.http.links import Alone
from sunup.serve.http.message import Handler
from sunup.serve.telemetry.access import AccessLog
from sunup.serve.telemetry.meter import Meter, worker_series
from sunup.serve.telemetry.metrics import MetricsHandler
from sunup.serve.telemetry.traces import prepared
from sunup.served.schema import Heading, check
from sunup.settings import Project

_LOG: Final = logging.getLogger(__name__)


class Opened(NamedTuple):
    """What a process serves. `timings`: seconds of "load" and "prove". `cost`: what a model run costs on this machine
    (rows, seconds; seconds of loading); an engine gives it to later workers of the same bundle."""

    handler: Handler
    timings: Mapping[str, float] = {}
    cost: functions.Cost | None = None


async def open_front(run: Path, metrics_fd: int, guard: Guard | None) -> Opened:
    """The front; /metrics is served on the listening socket `metrics_fd` from now on, to this machine: what is in a
    browser here and calls it by another name than this machine's is refused."""
    names = guard.hosts if guard is not None and guard.hosts is not None else ()
    counters = MetricsHandler(run / "counters", Guard(None, {*LOOPBACK, *names}))
    listener = socket.socket(fileno=metrics_fd)
    await asyncio.get_running_loop().create_server(lambda: Connection(counters, Alone(), 0), sock=listener)
    return Opened(FrontHandler(run.parent / "bundles", run / "counters"))


async def open_function(
    spec: Mapping[str, Any], kept: Executor | None, handler: type[FunctionHandler] = FunctionHandler
) -> Opened:
    """A worker of one bundle. `kept`: its model, if the nursery has it. Raises what `function.load` does."""
    function = await load(spec, kept)
    path = counters_path(Path(spec["run"]), spec["function"], spec["slot"])
    logs = function.manifest.log is not None
    series = worker_series(spec["function"], spec["revision"], *feature_names(function), logs=logs)
    meter = Meter(Segment.create(path, series))
    pipeline = Pipeline(function, observer=meter)
    if function.lookup is not None:
        function.lookup.on_failure = meter.store_failed
    pipeline.log = served_log(spec, function, meter.dropped)
    named = {"function": spec["function"], "revision": spec["revision"]}
    access = None
    if not spec.get("alone"):
        access = AccessLog(Path(spec["log"]).with_suffix(".access.log"), rate=access_rate(spec["guard"]), **named)
    make = prepared()  # the nursery's answer, as it was before this process was born
    traces = None if make is None else make(**named)
    made = handler(pipeline, function, revision=spec["revision"], meter=meter, access=access, traces=traces)
    return Opened(made, function.timings, function.cost)


def settle() -> None:
    """What is there now serves for good: it is never scanned again, and the rest seldom. Calls and records are no
    cycles: looking for them took a third of a stream worker's own time."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def access_rate(word: Mapping[str, Any] | None) -> float:
    """The share of calls that the access log keeps, of what processes that answer are told; 0.0 where nobody says."""
    return float((word or {}).get("access_log", 0.0))


def served_log(spec: Mapping[str, Any], function: functions.Function, dropped: Callable[[int], None]) -> Log | None:
    """The log of what a process serves, None where none is wanted. Raises UsageError for names that clash."""
    manifest, lookup, declared = function.manifest, function.lookup, function.manifest.log
    if lookup is None or declared is None:
        return None
    if spec.get("alone"):
        _LOG.warning("what is served is not logged: [features] log needs a recorder, and none is beside this process")
        return None
    inputs, outputs = (*manifest.rows, *lookup.columns), tuple(field.field for field in manifest.response)
    number, version = spec["revision"], manifest.model.version
    heading = Heading(manifest.function, number, version, inputs, tuple(lookup.views), outputs)
    check(heading)
    from sunup.serve.recording.served import ServedLog  # a few ms that others are spared
    from sunup.served.spool import Group, SpoolWriter  # likewise

    group = Group(spec["function"], spec["revision"], spec["digest"])
    spool = SpoolWriter(
        Project(Path(spec["run"]).parents[1]).spool, group, heading, size=declared.size, rotate_s=declared.rotate_s
    )
    return ServedLog(spool, sample=declared.sample, dropped=dropped)


async def load(spec: Mapping[str, Any], kept: Executor | None) -> functions.Function:
    """The function a process was born to serve, connected to its online store. Raises what `function.load` does.

    One that is alone answers meanwhile, that it loads: it does so in a thread.
    """
    known = functions.Cost(*spec["cost"]) if spec["cost"] else None
    bundle, settings, machine = Path(spec["bundle"]), spec["settings"], spec["machine"]
    given = {"prove": spec["prove"], "cost": known, "kept": kept, "machine": machine}
    made = partial(functions.load, bundle, settings=settings, streams=spec["role"] == "stream", **given)
    function = await asyncio.to_thread(made) if spec.get("alone") else made()
    await function.open()
    return function


def feature_names(function: functions.Function) -> tuple[list[str], list[str], list[str]]:
    """Its feature columns, the views they come from, and its caches."""
    lookup, cache = function.lookup, function.manifest.cache
    caches = list(cache.names) if cache is not None else []
    if lookup is None:
        return [], [], caches
    return (
        [field.name for field in lookup.columns],
        list(lookup.views),
        [*(lookup.cache.caches if lookup.cache else ()), *caches],
    )
