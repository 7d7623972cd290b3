"""One cold start as a caller sees it: a new connection, one request, its first byte; and the stages it names."""

import json
import socket
import time
from pathlib import Path

from tests.engine_fixture import Engine, until

from sunup.bundle.manifest import Scale

SHORT = Scale(max=1, idle_s=0.3)  # so that a function is soon at zero again


def record(row: list[float]) -> bytes:
    """One record of the benches' tree model, as callers send it."""
    return json.dumps({f"f{i}": v for i, v in enumerate(row)}).encode()


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
