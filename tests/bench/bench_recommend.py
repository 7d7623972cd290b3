"""recommend: 500 candidates ranked through the door, features from SQLite and from Redis; and 200 retrieved ones.

    python -m tests.bench recommend [--rounds 5] [--calls 60]

The function of functions/recommend as it is trained and deployed, one call after the other on one connection: what is
measured is how long one caller waits, seen from the client. Each round is the median of its calls.
"""

import argparse
import http.client
import json
import os
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from tests.bench import harness
from tests.engine_fixture import Engine
from tests.fraud_fixture import ROOT, checkout
from tests.recommend_fixture import training
from tests.redis_fixture import RedisServer
from tests.service.test_cli import platform

from functions.recommend.simulate import FIRST_ITEM, ITEMS, USERS
from sunup.cli.functions import parse_server_timing

GOAL_MS = 20.0  # a page that waits for a recommendation has 100 ms in all
CANDIDATES = 500
PACKAGES = ("hiredis", "msgspec", "numpy", "onnxruntime")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=60)
    options = parser.parse_args()
    report = harness.Report("recommend", facts={"load": os.getloadavg()})  # one caller's wait is mostly its turn
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        root = checkout(Path(name) / "p")
        training(root)
        redis = RedisServer(Path(name))
        redis.start()
        stack.callback(redis.stop)
        _fill(root, redis)
        engine = stack.enter_context(harness.local_engine(root))
        built = platform(root, "deploy", "recommend", "--json").json
        for kind, url in (("sqlite", f"sqlite://{root}/.sunup/features/online.db"), ("redis", redis.url)):
            engine.deploy("recommend", built["digest"], settings=_settings(url), on_event=lambda _: None)
            _measure(report, engine, kind, options)
    return report.finish(PACKAGES)


def _settings(url: str) -> dict[str, str]:
    return {"features_url": url, "stream_broker": "embedded"}


def _fill(root: Path, redis: RedisServer) -> None:
    """The same features into Redis, by Feast."""
    setting = root / "redis.yaml"
    text = (ROOT / "features" / "feature_store.redis.yaml").read_text()
    setting.write_text(text.replace("localhost:6379", f"localhost:{redis.port}"))
    training(root, FEAST_FS_YAML_FILE_PATH=str(setting))


def _measure(report: harness.Report, engine: Engine, kind: str, options: Any) -> None:
    """Rounds of both kinds of call, and their goals."""
    rng = np.random.default_rng(3)
    for what in ("500", "retrieved"):
        rounds, stages, every = [], [], []
        connection = engine.open()
        _ask(connection, _body(rng, what))  # wakes the function, and connects to the store
        for _ in range(options.rounds):
            took = [_ask(connection, _body(rng, what)) for _ in range(options.calls)]
            rounds.append(1e3 * statistics.median(seconds for seconds, _ in took))
            every += [1e3 * seconds for seconds, _ in took]
            stages += [timing for _, timing in took]
        connection.close()
        name = f"{kind}-{what}"
        low, middle, high = statistics.quantiles(rounds, n=4, method="inclusive")
        p99 = sorted(every)[int(0.99 * (len(every) - 1))]
        spent = ", ".join(f"{k} {statistics.median(s[k] for s in stages):.2f}" for k in ("lookup", "batch", "execute"))
        print(f"{name}: p50 {middle:.1f} ms, p99 {p99:.1f} ms; {spent}")
        report.rounds[name] = [*rounds]
        report.facts[name] = {"p50_ms": middle, "p99_ms": p99}
        if what == "500":
            report.goals.append(harness.Goal(f"recommend-{name}-ms", GOAL_MS, middle, low, high, least=False))


def _body(rng: np.random.Generator, what: str) -> bytes:
    record: dict[str, Any] = {"user_id": int(rng.integers(USERS))}
    if what == "500":
        record["candidates"] = (FIRST_ITEM + rng.permutation(ITEMS)[:CANDIDATES]).tolist()
    return json.dumps(record).encode()


def _ask(connection: http.client.HTTPConnection, body: bytes) -> tuple[float, dict[str, float]]:
    """Seconds of one call, and the milliseconds of its stages."""
    began = time.perf_counter()
    connection.request("POST", "/functions/recommend", body, {"content-type": "application/json"})
    answer = connection.getresponse()
    said = answer.read()
    seconds = time.perf_counter() - began
    if answer.status != 200 or len(json.loads(said)["predictions"][0]["item_id"]) != 10:
        raise SystemExit(f"not answered: {answer.status} {said[:300]!r}")
    return seconds, parse_server_timing(answer.headers["server-timing"])


if __name__ == "__main__":
    sys.exit(main())
