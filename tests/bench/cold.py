"""One cold start as a caller sees it: a new connection, one request, its first byte; and the stages it names. And the
starts of other servers beside it."""

import json
import socket
import statistics
import time
from collections.abc import Mapping
from pathlib import Path

from tests.bench import harness
from tests.bench.peers.peers import running
from tests.engine_fixture import Engine, until

from sunup.bundle.manifest import Scale

PEER_STARTS = 3
SHORT = Scale(max=1, idle_s=0.3)  # so that a function is soon at zero again


def start(
    engine: Engine, function: str, body: bytes, *, kind: str = "application/json"
) -> tuple[float, dict[str, float]]:
    """Wait until `function` is at zero, then call it. Seconds to the first byte, and milliseconds by stage."""
    until(lambda: engine.at_zero(function), "the function to go to zero")
    head = f"POST /functions/{function} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: {kind}\r\n"
    request = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
    begun = time.perf_counter()
    with socket.create_connection(("127.0.0.1", engine.port)) as client:
        client.sendall(request)
        answer = client.recv(1)
        seconds = time.perf_counter() - begun
        while more := client.recv(65536):
            answer += more
    lines, _, reply = answer.partition(b"\r\n\r\n")
    if not answer.startswith(b"HTTP/1.1 200 ") or len(json.loads(reply)["predictions"][0]) < 2:
        raise RuntimeError(f"a cold start was not answered: {answer!r}")
    timing = next(one for one in lines.split(b"\r\n") if one.startswith(b"server-timing: ")).decode()
    stages = dict(one.strip().split(";dur=") for one in timing.partition(": ")[2].split(","))
    if "fork" not in stages:
        raise RuntimeError(f"it was no cold start: {timing}")
    return seconds, {stage: float(ms) for stage, ms in stages.items()}


def quiet_load(folder: Path, body: bytes, delay_ms: int) -> Path:
    """A script for wrk that posts `body`, each connection `delay_ms` after its last answer."""
    script = folder / "quiet.lua"
    script.write_text(
        f'wrk.method = "POST"\nwrk.body = [==[{body.decode()}]==]\n'
        f'wrk.headers["content-type"] = "application/json"\nfunction delay() return {delay_ms} end\n'
    )
    return script


def start_peers(firsts: Mapping[str, bytes], folder: Path, report: harness.Report, goal: str, least: float) -> None:
    """Seconds from each peer's start to its answer to its first body; the goal is on the fastest. The model is in
    `folder`."""
    for name, first in firsts.items():
        report.rounds[name] = []
        for number in range(PEER_STARTS + 1):
            with running(name, folder / "model.onnx", folder / f"{name}-{number}", first) as (_, seconds):
                report.rounds[name] += [seconds] if number else []  # the first one reads its files from the disk
        print(f"{name}: first answer after {statistics.median(report.rounds[name]):.2f} s")
    if firsts:
        fastest = min((report.rounds[name] for name in firsts), key=statistics.median)
        ours = [report.facts["p50_ms"] / 1e3] * PEER_STARTS
        report.goals.append(harness.ratio_goal(goal, least, fastest, ours))
