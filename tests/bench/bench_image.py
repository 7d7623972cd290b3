"""image: a 4-megapixel JPEG -> 224 x 224 -> a small CNN -> answer; against Pillow's defaults, a floor and LitServe.

    python -m tests.bench image [--rounds 7] [--seconds 4]

Pre-processing is measured in this process: ours against open, convert, resize (Lanczos) at full scale and normalise
with numpy. Our tensor is uint8 and the graph normalises it, which is part of what is measured end to end. There, ours
is the whole local engine; the floor does the scaled decode by hand without any guard; LitServe, in an environment of
its own, is as its documentation writes an image API, and once more with the scaled decode, which has no goal.
Processor time per call is recorded, too: where others use the machine, a server of several processes gets more of its
core than one of one.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import numpy as np
import psutil
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_images
from tests.bench import harness
from tests.bench.models import image_bundle, image_model
from tests.bench.peers.peers import end, environment
from tests.ports import free_port

from sunup.bundle.store import Store
from sunup.types import ImageSpec
from sunup.wire.image.pixels import pixels

SIZE = 224
WIDTH, HEIGHT = 2464, 1648  # 4.06 megapixels
PICTURES = 6
SPEC = ImageSpec("image", (SIZE, SIZE))
PEERS = Path(__file__).parent / "peers"
PACKAGES = ("httptools", "msgspec", "numpy", "onnxruntime", "pillow", "uvicorn", "uvloop")
MEAN, SPREAD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)


class Post(harness.Wrk):
    """wrk posting files in turn."""

    def __init__(self, folder: Path, bodies: list[bytes], kind: str) -> None:
        super().__init__(folder, [])
        self._script = folder / f"post-{kind.replace('/', '-')}.lua"
        for at, body in enumerate(bodies):
            (folder / f"{at}-{self._script.stem}").write_bytes(body)
        self._script.write_text(
            f'local ready, turn = {{}}, 0\nfunction init()\n  wrk.headers["content-type"] = "{kind}"\n'
            f"  for i = 0, {len(bodies) - 1} do\n"
            f'    local file = io.open("{folder}/" .. i .. "-{self._script.stem}", "rb")\n'
            '    ready[i] = wrk.format("POST", nil, nil, file:read("*all"))\n    file:close()\n  end\nend\n'
            f"function request()\n  turn = (turn + 1) % {len(bodies)}\n  return ready[turn]\nend\n"
        )


def jpegs() -> list[bytes]:
    """Different pictures, as a camera would write them."""
    made = []
    for at in range(PICTURES):
        photograph = Image.fromarray(load_sample_images().images[at % 2])
        large = photograph.rotate(at * 3).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        file = BytesIO()
        large.save(file, "JPEG", quality=88)
        made.append(file.getvalue())
    return made


def by_default(data: bytes) -> NDArray[np.float32]:
    """What most services do: everything at full scale."""
    image = Image.open(BytesIO(data)).convert("RGB")
    scale = SIZE / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    left, top = (image.width - SIZE) // 2, (image.height - SIZE) // 2
    array = np.asarray(image.crop((left, top, left + SIZE, top + SIZE)), np.float32) / np.float32(255)
    return np.ascontiguousarray(((array - MEAN) / SPREAD).transpose(2, 0, 1))


def preprocessing(pictures: list[bytes], rounds: int) -> dict[str, list[float]]:
    """Pictures per second, in rounds side by side."""
    ways: dict[str, Callable[[bytes], Any]] = {"ours": lambda data: pixels(data, SPEC), "pillow": by_default}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    os.sched_setaffinity(0, {harness.LOAD_CORE})
    for _ in range(rounds):
        for name, way in ways.items():
            began = time.perf_counter()
            for data in pictures:
                way(data)
            rates[name].append(len(pictures) / (time.perf_counter() - began))
    os.sched_setaffinity(0, set(range(os.cpu_count() or 1)))
    return rates


@contextmanager
def peer(model: Path, *more: str) -> Iterator[str]:
    """LitServe with all its processes on the server core; its URL."""
    port = free_port()
    # So that every process it ever starts is on that core.
    pinned = ["taskset", "-c", str(harness.SERVER_CORE), str(environment("litserve") / "python")]
    command = [*pinned, str(PEERS / "litserve_image.py"), str(model), str(port), *more]
    given = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": "", "PYTHONWARNINGS": "ignore"}
    # What it says while it is ended in the middle of calls is not news.
    process = subprocess.Popen(
        command, env=given, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        harness.wait_for(port, process)
        yield f"http://127.0.0.1:{port}/predict"
    finally:
        end(process)


def post(url: str, body: bytes, kind: str) -> Any:
    request = urllib.request.Request(url, body, {"content-type": kind})
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)["predictions"][0]


def main() -> int:
    options = harness.options("a 4-megapixel JPEG to an answer", rounds=7, seconds=4)
    pictures = jpegs()
    asked = [json.dumps({"image": b64encode(picture).decode()}).encode() for picture in pictures]
    rates = preprocessing(pictures, options.rounds)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        model = folder / "model.onnx"
        model.write_bytes(image_model(SIZE))
        engine = stack.enter_context(harness.local_engine(folder / "p"))
        digest = image_bundle(Store(engine.project.bundles), model.read_bytes(), SPEC)
        url = engine.deploy("score", digest, settings={}, on_event=lambda _: None)["url"]
        harness.pin(engine.pids().values(), harness.SERVER_CORE)
        floor = stack.enter_context(harness.server("tests.bench.floor.image_direct", model))
        whole, inside = Post(folder, pictures, "image/jpeg"), Post(folder, asked, "application/json")
        subjects = {"sunup": (url, whole), "floor": (floor, whole)}
        for title, more in (("litserve", ()), ("litserve_scaled", ("scaled",))):
            subjects[title] = (stack.enter_context(peer(model, *more)), inside)
        _check_answers(url, floor, subjects["litserve_scaled"][0], pictures[0], asked[0])
        families = {title: _family(where) for title, (where, _) in subjects.items()}
        families["sunup"] = [psutil.Process(pid) for pid in engine.pids().values()]
        loads: dict[str, list[harness.Load]] = {title: [] for title in subjects}
        costs: dict[str, list[float]] = {title: [] for title in subjects}
        for number in range(options.rounds + 1):
            for title, (where, wrk) in subjects.items():
                before, seconds = _cpu(families[title]), options.seconds if number else 1
                load = wrk.run(where, seconds=seconds, connections=4)
                if number:
                    loads[title].append(load)
                    costs[title].append(1000 * (_cpu(families[title]) - before) / (load.rps * seconds))
    print(harness.table(loads))
    cpu = {title: round(statistics.median(cost), 2) for title, cost in costs.items()}
    print(", ".join(f"{title} {cost} ms of processor per call" for title, cost in cpu.items()))
    print(", ".join(f"{title} {1000 / statistics.median(rate):.1f} ms a picture" for title, rate in rates.items()))
    rps = {title: [load.rps for load in found] for title, found in loads.items()}
    report = harness.Report(
        "image",
        {**{title: [msgspec.to_builtins(load) for load in found] for title, found in loads.items()}, **rates},
        [
            harness.ratio_goal("image-preprocessing", 4, rates["ours"], rates["pillow"]),
            harness.ratio_goal("image-floor", 0.8, rps["sunup"], rps["floor"]),
            harness.ratio_goal("image-litserve", 2, rps["sunup"], rps["litserve"]),
        ],
        {
            "cpu_ms_per_call": cpu,
            "peer": (PEERS / "litserve.txt").read_text().splitlines()[1:],
            "jpeg_bytes": [len(p) for p in pictures],
        },
    )
    return report.finish(PACKAGES)


def _family(url: str) -> list[psutil.Process]:
    """The processes behind a URL, of those this one has started."""
    port = str(urlsplit(url).port)
    below = [p for p in psutil.Process().children(recursive=True) if p.status() != psutil.STATUS_ZOMBIE]
    (first,) = [process for process in below if port in process.cmdline()][:1]
    return [first, *first.children(recursive=True)]


def _cpu(family: list[psutil.Process]) -> float:
    """Seconds of processor a family has used: what load from elsewhere changes least."""
    return sum(sum(process.cpu_times()[:2]) for process in family)


def _check_answers(ours: str, floor: str, peer: str, picture: bytes, asked: bytes) -> None:
    """All who decode alike answer alike."""
    answers = [post(ours, picture, "image/jpeg"), post(floor, picture, "image/jpeg")]
    answers.append(post(peer, asked, "application/json"))
    for answer in answers[1:]:
        if any(abs(answer[label] - answers[0][label]) > 0.02 for label in ("fine", "text", "blank")):
            raise SystemExit(f"the subjects disagree: {answers}")


if __name__ == "__main__":
    sys.exit(main())
