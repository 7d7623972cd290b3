"""A worker's handler over a real bundle, and how tests ask it."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from sunup.clock import Clock
from sunup.execute.executor import Executor
from sunup.function import Cost, Function, load
from sunup.link.counters import Segment
from sunup.lookup import plan as read_plan
from sunup.lookup.join import Lookup
from sunup.lookup.plan import ReadPlan
from sunup.lookup.store import Store
from sunup.pipeline import Pipeline
from sunup.serve.handler import FunctionHandler
from sunup.serve.http.message import Handler, Request, Response
from sunup.serve.telemetry.meter import Meter, worker_series

ROWS = np.array([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]])
RECORD = b'{"f0": 1, "f1": 2.0, "f2": 3}'
SCORE = 1 / (1 + np.exp(-6.0))  # of RECORD
JSON_TYPE = (b"content-type", b"application/json")


class Worker:
    """A handler as a worker composes it. `executor` makes another one of the model's; `store` the one its features
    are read from."""

    def __init__(
        self,
        bundle: Path,
        folder: Path,
        *,
        run_seconds: float | None = None,
        clock: Clock | None = None,
        executor: Callable[[Executor], Executor] = lambda known: known,
        store: Callable[[ReadPlan], Store] | None = None,
    ) -> None:
        self.function: Function = load(bundle, settings={"features_url": "sqlite:///nowhere"}, prove=True)
        columns: tuple[str, ...] = ()
        views: tuple[str, ...] = ()
        if store is not None:
            plan = read_plan.load((bundle / "features.json").read_bytes())
            lookup = Lookup(plan, store(plan), self.function.manifest.rows)
            columns, views = tuple(f.name for f in lookup.columns), tuple(lookup.views)
            self.function = replace(self.function, lookup=lookup)
        if run_seconds is not None:
            self.function = replace(self.function, cost=Cost(1, run_seconds))
        self.function = replace(self.function, executor=executor(self.function.executor))
        self.segment = Segment.create(folder / "score.0.seg", worker_series("score", 7, columns, views))
        meter = Meter(self.segment)
        pipeline = Pipeline(self.function, observer=meter, clock=clock)
        self.handler = FunctionHandler(pipeline, self.function, revision=7, meter=meter, clock=clock)

    def counted(self, code: int) -> float:
        labels = {"function": "score", "revision": "7", "code": str(code)}
        return float(self.segment.values[self.segment.slot("sunup_requests_total", **labels)])


def ask(
    handler: Handler, method: str, target: str, body: bytes = b"", *headers: tuple[bytes, bytes]
) -> tuple[int, Any, Mapping[bytes, bytes]]:
    """Status, decoded body and headers of one request."""
    response = handler.handle(Request(method.encode(), target.encode(), [(b"host", b"a"), *headers], body))
    if not isinstance(response, Response):
        response = asyncio.run(finish(response))
    decoded = msgspec.json.decode(response.body) if (JSON_TYPE in response.headers) else response.body
    return response.status, decoded, dict(response.headers)


async def finish(answer: Awaitable[Response]) -> Response:
    """The response of a call that is answered later."""
    return await answer
