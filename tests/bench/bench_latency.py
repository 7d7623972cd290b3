"""latency: what a server adds to the model run at the 99th percentile, open loop at 30 % of capacity.

    python -m tests.bench latency [--rounds 9] [--seconds 5] [--peers litserve,...]

Calls come at fixed times on 32 connections; a call's time runs from when it was due. The floor of warm-rest is measured
next to ours in every round, at 30 % of what our whole engine answers to callers that wait; each peer next to ours in
rounds of its own, both at 30 % of what that peer answers: at our rate its queue would only grow.
The model's own run (its median, alone) is subtracted from each.
"""

import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import numpy as np
from tests.bench import harness
from tests.bench.floor.session import open_session
from tests.bench.models import BODIES, record_bodies, rows
from tests.bench.open_loop import Sent
from tests.bench.peers.peers import PEERS, running
from tests.bench.peers.peers import bodies as bodies_for
from tests.bench.scoring import scoring_engine

Subject = tuple[str, Sequence[bytes]]  # where its calls go, and their bodies

LOAD = 0.3
CONNECTIONS = 32
PEER_ROUNDS = 3
PACKAGES = ("httptools", "msgspec", "numpy", "onnxruntime", "starlette", "uvicorn", "uvloop")


def main() -> int:
    given = harness.options("added at the 99th percentile", rounds=9, seconds=5, peers=",".join(PEERS))
    bodies = record_bodies()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        model, ours = stack.enter_context(scoring_engine(folder))
        base = stack.enter_context(harness.server("tests.bench.floor.raw_asgi", model))
        run_ms = _run_ms(model)
        wrk = harness.Wrk(folder, bodies)
        rounds = Rounds((ours, bodies), run_ms, given.seconds)
        rounds.compare("raw", (f"{base}/functions/score", bodies), _rate(wrk, ours), given.rounds, 1.5)
        for peer in filter(None, given.peers.split(",")):
            sent = bodies_for(PEERS[peer], rows(BODIES).tolist())
            with running(peer, model, folder / peer, sent[0]) as (url, _):
                rate = _rate(harness.Wrk(folder / peer, sent), url)
                rounds.compare(peer, (url, sent), rate, PEER_ROUNDS, 0.1)
    return rounds.report.finish(PACKAGES)


def _rate(wrk: harness.Wrk, url: str) -> float:
    """Calls per second: LOAD of what is answered to callers that wait."""
    return LOAD * median(wrk.run(url, seconds=2).rps for _ in range(3))


class Rounds:
    """What is measured, for `seconds` each, of ours and another in turn, beside a model run of `run_ms`."""

    def __init__(self, ours: Subject, run_ms: float, seconds: int) -> None:
        self.ours, self.run_ms, self.seconds = ours, run_ms, seconds
        self.report = harness.Report("latency", facts={"run_ms": round(run_ms, 4)})

    def compare(self, name: str, other: Subject, rate: float, rounds: int, goal: float) -> None:
        """At `rate` calls per second; the goal on what they add at the 99th percentile. The first round warms up."""
        added: dict[str, list[float]] = {"sunup": [], name: []}
        said = self.report.rounds.setdefault(f"sunup and {name}", [])
        for number in range(rounds + 1):
            for subject, (url, bodies) in (("sunup", self.ours), (name, other)):
                seconds = self.seconds if number else 1
                sent = harness.open_loop(url, bodies, rate=rate, seconds=seconds, connections=CONNECTIONS)
                if number:
                    added[subject].append(_p99(sent, seconds) - self.run_ms)
                    said.append({"subject": subject, **_said(sent, seconds)})
        p99 = ", ".join(f"{subject} p99 + {1000 * median(each):,.0f} us" for subject, each in added.items())
        print(f"{rate:,.0f} calls/s: {p99}")
        self.report.facts[f"rate_{name}"] = round(rate, 1)
        self.report.goals.append(harness.ratio_goal(f"latency-{name}", goal, *added.values(), least=False))


def _said(sent: Sent, seconds: float) -> dict[str, float]:
    """What is kept of a round."""
    times = {"p50_ms": sent.quantile_ms(0.5), "p99_ms": _p99(sent, seconds), "generator_late_ms": sent.late_ms}
    return {"lost": sent.lost, **{name: round(ms, 4) for name, ms in times.items()}}


def _p99(sent: Sent, seconds: float) -> float:
    """In milliseconds. What never came waited at least for the run's whole time."""
    return min(sent.quantile_ms(0.99), 1000.0 * seconds)


def _run_ms(model: Path) -> float:
    """The median of a run of one row, alone."""
    session = open_session(str(model))
    table = rows(BODIES).astype(np.float32)
    took = []
    for number in range(2000):
        row = table[number % BODIES][None]
        begun = time.perf_counter()
        session.run(["probability"], {"input": row})
        took.append(time.perf_counter() - begun)
    return 1000 * median(took)


if __name__ == "__main__":
    sys.exit(main())
