"""A subject of the bench of lookups: one process that answers the same questions, timed by itself when it is told to.

It reads orders from its standard input, a JSON object a line, and writes a JSON value a line; between orders it sleeps.
"""

import asyncio
import gc
import inspect
import json
import os
import statistics
import sys
from collections.abc import Callable, Mapping
from itertools import cycle
from time import perf_counter
from typing import Any, NamedTuple

import uvloop
from tests.bench.lookup.data import questions

DIFFERENT = {"one": 256, "many": 16}  # questions asked in turn
CALLS_MIN = 5


class Ask(NamedTuple):
    """How a subject answers one service.

    `prepare(question)`: what is made before the clock starts; `ask(prepared)`: what is timed, a coroutine function if
    it waits; `rows(question, answer)`: the answer as rows of values in the order of data.columns, not timed.
    """

    prepare: Callable[[Any], Any]
    ask: Callable[[Any], Any]
    rows: Callable[[Any, Any], list[list[Any]]]


def obey(runner: "asyncio.Runner", asks: Mapping[str, Ask]) -> None:
    """Answer orders until there are no more. Nothing else may write to standard output: it goes to standard error."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)  # as a worker does
    print(json.dumps(sorted(asks)), file=out, flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        ask, service = asks[order["service"]], order["service"]
        if "seconds" in order:
            said: Any = runner.run(_timed(ask, service, order["seconds"]))
        else:
            said = runner.run(_rows(ask, service, order["count"]))
        print(json.dumps(said), file=out, flush=True)


def loop() -> "asyncio.Runner":
    """The loop that all of them, and workers, run on."""
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


async def _rows(ask: Ask, service: str, count: int) -> list[list[list[Any]]]:
    answers = []
    for question in questions(service, count):
        answer = ask.ask(ask.prepare(question))
        answers.append(ask.rows(question, await answer if inspect.isawaitable(answer) else answer))
    return answers


async def _timed(ask: Ask, service: str, seconds: float) -> dict[str, float]:
    """One question after the other: microseconds of the median and of the 99th percentile, and how many."""
    took, call, waits = [], ask.ask, inspect.iscoroutinefunction(ask.ask)
    until = perf_counter() + seconds
    for prepared in cycle([ask.prepare(question) for question in questions(service, DIFFERENT[service])]):
        begun = perf_counter()
        if waits:
            await call(prepared)
        else:
            call(prepared)
        ended = perf_counter()
        took.append(1e6 * (ended - begun))
        if ended > until and len(took) >= CALLS_MIN:
            break
    return {"us": statistics.median(took), "p99_us": sorted(took)[int(0.99 * (len(took) - 1))], "calls": len(took)}
