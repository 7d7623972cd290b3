"""How every bench measures: servers on core 0, the load generator on core 1, rounds interleaved, ratios of neighbours.

A goal compares two subjects measured next to each other in every round. The ratio of a round is what counts, because
these machines are noisy in slow waves; the report is the median ratio and its quartiles, and the goal holds when the
quartile on the bad side holds.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy
from tests.bench.open_loop import Sent
from tests.engine_fixture import Engine
from tests.ports import free_port

SERVER_CORE, LOAD_CORE = 0, 1
ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results"
START_SECONDS_MAX = 60.0


@dataclass(frozen=True)
class Load:
    """What one wrk run measured. Latencies in milliseconds."""

    rps: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Goal:
    """`ratio` of the median round; `low` and `high` its quartiles. `least`: at least `goal`, else at most."""

    id: str
    goal: float
    ratio: float
    low: float
    high: float
    least: bool = True

    @property
    def holds(self) -> bool:
        return self.low >= self.goal if self.least else self.high <= self.goal

    def line(self) -> str:
        verdict = "pass" if self.holds else "fail"
        return (
            f"GOAL {self.id} ratio={self.ratio:.3f} goal={self.goal:g} spread={self.low:.3f}-{self.high:.3f} {verdict}"
        )


@dataclass
class Report:
    """Raw rounds and goals of one bench, with what they were measured on."""

    name: str
    rounds: dict[str, list[Any]] = field(default_factory=dict)
    goals: list[Goal] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def finish(self, packages: Iterable[str] = ()) -> int:
        """Write the result file and print the GOAL lines. The exit code: 0 when every goal holds."""
        RESULTS.mkdir(exist_ok=True)
        kept = {
            "name": self.name,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine(),
            "versions": {name: importlib.metadata.version(name) for name in sorted(packages)},
            **self.facts,
            "goals": [{**asdict(goal), "holds": goal.holds} for goal in self.goals],
            "rounds": self.rounds,
        }
        (RESULTS / f"{self.name}.json").write_text(json.dumps(kept, indent=1) + "\n")
        for goal in self.goals:
            print(goal.line())
        return 0 if all(goal.holds for goal in self.goals) else 1


def machine() -> dict[str, Any]:
    """What the bench ran on."""
    found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    cpu = found.group(1) if found else platform.machine()
    return {"cpu": cpu, "cores": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()}


def ratio_goal(id: str, goal: float, ours: Sequence[float], other: Sequence[float], *, least: bool = True) -> Goal:
    """The goal on ours / other, round by round. At least two rounds."""
    ratios = [a / b for a, b in zip(ours, other, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return Goal(id, goal, middle, low, high, least)


def quantiles(values: Sequence[float]) -> tuple[float, float]:
    """The median and the 95th percentile."""
    ordered = sorted(values)
    return statistics.median(ordered), ordered[int(0.95 * (len(ordered) - 1))]


def pin(pids: Iterable[int], core: int) -> None:
    """Keep processes, and all their threads, on one core."""
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {core})


@contextmanager
def server(module: str, *arguments: object) -> Iterator[str]:
    """`python -m MODULE ARGUMENTS PORT`, pinned to the server core; its base URL once it accepts connections."""
    port = free_port()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", module, *map(str, arguments), str(port)]
    process = subprocess.Popen(command, env=environment, cwd=ROOT)
    try:
        wait_for(port, process)
        pin([process.pid], SERVER_CORE)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    """Until something accepts connections at `port`. Raises RuntimeError when the process ends before."""
    end = time.monotonic() + START_SECONDS_MAX
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError as error:
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{process.args!r} did not start") from error
            time.sleep(0.05)
        else:
            return


def post_json(url: str, body: bytes) -> Any:
    """The decoded answer to one POST."""
    request = urllib.request.Request(url, body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


class Wrk:
    """wrk posting the same bodies in turn, from the load core."""

    def __init__(self, folder: Path, bodies: Sequence[bytes]) -> None:
        self._script = folder / "post.lua"
        quoted = ",\n".join("[==[" + body.decode() + "]==]" for body in bodies)
        self._script.write_text(
            f"local bodies = {{\n{quoted}\n}}\nlocal turn = 0\nlocal ready = {{}}\n"
            'function init()\n  wrk.headers["content-type"] = "application/json"\n'
            "  for i, body in ipairs(bodies) do ready[i] = wrk.format('POST', nil, nil, body) end\nend\n"
            "function request()\n  turn = turn % #ready + 1\n  return ready[turn]\nend\n"
        )

    def run(self, url: str, *, seconds: int, connections: int = 32, refusals: bool = False) -> Load:
        """One run, in whole seconds. Raises RuntimeError when any answer is not a 200 or a connection fails; with
        `refusals`, `rps` counts the right answers only, and the others are no failure."""
        command = ["taskset", "-c", str(LOAD_CORE), "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
        out = subprocess.run(
            [*command, "-s", self._script, url], check=True, capture_output=True, text=True, timeout=seconds + 60
        ).stdout
        if ("Non-2xx" in out and not refusals) or "Socket errors" in out:
            raise RuntimeError(f"wrk saw failures:\n{out}")
        refused = (
            int(_find(r"responses: (\d+)", out)) / int(_find(r"(\d+) requests in", out)) if "Non-2xx" in out else 0.0
        )
        return Load(
            (1 - refused) * float(_find(r"Requests/sec:\s+([\d.]+)", out)), _latency("50%", out), _latency("99%", out)
        )


def interleave(subjects: Mapping[str, str], wrk: Wrk, *, rounds: int, seconds: int) -> dict[str, list[Load]]:
    """A round measures every subject (name -> URL) once, in turn; a first round warms up and is thrown away."""
    measured: dict[str, list[Load]] = {name: [] for name in subjects}
    for number in range(rounds + 1):
        for name, url in subjects.items():
            load = wrk.run(url, seconds=seconds if number else 1)
            if number:
                measured[name].append(load)
    return measured


def options(description: str, *, rounds: int, seconds: int, **more: str) -> argparse.Namespace:
    """What the command line says: `rounds`, the `seconds` of each subject in one, and `more` options with a default."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--seconds", type=int, default=seconds)
    for name, default in more.items():
        parser.add_argument(f"--{name}", default=default)
    return parser.parse_args()


