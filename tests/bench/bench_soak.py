"""soak: two million calls, and five thousand times from zero to one worker and back; what is left of it afterwards.

    python -m tests.bench soak [--calls 2000000] [--cycles 5000]

After a tenth of each, and at the end, the resident processes are looked at: their memory (anonymous pages, which unlike
PSS do not depend on who else lives), descriptors, children that ended and were not waited for. What grows with use
would have grown by then.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from tests.bench import harness
from tests.engine_fixture import Engine, until

from sunup.bundle.manifest import Scale

PACKAGES = ("httptools", "msgspec", "numpy", "onnxruntime", "uvloop")
ROLES = ("supervisor", "door", "nursery", "front")
FUNCTIONS = 60  # called in turn: each is at zero again when its turn comes
GROWTH_MAX = 1.05
DESCRIPTORS_MORE_MAX = 5.0  # connections come and go while one looks
SECONDS = 10  # of one wrk run


class Held(NamedTuple):
    """What the resident processes hold."""

    memory_mb: float
    descriptors: int
    zombies: int


def main() -> int:
    parser = argparse.ArgumentParser(description="growth over many calls and cold starts")
    parser.add_argument("--calls", type=int, default=2_000_000)
    parser.add_argument("--cycles", type=int, default=5_000)
    options = parser.parse_args()
    report = harness.Report("soak", facts={"calls": options.calls, "cycles": options.cycles})
    with tempfile.TemporaryDirectory() as folder, harness.local_engine(Path(folder) / "p") as engine:
        _calls(engine, Path(folder), options.calls, report)
        _cycles(engine, options.cycles, report)
    return report.finish(PACKAGES)


def _calls(engine: Engine, folder: Path, calls: int, report: harness.Report) -> None:
    url = engine.serve("times", 2.0, scale=Scale(max=1, idle_s=3600))["url"]
    wrk = harness.Wrk(folder, [json.dumps({"x": float(x)}).encode() for x in range(100)])
    sent = 0.0
    early: Held | None = None
    while sent < calls:
        sent += wrk.run(url, seconds=SECONDS).rps * SECONDS
        if early is None and sent > calls / 10:
            early = _held(engine, "times")
    assert early is not None
    _compare("calls", early, _held(engine, "times"), report)


def _cycles(engine: Engine, cycles: int, report: harness.Report) -> None:
    names = [f"f{number}" for number in range(FUNCTIONS)]
    for name in names:
        engine.serve(name, 2.0, scale=Scale(max=1, idle_s=0.05))
    until(lambda: all(engine.at_zero(name) for name in names), "all to be at zero")
    early: Held | None = None
    begun = time.monotonic()
    for number in range(cycles):
        name = names[number % FUNCTIONS]
        if number % FUNCTIONS == 0:
            until(lambda: all(engine.at_zero(name) for name in names), "all to be at zero")
            if early is None and number >= cycles / 10:
                early = _held(engine)
        assert engine.call(name, 1.0).y == 2.0
    until(lambda: all(engine.at_zero(name) for name in names), "all to be at zero")
    assert early is not None
    started = sum(function["cold_starts"]["count"] for function in engine.status(None)["functions"])
    print(f"{cycles:,} cycles in {time.monotonic() - begun:.0f} s; {started:,} cold starts were counted")
    assert started >= cycles
    _compare("cycles", early, _held(engine), report)


def _held(engine: Engine, *workers: str) -> Held:
    pids = [pid for role, pid in engine.pids().items() if role in (*ROLES, *workers)]
    descriptors = sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids)
    zombies = sum(_state(child) == "Z" for pid in pids for child in _children(pid))
    return Held(sum(map(_anonymous_mb, pids)), descriptors, zombies)


def _anonymous_mb(pid: int) -> float:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Anonymous:")) / 1024


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def _state(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""  # waited for meanwhile


def _compare(what: str, early: Held, late: Held, report: harness.Report) -> None:
    print(f"{what}: after a tenth {early}, at the end {late}")
    report.rounds[what] = [early._asdict(), late._asdict()]
    growth = late.memory_mb / early.memory_mb
    more = float(late.descriptors - early.descriptors)
    report.goals.append(harness.Goal(f"soak-{what}-memory", GROWTH_MAX, growth, growth, growth, least=False))
    report.goals.append(harness.Goal(f"soak-{what}-descriptors", DESCRIPTORS_MORE_MAX, more, more, more, least=False))
    left = float(late.zombies)
    report.goals.append(harness.Goal(f"soak-{what}-zombies", 0.0, left, left, left, least=False))


if __name__ == "__main__":
    sys.exit(main())
