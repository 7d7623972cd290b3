"""pod-start: a worker pod, from its process's start to its first correct answer; LightGBM of 200 trees, 30 features.

    python -m tests.bench pod-start [--rounds 10] [--starts 2]

Every start is `python -m sunup.serve.pod` with the environment of a container, its files in the page cache: what is
left of a start from zero when the node has the image and the container runs. The bundle is checked and proven each
time. The floor is a process that imports what any such server would (numpy, ONNX Runtime, msgspec, uvloop, httptools,
Starlette), opens the same file and runs one row. One absolute goal is a promise to users: p95 at most 1 s.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from tests.bench import harness
from tests.bench.models import record, rows, tree_model
from tests.pod_fixture import Pod, line
from tests.small_bundle import make_bundle

PACKAGES: Final = ("httptools", "msgspec", "numpy", "onnxruntime", "starlette", "uvloop")
PROMISE_SECONDS: Final = 1.0
FLOOR: Final = """
import sys
import httptools, msgspec, numpy, onnxruntime, uvloop
import starlette.applications, starlette.routing
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
session.run(None, {session.get_inputs()[0].name: numpy.zeros((1, 30), numpy.float32)})
"""


def main() -> int:
    parser = argparse.ArgumentParser(description="start of a pod's process to its first correct answer")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--starts", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = folder / "model.onnx"
        model.write_bytes(tree_model())
        bundle = folder / make_bundle(folder, model.read_bytes(), rows(8, seed=3), dtype="float32")
        return _measure(bundle, model, folder, options.rounds, options.starts).finish(PACKAGES)


def _measure(bundle: Path, model: Path, folder: Path, rounds: int, starts: int) -> harness.Report:
    ours: list[list[float]] = []
    floor: list[list[float]] = []
    stages: list[dict[str, float]] = []
    for _ in range(rounds):
        took = [_start(bundle, folder) for _ in range(starts)]
        ours.append([seconds for seconds, _ in took])
        stages += [stage for _, stage in took]
        floor.append([_bare(model) for _ in range(starts)])
    every = [seconds for each in ours for seconds in each]
    p50, p95 = harness.quantiles(every)
    print(f"{len(every)} starts to a first answer: p50 {1e3 * p50:.0f} ms, p95 {1e3 * p95:.0f} ms")
    spread = {name: harness.quantiles([one[name] for one in stages]) for name in stages[0]}
    print("its own stages, ms, p50 (p95): " + ", ".join(f"{k} {a:.0f} ({b:.0f})" for k, (a, b) in spread.items()))
    print(f"floor, imports and one row: p50 {1e3 * harness.quantiles([s for each in floor for s in each])[0]:.0f} ms")
    medians = [statistics.median(each) for each in ours], [statistics.median(each) for each in floor]
    return harness.Report(
        "pod-start",
        {"sunup": list(ours), "floor": list(floor)},
        [
            harness.Goal("pod-start-p95", PROMISE_SECONDS, p95, p50, p95, least=False),
            harness.ratio_goal("pod-start-floor", 2.0, *medians, least=False),
        ],
        {"p50_ms": 1e3 * p50, "p95_ms": 1e3 * p95, "stages_ms": spread},
    )


def _start(bundle: Path, folder: Path) -> tuple[float, dict[str, float]]:
    """Seconds from the start of one to its first answer, and the stages it tells of, in ms."""
    body = record(rows(1)[0].tolist())
    with tempfile.TemporaryDirectory(dir=folder) as place:
        began = time.monotonic()
        pod = Pod(Path(place), {"SUNUP_BUNDLE": str(bundle), "SUNUP_DIGEST": bundle.name})
        try:
            while True:
                try:
                    answer = pod.ask("POST", "/functions/score", body)
                    break
                except ConnectionRefusedError:
                    time.sleep(0.002)  # as activator and kubelet probe, only more often
            took = time.monotonic() - began
            assert json.loads(answer.body)["predictions"], answer
            return took, line(pod, "ready")["ms"]
        finally:
            pod.process.kill()
            pod.process.wait()


def _bare(model: Path) -> float:
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", FLOOR, str(model)], check=True)
    return time.monotonic() - began


if __name__ == "__main__":
    sys.exit(main())