def compare(
    name: str,
    subjects: Mapping[str, str],
    wrk: Wrk,
    goals: Mapping[str, tuple[float, str]],
    given: argparse.Namespace,
) -> Report:
    """Measure `subjects` (name -> URL; ours is "sunup") as `given` says, print the table, set the goals.

    `goals`: goal id -> the least ratio of our requests/s to another subject's, and that subject.
    """
    measured = interleave(subjects, wrk, rounds=given.rounds, seconds=given.seconds)
    alone = {k: wrk.run(u, seconds=given.seconds, connections=1) for k, u in subjects.items()}
    print(table(measured))
    print("one connection: " + ", ".join(f"{k} p50 {load.p50_ms * 1000:.0f} us" for k, load in alone.items()))
    rps = {k: [load.rps for load in loads] for k, loads in measured.items()}
    return Report(
        name,
        {k: [asdict(load) for load in loads] for k, loads in measured.items()},
        [ratio_goal(id, least, rps["sunup"], rps[other]) for id, (least, other) in goals.items()],
        {"one_connection": {k: asdict(load) for k, load in alone.items()}},
    )


def table(measured: Mapping[str, Sequence[Load]]) -> str:
    """Medians over the rounds."""
    lines = [f"{'':24}{'requests/s':>12}{'p50 ms':>10}{'p99 ms':>10}"]
    for name, loads in measured.items():
        middle = [statistics.median(getattr(load, what) for load in loads) for what in ("rps", "p50_ms", "p99_ms")]
        lines.append(f"{name:24}{middle[0]:12,.0f}{middle[1]:10.3f}{middle[2]:10.3f}")
    return "\n".join(lines)


def _find(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    if found is None:
        raise RuntimeError(f"wrk printed no {pattern!r}:\n{text}")
    return found.group(1)


def _latency(percentile: str, text: str) -> float:
    value, unit = re.search(rf"{percentile}\s+([\d.]+)(us|ms|s)", text).groups()  # type: ignore[union-attr]
    return float(value) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit]


def run_floor(name: str, model: Path, rows: Any, count: int) -> list[float]:
    """Seconds of each start of a floor program that starts itself `count` times."""
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        numpy.save(file.name, rows)
        command = [sys.executable, "-m", f"tests.bench.floor.{name}", str(model), file.name, str(count)]
        out = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT, timeout=120).stdout
    seconds: list[float] = json.loads(out)["seconds"]
    return seconds


def open_loop(url: str, bodies: Sequence[bytes], *, rate: float, seconds: float, connections: int = 128) -> Sent:
    """Calls at fixed times, from the load core; see open_loop.py."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump([body.decode() for body in bodies], file)
        file.flush()
        given = [url, file.name, f"--rate={rate}", f"--seconds={seconds}", f"--connections={connections}"]
        command = ["taskset", "-c", str(LOAD_CORE), sys.executable, "-m", "tests.bench.open_loop", *given]
        out = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT, timeout=seconds + 60).stdout
    due, seconds, answers, *rest = json.loads(out)
    return Sent(due, seconds, [(status, took) for status, took in answers], *rest)


@contextmanager
def local_engine(root: Path) -> Iterator[Engine]:
    """A local engine with a project of its own, ended afterwards."""
    engine = Engine(root)
    engine.up()
    try:
        yield engine
    finally:
        engine.down()
