"""cold-cnn: a request to a function at zero workers, to the first correct byte; a network of 108 MB of weights.

    python -m tests.bench cold-cnn [--rounds 7] [--starts 3] [--peers litserve,kserve]

The function takes a small picture, 64 x 64, so that opening the model is most of what there is to do; its files are in
the page cache. The floor forks a process that has imported ONNX Runtime, opens the model as it was optimised for this
machine beforehand, and runs it once. Other servers are started to their first answer, with the pixels as numbers.
"""

import argparse
import json
import statistics
import sys
import tempfile
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from tests.bench import cold, harness
from tests.bench.models import image_bundle, large_network
from tests.engine_fixture import Engine

from sunup.bundle.store import Store
from sunup.settings import PICTURES, TAKES
from sunup.types import ImageSpec

SIZE = 64
PACKAGES = ("httptools", "msgspec", "numpy", "onnxruntime", "pillow", "uvloop")


def main() -> int:
    parser = argparse.ArgumentParser(description="request at zero workers to first correct byte, 108 MB network")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--peers", default="litserve,kserve")
    options = parser.parse_args()
    images = np.random.default_rng(5).integers(0, 256, (8, SIZE, SIZE, 3), np.uint8)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = folder / "model.onnx"
        model.write_bytes(large_network(SIZE))
        with harness.local_engine(folder / "p") as engine:
            report = _measure(engine, model, images, options.rounds, options.starts)
        pixels = images[0].tolist()
        firsts = {"litserve": {"image": pixels}, "kserve": {"instances": [pixels]}}
        asked = {name: json.dumps(firsts[name]).encode() for name in filter(None, options.peers.split(","))}
        cold.start_peers(asked, folder, report, "cold-cnn-peers", 10.0)
    return report.finish(PACKAGES)


def _measure(
    engine: Engine, model: Path, images: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]", rounds: int, starts: int
) -> harness.Report:
    spec = ImageSpec("image", (SIZE, SIZE))
    digest = image_bundle(Store(engine.project.bundles), model.read_bytes(), spec, scale=cold.SHORT)
    engine.deploy("score", digest, settings={TAKES: PICTURES}, on_event=lambda _: None)
    pictures = [_png(image) for image in images]
    cold.start(engine, "score", pictures[0], kind="image/png")  # the nursery imports Pillow for the first of its kind
    ours: list[list[float]] = []
    floor: list[list[float]] = []
    stages: list[dict[str, float]] = []
    for _ in range(rounds):
        took = [cold.start(engine, "score", pictures[i % 8], kind="image/png") for i in range(starts)]
        ours.append([seconds for seconds, _ in took])
        stages += [stage for _, stage in took]
        floor.append(harness.run_floor("fork_network", model, images, starts))
    p50 = statistics.median(s for each in ours for s in each)
    bare = statistics.median(s for each in floor for s in each)
    print(f"{rounds * starts} starts: p50 {1e3 * p50:.1f} ms; floor p50 {1e3 * bare:.1f} ms")
    middle = {k: round(statistics.median(one.get(k, 0.0) for one in stages), 2) for k in stages[0]}
    print("median stages, ms: " + ", ".join(f"{k} {v}" for k, v in middle.items()))
    medians = [statistics.median(each) for each in ours], [statistics.median(each) for each in floor]
    return harness.Report(
        "cold-cnn",
        {"sunup": list(ours), "fork_network": list(floor)},
        [harness.ratio_goal("cold-cnn-floor", 1.3, *medians, least=False)],
        {"p50_ms": 1e3 * p50, "floor_ms": 1e3 * bare, "stages_ms": middle},
    )


def _png(image: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]") -> bytes:
    file = BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


if __name__ == "__main__":
    sys.exit(main())
