"""What the demo's first half uses: records over HTTP, one call after the other and many at once. The story is in
examples/demo.py."""

import asyncio
import http.client
import json
import sys
import time
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np

from sunup.cli.functions import parse_server_timing

ROWS_PER_CALL: Final = 50
LOAD_SECONDS: Final = 5.0
LOAD_CONNECTIONS: Final = 16


@dataclass(frozen=True, slots=True)
class Load:
    """What a bounded load showed: calls per second and seconds at percentiles, seen from the client."""

    rate: float
    p50: float
    p99: float


def served(url: str, sent: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The function's answers to the same rows, over HTTP.

    A card nobody has used yet has no features. But a lookup that passes its deadline (20 ms, easily done on a busy
    machine) answers with defaults, too, and says so: such records are asked once more, alone.
    """
    answers: list[dict[str, Any]] = []
    for at in range(0, len(sent), ROWS_PER_CALL):
        answers += post(url, json.dumps(sent[at : at + ROWS_PER_CALL]).encode())[0]["predictions"]
    again = [number for number, answer in enumerate(answers) if "defaulted" in answer]
    for number in again:
        (answers[number],) = post(url, json.dumps(sent[number]).encode())[0]["predictions"]
    return answers


def post(url: str, body: bytes) -> tuple[dict[str, Any], dict[str, float]]:
    """One call on a connection of its own: the decoded answer and the milliseconds of Server-Timing."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=60)
    connection.request("POST", parts.path, body, {"content-type": "application/json"})
    response = connection.getresponse()
    answer = json.loads(response.read())
    connection.close()
    if response.status != 200:
        sys.exit(f"{url} answered {response.status}: {answer}")
    return answer, parse_server_timing(response.headers.get("server-timing", ""))


async def client(url: str, bodies: list[bytes], until: float, seconds: list[float]) -> None:
    """One keep-alive connection that sends one call after the other until `until`."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    head = f"POST {parts.path} HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-type: application/json\r\ncontent-length: "
    number = 0
    while (began := time.perf_counter()) < until:
        body = bodies[number % len(bodies)]
        writer.write(f"{head}{len(body)}\r\n\r\n".encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        if not answer.startswith(b"HTTP/1.1 200"):
            sys.exit(f"under load: {answer!r}")
        length = int(answer.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        seconds.append(time.perf_counter() - began)
        number += 1
    writer.close()
    await writer.wait_closed()


async def load(url: str, sent: list[dict[str, Any]]) -> Load:
    """Calls of one record each on LOAD_CONNECTIONS connections for LOAD_SECONDS."""
    bodies = [json.dumps(record).encode() for record in sent[:1000]]
    seconds: list[float] = []
    until = time.perf_counter() + LOAD_SECONDS
    shares = [bodies[number::LOAD_CONNECTIONS] for number in range(LOAD_CONNECTIONS)]
    await asyncio.gather(*(client(url, share, until, seconds) for share in shares))
    return Load(len(seconds) / LOAD_SECONDS, *np.percentile(seconds, [50, 99]).tolist())


def wake(url: str, record: dict[str, Any]) -> dict[str, float]:
    """Milliseconds by stage of the call that wakes the function, and as seen from here (`seen`)."""
    began = time.perf_counter()
    _, stages = post(url, json.dumps(record).encode())
    return {**stages, "seen": 1000 * (time.perf_counter() - began)}
