"""warm-features: as warm-rest, with twenty of the thirty features in two Feast views on a real Redis server.

    python -m tests.bench warm-features [--rounds 11] [--seconds 2]

The floor is one hand-written process that reads the same two hashes directly; the peer is its app on Starlette with
Feast's SDK. The repository is a real one, applied, filled and compiled to the read plan by Feast.
"""

import json
import random
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.bench import harness
from tests.bench.feature_data import PROJECT, SERVICE, TTL_S, VIEWS
from tests.bench.feature_repo import Views, applied, entity, fill
from tests.bench.models import rows, tree_model
from tests.redis_fixture import RedisServer
from tests.small_bundle import make_bundle

from sunup.lookup.compile.service import compile_service
from sunup.lookup.plan import ReadPlan, dump
from sunup.types import Field

KEYS = 1000  # cards and merchants in the store
BODIES = 256
PACKAGES = (
    "feast",
    "hiredis",
    "httptools",
    "msgspec",
    "numpy",
    "onnxruntime",
    "redis",
    "starlette",
    "uvicorn",
    "uvloop",
)
REQUEST = tuple(Field(name, "int64") for name in ("card_id", "merchant_id")) + tuple(
    Field(f"f{i}", "float64") for i in range(10)
)


def main() -> int:
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        model = folder / "model.onnx"
        model.write_bytes(tree_model())
        redis = RedisServer(folder)
        redis.start()
        stack.callback(redis.stop)
        plan = _repository(folder / "feast", redis)
        engine = stack.enter_context(harness.local_engine(folder / "p"))
        digest = make_bundle(
            engine.project.bundles,
            model.read_bytes(),
            rows(8, seed=3),
            dtype="float32",
            request=REQUEST,
            features=dump(plan),
        )
        deployed = engine.deploy("score", digest, settings={"features_url": redis.url}, on_event=lambda _: None)
        harness.pin(engine.pids().values(), harness.SERVER_CORE)
        subjects = {"sunup": deployed["url"]}
        others = {"floor.features_direct": redis.url, "peers.feast_app": folder / "feast"}
        for module, store in others.items():
            base = stack.enter_context(harness.server(f"tests.bench.{module}", model, store))
            subjects[module.partition(".")[2]] = f"{base}/functions/score"
        bodies = _bodies()
        _check_answers(subjects, bodies)
        goals = {"warm-features-direct": (0.9, "features_direct"), "warm-features-feast-sdk": (8.0, "feast_app")}
        options = harness.options("requests per second, side by side", rounds=11, seconds=2)
        report = harness.compare("warm-features", subjects, harness.Wrk(folder, bodies), goals, options)
    return report.finish(PACKAGES)


def _repository(folder: Path, redis: RedisServer) -> ReadPlan:
    """Both views in Redis, with normal random features, and their read plan for REQUEST."""
    views: Views = {view: (entity(key, "INT64"), dict.fromkeys(names, "Float64")) for key, view, names in VIEWS}
    online_store = f'{{type: redis, connection_string: "127.0.0.1:{redis.port}"}}'
    store = applied(folder, online_store, views, {SERVICE: [*views]}, project=PROJECT, ttl_s=TTL_S)
    fill(store, views, {key: KEYS for key, _, _ in VIEWS}, lambda _, rng: rng.gauss(0, 1))
    plan, *_ = compile_service(
        folder, SERVICE, request=REQUEST, defaults={}, max_age={}, deadline_ms=20, on_missing="default"
    )
    return plan


def _bodies() -> list[bytes]:
    rng = random.Random(11)
    keys = [{"card_id": rng.randrange(KEYS), "merchant_id": rng.randrange(KEYS)} for _ in range(BODIES)]
    own = rows(BODIES)[:, :10].tolist()
    return [json.dumps({**k, **{f"f{i}": v for i, v in enumerate(f)}}).encode() for k, f in zip(keys, own, strict=True)]


def _check_answers(subjects: dict[str, str], bodies: list[bytes]) -> None:
    """All subjects give the same predictions, to float32, and ours needed no default."""
    for body in bodies[:64]:
        ours, *others = (harness.post_json(url, body)["predictions"][0] for url in subjects.values())
        same = all(abs(ours["score"] - other["score"]) <= 1e-6 for other in others)
        if not same or "defaulted" in ours or "stale" in ours:
            raise SystemExit(f"the subjects disagree: {ours}, {others}")


if __name__ == "__main__":
    sys.exit(main())
