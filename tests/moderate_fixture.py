"""A project with `moderate` trained a little, registered and deployed, once per test session; and pictures for it."""

import http.client
import os
import shutil
import subprocess
import sys
import warnings
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
from tests.engine_fixture import Answer, Engine
from tests.fraud_fixture import ROOT
from tests.pictures import encoded
from tests.service.test_cli import platform

from functions.moderate.pictures import LABELS, Studio
from sunup.bundle.declare.file import read as read_spec
from sunup.types import ImageSpec
from sunup.wire.image.pixels import pixels

TRAINING = ("--pictures", "1500", "--epochs", "3")  # a few seconds; what it is worth is tested elsewhere
CLOSE = 1e-6


@dataclass(frozen=True)
class Served:
    """The engine, what the training printed, and the registered graph to compare with."""

    engine: Engine
    printed: str
    session: Any
    image: ImageSpec

    def expected(self, picture: bytes) -> dict[str, Any]:
        """The answer, by hand."""
        tensor = pixels(picture, self.image)[None]
        scores = self.session.run(["probability"], {"image": tensor})[0][0].astype(float)
        return {**dict(zip(LABELS, scores, strict=True)), "decision": "allow" if scores[0] > 0.5 else "review"}

    def check(self, answers: Sequence[Any], pictures: Sequence[bytes]) -> None:
        assert len(answers) == len(pictures)
        for answer, picture in zip(answers, pictures, strict=True):
            wanted = self.expected(picture)
            assert answer["decision"] == wanted["decision"]
            assert [answer[label] for label in LABELS] == pytest.approx([wanted[label] for label in LABELS], abs=CLOSE)

    def post(self, body: bytes, kind: str = "image/jpeg", target: str = "/functions/moderate") -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.engine.port, timeout=20)
        connection.request("POST", target, body, {"content-type": kind})
        response = connection.getresponse()
        answer = Answer(response.status, dict(response.getheaders()), response.read())
        connection.close()
        return answer


def train(root: Path, *arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    environment["OPENBLAS_NUM_THREADS"] = "1"  # several only wait for each other where others use the cores, too
    command = [sys.executable, "-m", "functions.moderate.train", *arguments]
    ran = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.fixture(scope="session")
def moderate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("moderate") / "p"
    shutil.copytree(ROOT / "functions" / "moderate", root / "functions" / "moderate")
    declared = root / "functions" / "moderate" / "function.toml"
    declared.write_text(declared.read_text().replace('idle = "30s"', 'idle = "2s"'))
    printed = train(root, *TRAINING)
    engine = Engine(root)
    engine.up()
    platform(root, "deploy", "moderate", "--json", KAFKA_BOOTSTRAP="").json  # noqa: B018  # fails if it failed
    (folder,) = {path.parent for path in engine.project.artifacts.rglob("MLmodel")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of importing MLflow and what it imports: theirs
        import mlflow.onnx  # seconds, which other tests of this folder do not wait for
    graph = mlflow.onnx.load_model(str(folder)).SerializeToString()
    image = read_spec(declared).image
    assert image is not None
    yield Served(engine, printed, onnxruntime.InferenceSession(graph), image)
    platform(root, "down")


@pytest.fixture(scope="session")
def moderate_pictures() -> list[bytes]:
    """A held-out picture of each kind and format, some of them large."""
    studio = Studio("heldout", seed=1)
    made = [studio.picture(label, size) for size in (64, 700) for label in LABELS]
    formats = ("JPEG", "PNG", "WEBP")
    return [encoded(picture, formats[at % 3], quality=90) for at, picture in enumerate(made)]


def in_base64(picture: bytes) -> str:
    return b64encode(picture).decode()
