"""cold-kubernetes: a function at zero on the test cluster, from a call through Kourier to its answer, in stages.

    python -m tests.bench cold-kubernetes [--rounds 4] [--starts 5] [--load-seconds 10]

A round has `starts` functions, which go to zero side by side. Interleaved with them, the floor: the same calls at zero
to as many tiny Go servers (dev.local/hello:1), which have nothing to start, so what they take is Knative's, the
scheduler's and the container runtime's. One absolute goal is a promise to users: from the start of the worker's process
until it is ready at most 1 s (p95).

Then wrk calls a function without a pause while a canary is promoted and rolled back: no answer may be missing or
other than 200.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

from tests.bench import harness
from tests.cluster.cold import STAGES, Cold, call_at_zero, until_zero
from tests.cluster.functions import JSON, RECORD, Platform, bundle, push_runtime
from tests.cluster.running import Cluster, network, script

from sunup.bundle.manifest import Scale

NAMESPACE: Final = "bench"
FLOOR: Final = "floor"
PROMISE_SECONDS: Final = 1.0
PACKAGES: Final = ("kubernetes", "onnxruntime", "starlette", "uvloop")
ANNOTATIONS: Final = {
    "autoscaling.knative.dev/window": "6s",
    "autoscaling.knative.dev/scale-to-zero-pod-retention-period": "0s",
    "autoscaling.knative.dev/max-scale": "1",
}


def main() -> int:
    parser = argparse.ArgumentParser(description="calls at zero on the test cluster; wrk while a canary moves")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--load-seconds", type=int, default=10)
    options = parser.parse_args()
    with _cluster() as cluster, tempfile.TemporaryDirectory() as name, _namespace(cluster):
        folder = Path(name)
        (folder / "functions").mkdir()
        platform = Platform(cluster, NAMESPACE, folder, push_runtime(cluster, folder), {})
        return _measure(platform, folder, options).finish(PACKAGES)


def _measure(platform: Platform, folder: Path, options: argparse.Namespace) -> harness.Report:
    names = [(f"score{number}", f"{FLOOR}{number}") for number in range(options.starts)]
    for function, hello in names:
        platform.deploy(bundle(folder, 1, function=function, scale=Scale(max=1, idle_s=6.0)))
        platform.cluster.apply(_floor(hello))
        platform.cluster.until("the floor", partial(_is_ready, platform, hello))
    ours: list[list[Cold]] = []
    floor: list[list[float]] = []
    for _ in range(options.rounds):
        both = [(call_at_zero(platform, function), _floor_at_zero(platform, hello)) for function, hello in names]
        ours.append([cold for cold, _ in both])
        floor.append([seconds for _, seconds in both])
    every = [cold for each in ours for cold in each]
    stages = {name: harness.quantiles([cold.stages[name] for cold in every]) for name in STAGES}
    pod = {name: harness.quantiles([cold.pod[name] for cold in every]) for name in every[0].pod}
    total, bare = harness.quantiles([c.seconds for c in every]), harness.quantiles([s for each in floor for s in each])
    print(f"{len(every)} calls at zero: p50 {total[0]:.2f} s, p95 {total[1]:.2f} s")
    print(f"floor: p50 {bare[0]:.2f} s, p95 {bare[1]:.2f} s")
    print("stages, s, p50 (p95): " + ", ".join(f"{name} {a:.2f} ({b:.2f})" for name, (a, b) in stages.items()))
    print("in the worker, ms, p50 (p95): " + ", ".join(f"{name} {a:.0f} ({b:.0f})" for name, (a, b) in pod.items()))
    answers = _under_load(platform, folder, options.load_seconds)
    print(f"wrk while a canary came, was promoted and rolled back: {answers}")
    medians = [statistics.median(c.seconds for c in each) for each in ours], [statistics.median(e) for e in floor]
    worker = stages["worker"]
    return harness.Report(
        "cold-kubernetes",
        {"sunup": [[c.seconds for c in each] for each in ours], "floor": list(floor)},
        [
            harness.Goal("cold-kubernetes-worker-p95", PROMISE_SECONDS, worker[1], worker[0], worker[1], least=False),
            harness.ratio_goal("cold-kubernetes-floor", 2.0, *medians, least=False),
            harness.Goal("cold-kubernetes-lost", 0.0, answers["lost"], answers["lost"], answers["lost"], least=False),
        ],
        {"seconds": total, "floor_seconds": bare, "stages_s": stages, "worker_ms": pod, "wrk": answers},
    )


def _floor_at_zero(platform: Platform, name: str) -> float:
    until_zero(platform, name)
    began = time.monotonic()
    status, _ = platform.cluster.ask(platform.host(name))
    assert status == 200, status
    return time.monotonic() - began


def _is_ready(platform: Platform, name: str) -> bool:
    return platform.cluster.condition("ksvc", name, NAMESPACE) == "True"


def _floor(name: str) -> dict[str, Any]:
    container = {
        "image": "dev.local/hello:1",
        "readinessProbe": {"httpGet": {"path": "/"}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "20m", "memory": "16Mi"}},
    }
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"template": {"metadata": {"annotations": ANNOTATIONS}, "spec": {"containers": [container]}}},
    }


def _under_load(platform: Platform, folder: Path, seconds: int) -> dict[str, float]:
    """Answers of wrk while each of deploy --canary, promote and rollback went on for `seconds` at least; `lost`: those
    that were not 200, and connections that broke."""
    found = {"requests": 0.0, "lost": 0.0}
    platform.deploy(bundle(folder, 1, scale=Scale(min=1, max=2)))
    newer = str(bundle(folder, 2, scale=Scale(min=1, max=2)))
    for words in (("deploy", newer, "--canary", "20"), ("promote", "score"), ("rollback", "score")):
        platform.call()
        with tempfile.NamedTemporaryFile("w", suffix=".lua") as lua:
            head = "".join(f'wrk.headers["{k}"] = "{v}"\n' for k, v in {**JSON, "Host": platform.host()}.items())
            lua.write(f"wrk.method = 'POST'\nwrk.body = '{json.dumps(RECORD)}'\n{head}")
            lua.flush()
            url = f"{platform.cluster.gateway}/functions/score"
            command = ["wrk", "-t1", "-c8", f"-d{seconds}s", "--timeout", "30s", "-s", lua.name, url]
            load = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            platform.facts(*words)
            said = load.communicate()[0]
        numbers = [int(n) for n in re.findall(r"(?:connect|read|write|timeout|2xx or 3xx responses:)[: ]+(\d+)", said)]
        found["requests"] += int(re.findall(r"(\d+) requests in", said)[0])
        found["lost"] += sum(numbers)
    return found


@contextmanager
def _cluster() -> Iterator[Cluster]:
    """The test cluster, started if none runs, and ended if it was started here."""
    up = script("up.sh")
    if up.returncode:
        sys.exit(up.stderr)
    running = Cluster.of(up.stdout, up.stderr.strip())
    try:
        with network(Path(running.netns)):
            yield running
    finally:
        if running.started:
            script("down.sh")


@contextmanager
def _namespace(cluster: Cluster) -> Iterator[None]:
    cluster.kubectl("create", "namespace", NAMESPACE)
    try:
        yield
    finally:
        cluster.kubectl("delete", "namespace", NAMESPACE)


if __name__ == "__main__":
    sys.exit(main())
