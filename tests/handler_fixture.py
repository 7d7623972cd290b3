"""A function with code of its own: its folder, small wheels it may require, and a process that serves it."""

import base64
import hashlib
import json
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from sklearn.linear_model import LogisticRegression
from tests.models import fields_of, save, table

from sunup.bundle.declare.file import parse
from sunup.bundle.handler.source import read_handler
from sunup.bundle.pack import SourceModel, pack
from sunup.bundle.packager import Packager
from sunup.bundle.store import Store
from sunup.errors import ConversionRefused, UsageError

FRAME, LABELS = table(columns=3, classes=2)
REQUEST = """
[request]
a = "float64"
b = "float64"
word = "string"
"""
BOTH = """
import numpy as np
from tinywords import length


def preprocess(rows):
    return {"c0": rows["a"], "c1": rows["b"] * 2, "c2": np.array([float(length(w)) for w in rows["word"]])}


def postprocess(rows, outputs):
    sure = outputs["probability"].max(axis=1)
    return {"sure": sure, "word": rows["word"], "label": outputs["label"], "pair": outputs["probability"]}
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> SourceModel:
    folder = tmp_path_factory.mktemp("registry") / "words"
    flavor = save(LogisticRegression().fit(FRAME, LABELS), FRAME, folder)
    return SourceModel("words", "1", "run", flavor, folder, fields_of(FRAME))


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two small wheels: tinywords 1.0, and oldnumpy 1.0, which wants an old numpy."""
    folder = tmp_path_factory.mktemp("wheels")
    wheel(folder, "tinywords", "def length(word):\n    return len(word)\n")
    wheel(folder, "oldnumpy", "", requires="numpy<1.20")
    return folder


def wheel(folder: Path, name: str, code: str, requires: str = "") -> None:
    about = f"{name}-1.0.dist-info"
    needs = f"Requires-Dist: {requires}\n" if requires else ""
    files = {
        f"{name}/__init__.py": code,
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{needs}",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = [f"{path},sha256={_hash(text)},{len(text)}" for path, text in files.items()]
    files[f"{about}/RECORD"] = "\n".join([*lines, f"{about}/RECORD,,", ""])
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)


def _hash(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


class Place:
    """A function's folder and a store, to pack from and into."""

    def __init__(self, root: Path, model: SourceModel, packager: Packager, wheels: Path) -> None:
        self.folder = root / "functions" / "words"
        self.folder.mkdir(parents=True)
        self.store = Store(root / "bundles")
        self._model, self._packager, self._wheels = model, packager, wheels

    def write(self, code: str, requirements: Sequence[str] = (), examples: Sequence[Any] = ()) -> None:
        (self.folder / "handler.py").write_text(code)
        (self.folder / "requirements.txt").unlink(missing_ok=True)
        (self.folder / "examples.json").unlink(missing_ok=True)
        if requirements:
            lines = ["--no-index", f"--find-links {self._wheels}", *requirements, ""]
            (self.folder / "requirements.txt").write_text("\n".join(lines))
        if examples:
            (self.folder / "examples.json").write_text(json.dumps(examples))

    def pack(self, request: str = REQUEST, store: Store | None = None) -> str:
        spec = parse(request, source="function.toml", name="words")
        handler = read_handler(self.folder)
        return pack(store or self.store, spec=spec, model=self._model, packager=self._packager, handler=handler)

    def refused(self, code: str, *requirements: str, request: str = "") -> str:
        self.write(code, requirements)
        with pytest.raises((ConversionRefused, UsageError)) as caught:
            self.pack(request)
        assert "\n" not in caught.value.message
        assert self.store.list() == []
        return caught.value.message


@pytest.fixture
def place(tmp_path: Path, model: SourceModel, packager: Packager, wheels: Path) -> Place:
    return Place(tmp_path, model, packager, wheels)


ANSWERING = """
import asyncio, json, sys
from math import inf
from pathlib import Path
from time import monotonic
from sunup.errors import CallError
from sunup.function import load
from sunup.pipeline import Pipeline

import logging
logs = []
class Keep(logging.Handler):
    def emit(self, record):
        logs.append([record.id, self.format(record)])
logging.getLogger().addHandler(Keep())

async def ask(bodies, seconds):
    function = load(Path(sys.argv[1]), settings={}, prove=True)
    pipeline, codec = Pipeline(function), function.record_codec(1)
    answers = []
    for body in bodies:
        try:
            call = codec.decode(json.dumps(body).encode(), id="call-7", deadline=monotonic() + seconds)
            assert not pipeline.takes_now(call)
            answers.append(json.loads(codec.encode(await pipeline.answer(call)))["predictions"])
        except CallError as error:
            answers.append([error.status, error.code, error.message])
    print(json.dumps([answers, logs, [p for p in sys.path if "bundles" in p], sys.dont_write_bytecode]))
    sys.stdout.flush()
    import os
    os._exit(0)  # a hook that never returns holds its thread

asyncio.run(ask(json.loads(sys.argv[2]), float(sys.argv[3])))
"""


def answers(folder: Path, *bodies: Any, seconds: float = 30.0) -> Any:
    """What a process that serves this bundle and nothing else answers, what it logs, and what it finds."""
    words = [sys.executable, "-P", "-c", ANSWERING, str(folder), json.dumps(bodies), str(seconds)]
    ran = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)
