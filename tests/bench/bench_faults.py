"""faults: ten minutes of load while processes are killed, revisions change every ten seconds and clients misbehave.

    python -m tests.bench faults [--seconds 600]

Every answer must be that of the revision which gave it. The goal is the slowest recovery: seconds from a kill (of the
supervisor: from the start after it) to the next right answer.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from tests import faults
from tests.bench import harness

PACKAGES = ("httptools", "msgspec", "numpy", "onnxruntime", "uvloop")
RECOVERY_SECONDS_MAX = 1.0


def main() -> int:
    parser = argparse.ArgumentParser(description="load under faults")
    parser.add_argument("--seconds", type=float, default=600.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, harness.local_engine(Path(folder) / "p") as engine:
        outcome = faults.run(engine, options.seconds, seed=7)
    print(*outcome.lines(), sep="\n")
    bad = len(outcome.wrong) + len(outcome.misattributed) + len(outcome.unexplained)
    report = harness.Report("faults", facts={"seconds": options.seconds, "answered": outcome.answered})
    report.rounds = dict(outcome.recovery)
    report.goals.append(harness.Goal("faults-wrong-or-lost", 0.0, bad, bad, bad, least=False))
    for role, seconds in outcome.recovery.items():
        most = max(seconds, default=float("inf"))
        report.goals.append(harness.Goal(f"faults-{role}", RECOVERY_SECONDS_MAX, most, most, most, least=False))
    return report.finish(PACKAGES)


if __name__ == "__main__":
    sys.exit(main())
