"""The whole story on one machine, in about two and a half minutes: `make demo`.

    simulate -> train -> register (MLflow) -> materialise (Feast) -> platform deploy fraud-v3 -> score over HTTP
    -> load -> silence -> zero workers -> one call wakes it
    -> the same function on a topic: records in, scores out -> silence -> zero workers -> one record wakes it
    -> platform deploy fraud-v4, which also takes what a card was just used for -> a card used five times in a minute

The topic is on the Kafka that KAFKA_BOOTSTRAP names, else on one that is started for the demo, where Java and Maven are
found, else on the embedded log. State is in .sunup/ of this folder. What an earlier run left there is used again:
nothing is simulated, trained or registered twice. An engine or a broker that this run starts is stopped at its end.
"""

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import mlflow
import numpy as np
import pandas as pd
from feast import FeatureStore
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sklearn.metrics import roc_auc_score

from examples.demo_http import LOAD_CONNECTIONS, LOAD_SECONDS, load, served, wake
from examples.demo_stream import BOOTSTRAP, Entry, Names, Topics, collect, difference, once, topics
from examples.streaming_features import TIMES, lines
from examples.streaming_features import show as use_a_card
from functions.fraud import train
from functions.fraud.build_features import HOLDOUT_DAYS, Data, holdout_start, today
from functions.fraud.simulate import SEED, later
from sunup.engine.local.client import LocalEngine
from sunup.settings import Project, find_project

MODEL: Final = "fraud-v3"
STREAMING: Final = "fraud-v4"  # takes features of the topic, too
ROWS: Final = 5_000  # held-out transactions scored
WAIT_SECONDS_MAX: Final = 90.0  # the function's idle time and some patience
LATER: Final = 20_000  # later transactions that go through the topic
SCORES_SECONDS_MAX: Final = 60.0  # for all of them to come out; it takes two or three
DATA_AGE_MAX: Final = timedelta(days=5)  # older features would be stale when served: simulate anew

console: Final = Console(width=None if sys.stdout.isatty() else 110, highlight=False)


@contextmanager
def step(title: str) -> Iterator[None]:
    """Print a step and how long it took."""
    console.print(f"[bold]{title}[/]")
    began = time.monotonic()
    yield
    console.print(f"[dim]  {time.monotonic() - began:.1f} s[/]")


def platform(*arguments: str, **environment: str) -> dict[str, Any]:
    """Run the command line as a person would, with --json; its facts. Its progress goes to the terminal."""
    command = [str(Path(sys.executable).with_name("platform")), *arguments]
    console.print("  $", *(f"{name}={value}" for name, value in environment.items()), "platform", *arguments)
    given = {**os.environ, **environment}
    ran = subprocess.run([*command, "--json"], stdout=subprocess.PIPE, check=False, env=given)
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


def after(project: Project) -> pd.DataFrame:
    """LATER transactions of the same people, after everything the models have seen."""
    return later(LATER, seed=SEED, end=holdout_start(Data(project)) + timedelta(days=HOLDOUT_DAYS))


def entry(record: dict[str, Any]) -> Entry:
    """A record as it goes into the topic: those of one card stay in order."""
    return Entry(str(record["card_id"]).encode(), json.dumps(record).encode())


def wait(engine: LocalEngine, what: str, holds: Callable[[dict[str, Any]], bool]) -> float:
    """Seconds until something holds for the function's facts, those that `platform status --json` shows."""
    began = time.monotonic()
    while not holds(facts := engine.status(train.NAME)["functions"][0]):
        if time.monotonic() - began > WAIT_SECONDS_MAX:
            stream = facts["stream"]
            sys.exit(f"not {what} after {WAIT_SECONDS_MAX:.0f} s: {stream['state']} {stream.get('reason', '')}")
        time.sleep(0.1)  # a poll of facts that nobody announces; the deadline above bounds it
    return time.monotonic() - began


def wait_for_zero(engine: LocalEngine) -> float:
    """Seconds until the function has no worker left, and no record waits for one."""
    return wait(engine, "at zero", lambda facts: not facts["workers"] and not facts["stream"]["lag"])


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
    with step("1. Simulate payments, train four models, register them, materialise features"):
        prepare(project)
    with step(f"2. Deploy {MODEL}: convert, prove, route"):
        deployed = platform("deploy", MODEL)
        url = deployed["url"]
        console.print(f"  {url}  (revision {deployed['revision']}, {deployed['model']})")
        console.print("  " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in deployed["stages"].items()))
    example = json.loads((project.bundles / deployed["digest"] / "manifest.json").read_bytes())["example"]
    measured = [("from `platform deploy` to a URL", f"{deployed['seconds']:.1f} s")]
    measured += over_http(project, engine, url, example)
    with ExitStack() as stack:
        with step("7. The same function on a topic"):
            wire = find_topics(project, engine, stack)
        measured += through_topics(wire, engine, url, records(after(project), example))
        measured += with_streaming_features(project, wire, engine, url)
    show(measured, url)


