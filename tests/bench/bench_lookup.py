"""lookup: the features of one row, 3 views of 50, and of 500 candidates; Sunup, Feast and reads by hand on one store.

    python -m tests.bench lookup [--rounds 7] [--seconds 1] [--stores redis,sqlite,postgres]

The store is a real Feast repository, applied and filled by Feast. Every subject is a process of its own on the server
core, started once, and asked the same questions one after the other; a round is the median of its calls. The same
answers are checked first. The store is on that core too: on the other one, each read would also measure how long a core
that has nothing else to do takes to wake up, on a virtual machine as long as the read and never twice the same. Who
calls over HTTP is on the other core.

Compared is what a program that scores waits until it has the values: for Sunup `Lookup.read` (`read_now` on SQLite) in
the worker; for the SDK `get_online_features(...).to_dict()` in process; for `feast serve` one request on a kept
connection until its JSON is decoded, as that is how a program gets features from it. As one may object that this sets
a call in process against one over HTTP, there is a stricter line too, `call`: a whole call to a Sunup function through
the door, features, model run and reply, against the request to `feast serve`, which only fetches the features.

500 candidates: one call of 500 rows, 20 features of each item and 20 of the user, against 501 HMGETs made up
beforehand, written at once and parsed but not decoded (elsewhere: one prepared statement, not decoded); the SDK is
measured for information.
"""

import math
import os
import statistics
import sys
import tempfile
from argparse import Namespace
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from feast import FeatureStore
from tests.bench import harness
from tests.bench.feature_repo import Views, applied, entity, fill
from tests.bench.lookup.data import ITEMS, PROJECT, SERVICES, TTL_S, USERS, columns, features, value
from tests.bench.lookup.ours import REQUEST
from tests.bench.lookup.running import Subject, feast_serve
from tests.bench.lookup.stores import STORES, Store
from tests.small_bundle import logistic, make_bundle

from sunup.lookup.compile.service import compile_service
from sunup.lookup.plan import dump
from sunup.types import Field

CHECKED = {"one": 64, "many": 4}
DEADLINE_MS = 1000.0  # nobody else here has one, and this bench ends when a read of ours gives defaults
PACKAGES = ("feast", "hiredis", "httptools", "msgspec", "psycopg", "redis", "uvloop")


def main() -> int:
    options = harness.options("microseconds of a lookup, side by side", rounds=7, seconds=1, stores=",".join(STORES))
    # A long call loses its turn on a busy machine and a short one does not: ratios to Feast are for a machine at rest.
    report = harness.Report("lookup", facts={"load": os.getloadavg()})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind in options.stores.split(","):
            with STORES[kind](folder) as store, ExitStack() as stack:
                _measure(kind, _started(stack, store, folder / kind), options, report)
    return report.finish(PACKAGES)


def _started(stack: ExitStack, store: Store, folder: Path) -> dict[str, Subject]:
    """The repository made and filled, and every subject on it."""
    user, item = entity("user_id", "INT64"), entity("item_no", "INT32")
    of = {"user_id": user, "item_no": item}
    views: Views = {view: (of[key], features(view)) for each in SERVICES.values() for view, key in each}
    chosen = {service: [view for view, _ in each] for service, each in SERVICES.items()}
    repository = applied(folder, store.online_store, views, chosen, project=PROJECT, ttl_s=TTL_S)
    fill(repository, views, {"user_id": USERS, "item_no": ITEMS}, value)
    url = _plans(repository, folder)
    subjects = {
        "sunup": Subject("lookup.ours", folder, url),
        "floor": Subject(store.floor, url),
        "feast sdk": Subject("lookup.feast_sdk", folder),
        "feast serve": Subject(
            "lookup.over_http", "feast", stack.enter_context(feast_serve(folder)), core=harness.LOAD_CORE
        ),
        "sunup call": Subject("lookup.over_http", "function", _function(stack, folder, url), core=harness.LOAD_CORE),
    }
    for subject in subjects.values():
        stack.callback(subject.close)
    return subjects


