"""From what a process was born with to the handler it serves."""

import asyncio
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sunup import function as functions
from sunup.link.counters import Segment, counters_path
from sunup.pipeline import Pipeline
from sunup.serve.front import FrontHandler
from sunup.serve.handler import FunctionHandler
from sunup.serve.http.connection import Connection
from sunup.serve.http.links import Alone
from sunup.serve.meter import Meter, worker_series
from sunup.serve.metrics import MetricsHandler


async def open_front(run: Path, metrics_fd: int) -> FrontHandler:
    """The front's handler; /metrics is served on the listening socket `metrics_fd` from now on."""
    counters = MetricsHandler(run / "counters")
    listener = socket.socket(fileno=metrics_fd)
    await asyncio.get_running_loop().create_server(lambda: Connection(counters, Alone(), 0), sock=listener)
    return FrontHandler(run.parent / "bundles")


async def open_function(spec: Mapping[str, Any]) -> tuple[FunctionHandler, Mapping[str, float]]:
    """The handler of one bundle, and the seconds of "load" and "prove". Raises what `function.load` does."""
    function = functions.load(Path(spec["bundle"]), settings=spec["settings"], prove=spec["prove"])
    await function.open()
    lookup = function.lookup
    columns = [field.name for field in lookup.columns] if lookup else []
    series = worker_series(spec["function"], spec["revision"], columns, lookup.views if lookup else [])
    meter = Meter(Segment.create(counters_path(Path(spec["run"]), spec["function"], spec["slot"]), series))
    pipeline = Pipeline(function, observer=meter)
    return FunctionHandler(pipeline, function, revision=spec["revision"], meter=meter), function.timings
