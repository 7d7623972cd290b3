"""overload: right answers within 10 ms at twice the capacity, open loop; against the servers that batch adaptively.

    python -m tests.bench overload [--rounds 5] [--seconds 5] [--peers mlserver,bentoml]

The model takes 2 to 3 ms a row, and rows together no less each. Ours is a function with `timeout = "10ms"`; it is
asked for twice, and for just, what it answers to callers that wait (a second function, without that limit). Each peer
is asked for twice what it answers to such callers. Calls come at fixed times, whatever became of those before; an
answer counts when it is a 200 no later than 10 ms after its call was due. A peer with no such answer counts as one a
second.
"""

import sys
import tempfile
from argparse import Namespace
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench import harness
from tests.bench.models import BODIES, DEEP, deep_model, record_bodies, rows
from tests.bench.open_loop import Sent
from tests.bench.peers.peers import BATCHING, running
from tests.bench.peers.peers import bodies as bodies_for
from tests.engine_fixture import Engine
from tests.small_bundle import make_bundle

from sunup.bundle.manifest import Limits, Scale
from sunup.link.process import pss_bytes

PROMISE_MS = 10.0
WAITING_CALLERS = 8  # in the measurement of capacity
TIMES = 2.0
PACKAGES = ("httptools", "msgspec", "numpy", "onnxruntime", "uvloop")


def main() -> int:
    given = harness.options("right answers in time under twice the load", rounds=5, seconds=5, peers=",".join(BATCHING))
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        model = folder / "model.onnx"
        model.write_bytes(deep_model(DEEP))
        engine = stack.enter_context(harness.local_engine(folder / "p"))
        urls = {name: _deploy(engine, model, name, limits) for name, limits in _functions().items()}
        harness.pin(engine.pids().values(), harness.SERVER_CORE)
        report = harness.Report("overload")
        _alone(engine, urls, folder, given, report)
        for peer in filter(None, given.peers.split(",")):
            _beside(peer, urls, folder, given, report)
    return report.finish(PACKAGES)


def _functions() -> dict[str, Limits]:
    return {"score": Limits(timeout_s=PROMISE_MS / 1000), "patient": Limits(timeout_s=30.0)}


def _deploy(engine: Engine, model: Path, name: str, limits: Limits) -> str:
    scale = Scale(min=1, max=1, queue_max=10_000)
    warm, store = rows(8, seed=3), engine.project.bundles
    digest = make_bundle(store, model.read_bytes(), warm, dtype="float32", function=name, limits=limits, scale=scale)
    return str(engine.deploy(name, digest, settings={}, on_event=lambda _: None)["url"])


def _alone(engine: Engine, urls: dict[str, str], folder: Path, given: Namespace, report: harness.Report) -> None:
    """Just the capacity and twice that, in turn; and what that costs in memory."""
    bodies = record_bodies()
    good: dict[float, list[float]] = {1.0: [], TIMES: []}
    wrk = harness.Wrk(folder, bodies)
    memory = []
    for number in range(given.rounds + 1):
        capacity = wrk.run(urls["patient"], seconds=given.seconds, connections=WAITING_CALLERS).rps
        for times, within in good.items():
            sent = harness.open_loop(urls["score"], bodies, rate=times * capacity, seconds=given.seconds)
            if number:
                within.append(sent.within(PROMISE_MS))
                report.rounds.setdefault(f"sunup at {times:g}x", []).append(_said(sent, capacity))
        memory.append(sum(pss_bytes(pid) for pid in engine.pids().values()))
    for name, said in report.rounds.items():
        good_ones = median(one["good"] for one in said)
        print(f"{name:24}{good_ones:8.1f} answers/s within {PROMISE_MS:g} ms; the last round: {said[-1]}")
    report.goals.append(harness.ratio_goal("overload-collapse", 0.8, good[TIMES], good[1.0]))
    rest = len(memory) - 1
    report.goals.append(harness.ratio_goal("overload-memory", 1.1, memory[1:], memory[:1] * rest, least=False))


def _beside(peer: str, urls: dict[str, str], folder: Path, given: Namespace, report: harness.Report) -> None:
    """Rounds of ours and a peer in turn, each at twice what it can do."""
    table = rows(BODIES).tolist()
    sent = {"sunup": record_bodies(), peer: bodies_for(BATCHING[peer], table)}
    with running(peer, folder / "model.onnx", folder / peer, sent[peer][0], BATCHING) as (url, _):
        ours, theirs = harness.post_json(urls["patient"], sent["sunup"][1]), harness.post_json(url, sent[peer][1])
        if abs(ours["predictions"][0]["score"] - BATCHING[peer].score(theirs)) > 1e-5:
            raise SystemExit(f"{peer} disagrees: {ours} {theirs}")
        (folder / f"{peer}-wrk").mkdir()
        waited = {"sunup": urls["patient"], peer: url}
        asked = {"sunup": urls["score"], peer: url}
        wrks = {"sunup": harness.Wrk(folder, sent["sunup"]), peer: harness.Wrk(folder / f"{peer}-wrk", sent[peer])}
        good: dict[str, list[float]] = {"sunup": [], peer: []}
        for number in range(given.rounds + 1):
            for name, within in good.items():
                capacity = (
                    wrks[name].run(waited[name], seconds=given.seconds, connections=WAITING_CALLERS, refusals=True).rps
                )
                loop = harness.open_loop(asked[name], sent[name], rate=TIMES * capacity, seconds=given.seconds)
                if number:
                    within.append(max(1.0, loop.within(PROMISE_MS)))
                    key = name if name == peer else f"sunup beside {peer}"
                    report.rounds.setdefault(key, []).append(_said(loop, capacity))
    print(f"{peer}: " + ", ".join(f"{name} {median(each):.1f}/s" for name, each in good.items()))
    report.goals.append(harness.ratio_goal(f"overload-{peer}", 3.0, good["sunup"], good[peer]))


def _said(sent: Sent, capacity: float) -> dict[str, Any]:
    """What is kept of a round."""
    statuses = Counter(status for status, _ in sent.answers)
    return {
        "capacity": round(capacity, 1),
        "good": round(sent.within(PROMISE_MS), 1),
        "statuses": {str(status): count for status, count in sorted(statuses.items())},
        "lost": sent.lost,
        "broken": sent.broken,
        "p50_ms": round(sent.quantile_ms(0.5), 2),
        "p99_ms": round(sent.quantile_ms(0.99), 2),
        "generator_late_ms": round(sent.late_ms, 3),
    }


if __name__ == "__main__":
    sys.exit(main())
