"""fuzz: changed bodies in every protocol, through the door: no 500, no hang, no worker lost, no memory that stays.

    python -m tests.bench fuzz [--bodies 100000]

A right call after every hundred must still be answered right. Each of a protocol's ten rounds changes the bodies by
another seed; what the worker holds after the last is compared with what it held after the first.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.bench import harness
from tests.engine_fixture import Engine
from tests.fuzzing import KINDS, Client, check, deploy, send_changed

PACKAGES = ("httptools", "msgspec", "numpy", "onnxruntime")
ROUNDS = 10
GROWTH_MAX = 1.05  # of a worker's resident memory, from the first to the last round


def main() -> int:
    parser = argparse.ArgumentParser(description="changed bodies in every protocol")
    parser.add_argument("--bodies", type=int, default=100_000, help="per protocol")
    options = parser.parse_args()
    report = harness.Report("fuzz", facts={"bodies": options.bodies})
    with tempfile.TemporaryDirectory() as folder, harness.local_engine(Path(folder) / "p") as engine:
        deploy(engine)
        for name in KINDS:
            _attack(engine, name, options.bodies // ROUNDS, report)
    return report.finish(PACKAGES)


def _attack(engine: Engine, name: str, bodies: int, report: harness.Report) -> None:
    client = Client(engine.port)
    check(client, KINDS[name])
    worker = engine.pids()["score"]
    held: list[float] = []
    begun = time.monotonic()
    for seed in range(ROUNDS):
        seen = send_changed(client, name, count=bodies, seed=seed)
        held.append(_resident_mb(worker))
    client.close()
    assert engine.pids()["score"] == worker, "the worker was replaced"
    took = time.monotonic() - begun
    print(f"{name:14} {ROUNDS * bodies:,} bodies in {took:.0f} s; of the last {bodies:,}: {dict(sorted(seen.items()))}")
    print(f"{'':14} resident memory of the worker {held[0]:.1f} MB -> {held[-1]:.1f} MB")
    report.rounds[name] = held
    growth = held[-1] / held[0]
    report.goals.append(harness.Goal(f"fuzz-{name}-memory", GROWTH_MAX, growth, growth, growth, least=False))


def _resident_mb(pid: int) -> float:
    """Of which pages the worker shares with the process it was forked from changes as it writes; the sum does not."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Rss:")) / 1024


if __name__ == "__main__":
    sys.exit(main())
