"""The whole story on one machine, in about two minutes: `make demo`.

    simulate -> train -> register (MLflow) -> materialise (Feast) -> platform deploy fraud-v3 -> score over HTTP
    -> load -> silence -> zero workers -> one call wakes it

State is in .sunup/ of this folder. What an earlier run left there is used again: nothing is simulated, trained or
registered twice. An engine that this run starts is stopped at its end.
"""

import asyncio
import http.client
import json
import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import mlflow
import numpy as np
import pandas as pd
from feast import FeatureStore
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sklearn.metrics import roc_auc_score

from functions.fraud import train
from functions.fraud.build_features import Data, today
from functions.fraud.simulate import SEED
from sunup.cli.functions import parse_server_timing
from sunup.engine.local.client import LocalEngine
from sunup.settings import Project, find_project

MODEL: Final = "fraud-v3"
ROWS: Final = 5_000  # held-out transactions scored
ROWS_PER_CALL: Final = 50
LOAD_SECONDS: Final = 5.0
LOAD_CONNECTIONS: Final = 16
ZERO_SECONDS_MAX: Final = 90.0  # the function's idle time and some patience
DATA_AGE_MAX: Final = timedelta(days=5)  # older features would be stale when served: simulate anew

console: Final = Console(width=None if sys.stdout.isatty() else 110, highlight=False)


@dataclass(frozen=True, slots=True)
class Load:
    """What a bounded load showed: calls per second and seconds at percentiles, seen from the client."""

    rate: float
    p50: float
    p99: float


@contextmanager
def step(title: str) -> Iterator[None]:
    """Print a step and how long it took."""
    console.print(f"[bold]{title}[/]")
    began = time.monotonic()
    yield
    console.print(f"[dim]  {time.monotonic() - began:.1f} s[/]")


def platform(*arguments: str) -> dict[str, Any]:
    """Run the command line as a person would, with --json; its facts. Its progress goes to the terminal."""
    command = [str(Path(sys.executable).with_name("platform")), *arguments]
    console.print(f"  $ platform {' '.join(arguments)}")
    ran = subprocess.run([*command, "--json"], stdout=subprocess.PIPE, check=False)
    if ran.returncode:
        sys.exit(ran.returncode)  # it has said why
    facts: dict[str, Any] = json.loads(ran.stdout)
    return facts


def prepare(project: Project) -> None:
    """Simulate, train, register, materialise: whatever of it is not there yet."""
    logging.getLogger("mlflow").setLevel(logging.ERROR)  # it remarks on every model that there is no pip beside uv
    holdout = Data(project).holdout
    made = datetime.fromtimestamp(holdout.stat().st_mtime, UTC) if holdout.exists() else datetime.now(UTC)
    train.run(project, again=datetime.now(UTC) - made > DATA_AGE_MAX, end=today(), seed=SEED)


def held_out(project: Project) -> pd.DataFrame:
    """ROWS held-out transactions, every fraud among them kept as long as there is room."""
    everything = pd.read_parquet(Data(project).holdout)
    return everything.sample(min(ROWS, len(everything)), random_state=SEED).reset_index(drop=True)


def offline(project: Project, rows: pd.DataFrame, version: str) -> NDArray[np.float64]:
    """The original model's scores [n] of the same rows, features read through Feast."""
    store = FeatureStore(repo_path=str(project.features))
    table = train.inputs(train.online(store, rows), train.defaults(project))
    mlflow.set_tracking_uri(project.tracking_uri)
    model = mlflow.lightgbm.load_model(f"models:/{train.NAME}/{version}")
    scores: NDArray[np.float64] = model.predict_proba(table)[:, 1]
    return scores