def over_http(project: Project, engine: LocalEngine, url: str, example: dict[str, Any]) -> list[tuple[str, str]]:
    """Steps 3 to 6, and what they showed."""
    rows = held_out(project)
    sent = records(rows, example)
    with step(f"3. Score {len(rows):,} held-out payments over HTTP, and with the original model"):
        answers, original = served(url, sent), offline(project, rows, MODEL.rpartition("-v")[2])
    with step(f"4. {LOAD_SECONDS:.0f} s of load, one record a call, {LOAD_CONNECTIONS} connections"):
        loaded = asyncio.run(load(url, sent))
    with step("5. Silence until there is no worker left"):
        silence = wait_for_zero(engine)
    with step("6. One call wakes it"):
        cold = wake(url, sent[0])
    labels, online = rows["is_fraud"], np.array([answer["score"] for answer in answers])
    missing = sum("defaulted" in answer for answer in answers)
    stages = ", ".join(f"{name} {cold[name]:.1f}" for name in ("hold", "fork", "load", "prove") if name in cold)
    return [
        ("AUC of the scores served", f"{roc_auc_score(labels, online):.6f}"),
        ("AUC of the original model, same rows", f"{roc_auc_score(labels, original):.6f}"),
        ("largest difference of a score", f"{np.abs(online - original).max():.1e}"),
        ("records with features missing (defaults used)", f"{missing:,} of {len(rows):,}"),
        ("requests/s (client and server share the cores)", f"{loaded.rate:,.0f}"),
        ("p50 / p99 under that load", f"{1000 * loaded.p50:.2f} / {1000 * loaded.p99:.2f} ms"),
        ("silence until zero workers", f"{silence:.0f} s"),
        ("cold start, request to first byte", f"{cold['seen']:.1f} ms  ({stages})"),
    ]


def find_topics(project: Project, engine: LocalEngine, stack: ExitStack) -> Topics:
    """The function's topics at a broker, and the function deployed there, until the end of `stack`."""
    facts = engine.status(train.NAME)["functions"][0]["stream"]
    names = Names(facts["input"], facts["output"], facts["dead_letter"])
    wire = stack.enter_context(topics(project.embedded_log, names))
    console.print(f"  the broker: {wire.note}", soft_wrap=True)
    deploy_on(wire, engine, MODEL)
    if wire.bootstrap and not os.environ.get(BOOTSTRAP):
        stack.callback(platform, "deploy", MODEL)  # back to the embedded log before this broker stops
    return wire


def deploy_on(wire: Topics, engine: LocalEngine, model: str) -> None:
    """Deploy a version on the topics of a broker, and wait until they are looked at."""
    platform("deploy", model, **({BOOTSTRAP: wire.bootstrap} if wire.bootstrap else {}))
    wait(engine, "looking at the topic", lambda facts: facts["stream"]["state"] in ("idle", "starting", "running"))


def through_topics(wire: Topics, engine: LocalEngine, url: str, sent: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Steps 8 to 11, and what they showed."""
    with step(f"8. {len(sent):,} later payments through the topic"):
        began = time.monotonic()
        ids = wire.send([entry(record) for record in sent])
        found = collect(wire, ids, SCORES_SECONDS_MAX)
        seconds = time.monotonic() - began
        if missing := len(set(ids) - {scored.id for scored in found}):
            sys.exit(f"{missing:,} scores did not come out in {SCORES_SECONDS_MAX:.0f} s: platform stream status fraud")
    with step("9. The same payments over HTTP"):
        scores = {scored.id: scored.answer for scored in found}
        largest, left_out = difference([scores[id] for id in ids], served(url, sent))
    with step("10. Silence until there is no worker left"):
        silence = wait_for_zero(engine)
        found += [scored for scored in wire.take(1.0) if scored.id in scores]  # what came twice, if anything did
    with step("11. One record wakes it"):
        began = time.monotonic()
        if not collect(wire, wire.send([entry(sent[0])]), SCORES_SECONDS_MAX):
            sys.exit(f"no score came out in {SCORES_SECONDS_MAX:.0f} s: platform stream status fraud")
        woken = time.monotonic() - began
    return [
        ("the broker of the topics", wire.broker),
        ("records/s (first one sent to last score seen)", f"{len(sent) / seconds:,.0f}"),
        ("records scored exactly once", f"{once(ids, found):,} of {len(sent):,}"),
        ("largest difference to the score over HTTP", f"{largest:.1e}" + f"  ({left_out} left out)" * (left_out > 0)),
        ("silence until zero workers, lag 0", f"{silence:.0f} s"),
        ("from zero, record sent to score seen", f"{1000 * woken:.0f} ms"),
    ]


def with_streaming_features(project: Project, wire: Topics, engine: LocalEngine, url: str) -> list[tuple[str, str]]:
    """Step 12, and what it showed."""
    with step(f"12. {STREAMING} takes what a card was just used for: one is used {TIMES} times within a minute"):
        deploy_on(wire, engine, STREAMING)
        shown = use_a_card(project, wire, url)
        console.print(*(f"  {line}" for line in lines(shown)), sep="\n", soft_wrap=True)
    (before, low), (after, high) = shown.before, shown.after
    count = "card_tx_count_1h"
    return [
        (f"{count} in Feast, before and after {TIMES} payments", f"{before[count] or 0} and {after[count]}"),
        ("score of the next payment, before and after", f"{low:.4f} and {high:.4f}"),
        ("from the last score to its being read with Feast", f"{1000 * shown.seconds:.0f} ms"),
    ]


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started here is stopped then, too
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
