"""warm-features: as warm-rest, with twenty of the thirty features in two Feast views on a real Redis server.

    python -m tests.bench warm-features [--rounds 11] [--seconds 2]

The floor is one hand-written process that reads the same two hashes directly.
"""

import json
import random
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.bench import harness
from tests.bench.feature_data import fill, plan
from tests.bench.models import rows, tree_model
from tests.redis_fixture import RedisServer
from tests.small_bundle import make_bundle

from sunup.lookup.plan import dump
from sunup.types import Field

KEYS = 1000  # cards and merchants in the store
BODIES = 256
PACKAGES = ("hiredis", "httptools", "msgspec", "numpy", "onnxruntime", "starlette", "uvicorn", "uvloop")
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
        fill(redis.url, KEYS)
        engine = stack.enter_context(harness.local_engine(folder / "p"))
        digest = make_bundle(
            engine.project.bundles,
            model.read_bytes(),
            rows(8, seed=3),
            dtype="float32",
            request=REQUEST,
            features=dump(plan()),
        )
        deployed = engine.deploy("score", digest, settings={"features_url": redis.url}, on_event=lambda _: None)
        harness.pin(engine.pids().values(), harness.SERVER_CORE)
        floor = harness.server("tests.bench.floor.features_direct", model, redis.url)
        base = stack.enter_context(floor)
        subjects = {"sunup": deployed["url"], "features_direct": f"{base}/functions/score"}
        bodies = _bodies()
        _check_answers(subjects, bodies)
        goals = {"warm-features-direct": (0.8, "features_direct")}
        options = harness.options("requests per second, side by side", rounds=11, seconds=2)
        report = harness.compare("warm-features", subjects, harness.Wrk(folder, bodies), goals, options)
    return report.finish(PACKAGES)


def _bodies() -> list[bytes]:
    rng = random.Random(11)
    keys = [{"card_id": rng.randrange(KEYS), "merchant_id": rng.randrange(KEYS)} for _ in range(BODIES)]
    own = rows(BODIES)[:, :10].tolist()
    return [json.dumps({**k, **{f"f{i}": v for i, v in enumerate(f)}}).encode() for k, f in zip(keys, own, strict=True)]


def _check_answers(subjects: dict[str, str], bodies: list[bytes]) -> None:
    """Both subjects give the same predictions, to float32, and ours needed no default."""
    for body in bodies[:64]:
        ours, floor = (harness.post_json(url, body)["predictions"][0] for url in subjects.values())
        if abs(ours["score"] - floor["score"]) > 1e-6 or "defaulted" in ours or "stale" in ours:
            raise SystemExit(f"the subjects disagree: {ours}, {floor}")


if __name__ == "__main__":
    sys.exit(main())