def records(rows: pd.DataFrame, example: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows as request records: the fields of `example`, with its types."""
    columns = [[type(like)(value) for value in rows[name]] for name, like in example.items()]
    return [dict(zip(example, values, strict=True)) for values in zip(*columns, strict=True)]


def served(url: str, sent: list[dict[str, Any]]) -> tuple[NDArray[np.float64], int]:
    """The function's scores [n] of the same rows, over HTTP, and how many records took a default feature.

    A card nobody has used yet has no features. But a lookup that passes its deadline (20 ms, easily done on a busy
    machine) answers with defaults, too, and says so: such records are asked once more, alone.
    """
    answers: list[dict[str, Any]] = []
    for at in range(0, len(sent), ROWS_PER_CALL):
        answers += post(url, json.dumps(sent[at : at + ROWS_PER_CALL]).encode())[0]["predictions"]
    again = [number for number, answer in enumerate(answers) if "defaulted" in answer]
    for number in again:
        (answers[number],) = post(url, json.dumps(sent[number]).encode())[0]["predictions"]
    return np.array([answer["score"] for answer in answers]), sum("defaulted" in answer for answer in answers)


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


def wait_for_zero(engine: LocalEngine) -> float:
    """Seconds until the function has no worker left."""
    began = time.monotonic()
    while engine.status(train.NAME)["functions"][0]["workers"]:
        if time.monotonic() - began > ZERO_SECONDS_MAX:
            sys.exit(f"{train.NAME} still has a worker after {ZERO_SECONDS_MAX:.0f} s of silence")
        time.sleep(0.25)  # a poll of a fact that nobody announces; the deadline above bounds it
    return time.monotonic() - began


def wake(url: str, record: dict[str, Any]) -> dict[str, float]:
    """Milliseconds by stage of the call that wakes the function, and as seen from here (`seen`)."""
    began = time.perf_counter()
    _, stages = post(url, json.dumps(record).encode())
    return {**stages, "seen": 1000 * (time.perf_counter() - began)}


def show(measured: list[tuple[str, str]], url: str) -> None:
    """The table at the end, and where to look next."""
    table = Table(title="What this machine just did", title_justify="left", box=None, show_header=False)
    for name, value in measured:
        table.add_row(name, value)
    console.print()
    console.print(table)
    console.print(
        "\nWhere to look next\n"
        "  source .venv/bin/activate && platform deploy fraud@champion    the function again, and a curl line\n"
        "  examples/own_model.py          ten lines that deploy a model of your own\n"
        "  functions/fraud/function.toml  what a function declares\n"
        "  platform/docs/quickstart.md    the same, step by step\n"
        "  platform/ARCHITECTURE.md       how it works\n"
    )
    console.print(f"[dim]It was served at {url}; .sunup/ holds all state (make clean removes it).[/]")


def tell(project: Project, engine: LocalEngine) -> None:
    """The story, step by step."""
    with step("1. Simulate payments, train three models, register them, materialise features"):
        prepare(project)
    with step(f"2. Deploy {MODEL}: convert, prove, route"):
        deployed = platform("deploy", MODEL)
        url = deployed["url"]
        console.print(f"  {url}  (revision {deployed['revision']}, {deployed['model']})")
        console.print("  " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in deployed["stages"].items()))
    rows = held_out(project)
    sent = records(rows, json.loads((project.bundles / deployed["digest"] / "manifest.json").read_bytes())["example"])
    with step(f"3. Score {len(rows):,} held-out payments over HTTP, and with the original model"):
        (online, missing), original = served(url, sent), offline(project, rows, MODEL.rpartition("-v")[2])
    with step(f"4. {LOAD_SECONDS:.0f} s of load, one record a call, {LOAD_CONNECTIONS} connections"):
        loaded = asyncio.run(load(url, sent))
    with step("5. Silence until there is no worker left"):
        silence = wait_for_zero(engine)
    with step("6. One call wakes it"):
        cold = wake(url, sent[0])
    labels = rows["is_fraud"]
    stages = ", ".join(f"{name} {cold[name]:.1f}" for name in ("hold", "fork", "load", "prove") if name in cold)
    show(
        [
            ("AUC of the scores served", f"{roc_auc_score(labels, online):.6f}"),
            ("AUC of the original model, same rows", f"{roc_auc_score(labels, original):.6f}"),
            ("largest difference of a score", f"{np.abs(online - original).max():.1e}"),
            ("records with features missing (defaults used)", f"{missing:,} of {len(rows):,}"),
            ("from `platform deploy` to a URL", f"{deployed['seconds']:.1f} s"),
            ("requests/s (client and server share the cores)", f"{loaded.rate:,.0f}"),
            ("p50 / p99 under that load", f"{1000 * loaded.p50:.2f} / {1000 * loaded.p99:.2f} ms"),
            ("silence until zero workers", f"{silence:.0f} s"),
            ("cold start, request to first byte", f"{cold['seen']:.1f} ms  ({stages})"),
        ],
        url,
    )


def main() -> None:
    project = find_project(Path.cwd())
    engine = LocalEngine(project)
    was_running = engine.running() is not None
    try:
        tell(project, engine)
    finally:
        if not was_running:
            subprocess.run([str(Path(sys.executable).with_name("platform")), "down"], check=False)


if __name__ == "__main__":
    main()
