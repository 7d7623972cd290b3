"""warm-rest: one-row JSON, 30 features, LightGBM of 200 trees, keep-alive; against two hand-written floors.

    python -m tests.bench warm-rest [--rounds 11] [--seconds 2]

Ours is the whole local engine: connections come through the door. All of its processes share the server core.
"""

import json
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.bench import harness
from tests.bench.models import rows, tree_model
from tests.small_bundle import make_bundle

BODIES = 64  # different rows in turn, so that no cache of one answer helps anybody
PACKAGES = ("httptools", "msgspec", "numpy", "onnxruntime", "starlette", "uvicorn", "uvloop")


def main() -> int:
    bodies = [json.dumps({f"f{i}": v for i, v in enumerate(row)}).encode() for row in rows(BODIES).tolist()]
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        model = folder / "model.onnx"
        model.write_bytes(tree_model())
        engine = stack.enter_context(harness.local_engine(folder / "p"))
        digest = make_bundle(engine.project.bundles, model.read_bytes(), rows(8, seed=3), dtype="float32")
        subjects = {"sunup": engine.deploy("score", digest, settings={}, on_event=lambda _: None)["url"]}
        harness.pin(engine.pids().values(), harness.SERVER_CORE)
        for floor in ("raw_asgi", "starlette_app"):
            base = stack.enter_context(harness.server(f"tests.bench.floor.{floor}", model))
            subjects[floor] = f"{base}/functions/score"
        _check_answers(subjects, bodies)
        goals = {"warm-rest-starlette": (0.85, "starlette_app"), "warm-rest-raw": (0.65, "raw_asgi")}
        report = harness.compare("warm-rest", subjects, harness.Wrk(folder, bodies), goals)
    return report.finish(PACKAGES)


def _check_answers(subjects: dict[str, str], bodies: list[bytes]) -> None:
    """Every subject gives the same predictions, to float32."""
    for body in bodies:
        answers = [harness.post_json(url, body)["predictions"][0] for url in subjects.values()]
        for answer in answers[1:]:
            if abs(answer["score"] - answers[0]["score"]) > 1e-6 or answer["decision"] != answers[0]["decision"]:
                raise SystemExit(f"the subjects disagree: {answers}")


if __name__ == "__main__":
    sys.exit(main())
