"""A local engine in a folder of its own, and real bundles of a model small enough to read: answer = x * factor."""

import http.client
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tests.ports import free_port

from sunup.bundle.manifest import FORMAT, HandlerSpec, Limits, Manifest, Model, Scale, StreamSpec
from sunup.bundle.store import Store, digest_file
from sunup.engine.access import Rules
from sunup.engine.local.client import EVERYBODY_HERE, LocalEngine
from sunup.settings import STREAM_BROKER, Project
from sunup.types import Field, ResponseField, Tensor

PATIENCE_SECONDS = 20.0
SCALE = Scale()
LIMITS = Limits()


def times_model(factor: float) -> bytes:
    """y[n, 1] = x[n, 1] * factor, in float64."""
    value = helper.make_tensor("factor", TensorProto.DOUBLE, [1], [factor])
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        "times",
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, [None, 1])],
        [helper.make_tensor_value_info("y", TensorProto.DOUBLE, [None, 1])],
        [value],
    )
    opset = [helper.make_opsetid("", 18)]
    model: bytes = helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()
    onnx.checker.check_model(onnx.load_from_string(model))
    return model


class Engine(LocalEngine):
    """The engine of one temporary project, and what tests do with it."""

    def __init__(self, root: Path) -> None:
        (root / "functions").mkdir(parents=True, exist_ok=True)
        self.project = Project(root)
        self.port = free_port()
        self.metrics_port = free_port()
        super().__init__(self.project)

    def up(self, rules: Rules = EVERYBODY_HERE, host: str = "127.0.0.1") -> dict[str, Any]:
        return self.start(host, self.port, self.metrics_port, rules)

    def bundle(
        self,
        name: str,
        factor: float,
        *,
        scale: Scale = SCALE,
        limits: Limits = LIMITS,
        claim: float | None = None,
        stream: StreamSpec | None = None,
        handler: str = "",
        unused: Sequence[Field] = (),
        aggregates: Sequence[str] = (),
    ) -> str:
        """A bundle in the store. `claim`: the factor its recorded answers have, when they are to be wrong; `handler`:
        the code of a handler.py with preprocess; `unused`: fields of a request beside x; `aggregates`: see Manifest."""
        store = Store(self.project.bundles)
        rows = np.array([[1.0], [2.0], [-3.5]])
        with store.stage() as folder:
            (folder / "model.onnx").write_bytes(times_model(factor))
            expected = rows * (factor if claim is None else claim)
            arrays: dict[str, Any] = {"in:x": rows, "out:y": expected}
            np.savez(folder / "warmup.npz", **arrays)
            (folder / "parity.json").write_bytes(b"{}")
            response = (ResponseField("y", "float64", output="y", column=0),)
            if handler:
                (folder / "handler.py").write_text(handler)
            manifest = Manifest(
                format=FORMAT,
                sunup="test",
                function=name,
                model=Model(name, "1", "run", "onnx"),
                request=(Field("x", "float64"), *unused),
                inputs=(Tensor("x", "float64", (-1, 1), ("x",)),),
                outputs=(Tensor("y", "float64", (-1, 1)),),
                response=response,
                tolerance=1e-9,
                scale=scale,
                limits=limits,
                example={"x": 2.0},
                files={path.name: digest_file(path) for path in sorted(folder.iterdir())},
                stream=stream,
                handler=HandlerSpec(("preprocess",), response) if handler else None,
                aggregates=tuple(aggregates),
            )
            (folder / "manifest.json").write_bytes(msgspec.json.encode(manifest))
            return store.add(folder)

    def serve(
        self, name: str, factor: float, *, settings: Mapping[str, str] | None = None, **more: Any
    ) -> dict[str, Any]:
        """Bundle and deploy. A stream's `broker` must be an address or "embedded"."""
        stream = more.get("stream")
        given = {**({STREAM_BROKER: stream.broker} if stream else {}), **(settings or {})}
        return self.deploy(name, self.bundle(name, factor, **more), settings=given, on_event=lambda _: None)

    def open(self) -> http.client.HTTPConnection:
        """A connection to the door."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)

    def call(self, name: str, x: float, connection: http.client.HTTPConnection | None = None) -> "Answer":
        """One native prediction."""
        return self.ask("POST", f"/functions/{name}", json.dumps({"x": x}).encode(), connection)

    def ask(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        connection: http.client.HTTPConnection | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> "Answer":
        """One request, on a connection of its own unless one is given."""
        used = connection or self.open()
        kind = {"content-type": "application/json"} if body else {}
        try:
            used.request(method, target, body or None, {**kind, **(headers or {})})
            response = used.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read())
        finally:
            if connection is None:
                used.close()

    def pids(self) -> dict[str, int]:
        """Process ids by role; workers under their function's name."""
        status = self.status(None)
        pids = {p["role"]: p["pid"] for p in status["engine"]["processes"]}
        for function in status["functions"]:
            for worker in function["workers"]:
                pids[function["name"]] = worker["pid"]
        return pids

    def at_zero(self, name: str) -> bool:
        """Whether a function has no worker."""
        return not self.status(name)["functions"][0]["workers"]


class Answer:
    """A response."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = {name.lower(): value for name, value in headers.items()}
        self.body = body

    def __repr__(self) -> str:
        return f"Answer({self.status}, {self.body[:200]!r})"

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def y(self) -> float:
        """The prediction of a bundle made here."""
        assert self.status == 200, self
        value: float = self.json["predictions"][0]["y"]
        return value


def until(condition: Callable[[], bool], what: str, seconds: float = PATIENCE_SECONDS) -> float:
    """Poll until `condition` holds; how long that took. Fails after `seconds`."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds, f"waited {seconds:g} s for {what}"
        time.sleep(0.02)
    return time.monotonic() - begun


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """A running engine; everything it started is gone at the end."""
    engine = Engine(tmp_path / "p")
    engine.up()
    yield engine
    if engine.running() is None:
        engine.up()  # what a test killed is adopted, so that it can be ended in order
    engine.down()
    assert left(engine) == []


def left(engine: Engine) -> list[str]:
    """The command lines of its processes that there are."""
    return [command for command in _processes() if str(engine.project.run) in command]


def _processes() -> list[str]:
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                found.append(Path(f"/proc/{entry}/cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue  # it ended meanwhile
    return found