def _plans(repository: FeatureStore, folder: Path) -> str:
    """Write the read plan of each service; the features URL."""
    for service, request in REQUEST.items():
        plan, url, *_ = compile_service(
            folder, service, request=request, defaults={}, max_age={}, deadline_ms=DEADLINE_MS, on_missing="default"
        )
        if [column.name for column in plan.columns] != list(columns(service)):
            raise SystemExit(f"the plan of {service} has other columns than {repository.project}'s data.py says")
        (folder / f"{service}.json").write_bytes(dump(plan))
    return url


def _function(stack: ExitStack, folder: Path, url: str) -> str:
    """Where an engine on the server core answers calls of a function with all features of `one`, the least model of
    the reals among them, and a user as its request."""
    engine = stack.enter_context(harness.local_engine(folder / "p"))
    reals = _reals()
    rows = np.zeros((4, len(reals)))
    digest = make_bundle(
        engine.project.bundles,
        logistic(len(reals)),
        rows,
        request=(Field("user_id", "int64"),),
        features=(folder / "one.json").read_bytes(),
        names=tuple(reals),
    )
    deployed = engine.deploy("score", digest, settings={"features_url": url}, on_event=lambda _: None)
    harness.pin(engine.pids().values(), harness.SERVER_CORE)
    return str(deployed["url"])


def _reals() -> list[str]:
    return [name for name, kind in columns("one").items() if kind == "Float64"]


def _measure(kind: str, subjects: Mapping[str, Subject], options: Namespace, report: harness.Report) -> None:
    """Check the answers, measure in turn, print, set the goals."""
    _check_answers(subjects)
    for service in SERVICES:
        asked = {name: subject for name, subject in subjects.items() if service in subject.services}
        if service == "many":
            del asked["feast serve"]
        took: dict[str, list[dict[str, float]]] = {name: [] for name in asked}
        for number in range(options.rounds + 1):
            for name, subject in asked.items():
                measured = subject.timed(service, options.seconds if number else 0.3)
                took[name] += [measured] if number else []
        us = {name: [each["us"] for each in rounds] for name, rounds in took.items()}
        for name, rounds in took.items():
            report.rounds[f"{kind} {service} {name}"] = [*rounds]
            p99 = statistics.median(each["p99_us"] for each in rounds)
            print(f"{kind:10}{service:6}{name:14}{statistics.median(us[name]):10,.0f} us   p99 {p99:10,.0f} us")
        report.goals += _goals(kind, us) if service == "one" else [
            harness.ratio_goal(f"lookup-{kind}-500", 3.0, us["sunup"], us["floor"], least=False)
        ]  # fmt: skip


def _goals(kind: str, us: Mapping[str, list[float]]) -> list[harness.Goal]:
    return [
        harness.ratio_goal(f"lookup-{kind}-floor", 1.5, us["sunup"], us["floor"], least=False),
        harness.ratio_goal(f"lookup-{kind}-feast-sdk", 10.0, us["feast sdk"], us["sunup"]),
        harness.ratio_goal(f"lookup-{kind}-feast-serve", 20.0, us["feast serve"], us["sunup"]),
        harness.ratio_goal(f"lookup-{kind}-call-feast-serve", 20.0, us["feast serve"], us["sunup call"]),
    ]


def _check_answers(subjects: Mapping[str, Subject]) -> None:
    """Every subject gives the same values; the function's score is that of these values."""
    for service, count in CHECKED.items():
        right = subjects["feast sdk"].rows(service, count)
        for name, subject in subjects.items():
            if service in subject.services and name != "sunup call" and subject.rows(service, count) != right:
                raise SystemExit(f"{name} disagrees with Feast's SDK about {service}")
    reals = [list(columns("one")).index(name) for name in _reals()]
    for (row,), ((score,),) in zip(
        subjects["feast sdk"].rows("one", CHECKED["one"]),
        subjects["sunup call"].rows("one", CHECKED["one"]),
        strict=True,
    ):
        if not math.isclose(score, 1 / (1 + math.exp(-sum(row[at] for at in reals))), abs_tol=1e-9):
            raise SystemExit(f"the function scores {score}, not what its features say")


if __name__ == "__main__":
    sys.exit(main())
