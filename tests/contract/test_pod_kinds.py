"""Functions of every kind in a pod, against the local engine: pictures, ranking, code of its own, features; and what a
pod that has served has imported."""

import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from typing import Any, Final

import msgspec
import numpy as np
import pytest
from onnx import TensorProto, helper
from tests.engine_fixture import Engine
from tests.pictures import PHOTOGRAPH, encoded
from tests.pod_fixture import Pod, Start, pods
from tests.worker_modules import WORKER_MODULES

from sunup.bundle.manifest import FORMAT, HandlerSpec, Limits, Manifest, Model, Rank, Scale
from sunup.bundle.store import Store, digest_file
from sunup.types import Field, ImageSpec, ResponseField, Tensor

__all__ = ["pods"]

Y = ResponseField("y", "float64", output="y", column=0)
SIDE = 16
HANDLER = """
from threefold import three


def preprocess(rows):
    return {"x": three(rows["x"])}


def postprocess(rows, outputs):
    return {"y": outputs["y"] + 1}
"""


def model(nodes: list[Any], inputs: Mapping[str, tuple[int, list[Any]]]) -> bytes:
    """ONNX with these inputs (name -> type, shape) and the output y, float64 [-1, 1]."""
    graph = helper.make_graph(
        nodes,
        "kinds",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.DOUBLE, [None, 1])],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(made.SerializeToString())


def times(name: str, item: str) -> bytes:
    """y = x * item."""
    nodes = [
        helper.make_node("Cast", [item], ["number"], to=TensorProto.DOUBLE),
        helper.make_node("Mul", [name, "number"], ["product"]),
        helper.make_node("Constant", [], ["shape"], value_ints=[-1, 1]),
        helper.make_node("Reshape", ["product", "shape"], ["y"]),
    ]
    return model(nodes, {name: (TensorProto.DOUBLE, [None]), item: (TensorProto.INT64, [None])})


def brightness() -> bytes:
    """y = the mean of a picture."""
    nodes = [
        helper.make_node("Cast", ["image"], ["levels"], to=TensorProto.DOUBLE),
        helper.make_node("ReduceMean", ["levels"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Constant", [], ["shape"], value_ints=[-1, 1]),
        helper.make_node("Reshape", ["mean", "shape"], ["y"]),
    ]
    return model(nodes, {"image": (TensorProto.UINT8, [None, SIDE, SIDE, 3])})


def passed_on() -> bytes:
    return model([helper.make_node("Identity", ["x"], ["y"])], {"x": (TensorProto.DOUBLE, [None, 1])})


def bundled(engine: Engine, name: str, model: bytes, arrays: dict[str, Any], **more: Any) -> str:
    """A bundle in the engine's store. `files`: others in it; the rest as Manifest has it."""
    files: dict[str, str] = more.pop("files", {})
    store = Store(engine.project.bundles)
    with store.stage() as folder:
        (folder / "model.onnx").write_bytes(model)
        np.savez(folder / "warmup.npz", **arrays)
        (folder / "parity.json").write_bytes(b"{}")
        for path, text in files.items():
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_text(text)
        found = sorted(path for path in folder.rglob("*") if path.is_file())
        manifest = Manifest(
            format=FORMAT,
            sunup="test",
            function=name,
            model=Model(name, "1", "run", "onnx"),
            outputs=(Tensor("y", "float64", (-1, 1)),),
            tolerance=1e-9,
            scale=Scale(),
            limits=Limits(timeout_s=20.0),
            files={path.relative_to(folder).as_posix(): digest_file(path) for path in found},
            **{"response": (Y,), **more},
        )
        (folder / "manifest.json").write_bytes(msgspec.json.encode(manifest))
        return store.add(folder)


def looks(engine: Engine) -> str:
    pixels = np.arange(2 * SIDE * SIDE * 3, dtype=np.uint8).reshape(2, SIDE, SIDE, 3)
    return bundled(
        engine,
        "looks",
        brightness(),
        {"in:image": pixels, "out:y": pixels.mean(axis=(1, 2, 3), dtype=float)[:, None]},
        request=(Field("photo", "bytes"),),
        inputs=(Tensor("image", "uint8", (-1, SIDE, SIDE, 3), ("photo",)),),
        image=ImageSpec("photo", (SIDE, SIDE)),
        example={"photo": ""},
    )


def ranks(engine: Engine) -> str:
    return bundled(
        engine,
        "ranks",
        times("x", "item"),
        {"in:x": np.array([1.0, 2.0]), "in:item": np.array([3, 4]), "out:y": np.array([[3.0], [8.0]])},
        request=(Field("x", "float64"), Field("items", "int64[]", (-1,))),
        inputs=(Tensor("x", "float64", (-1,), ("x",)), Tensor("item", "int64", (-1,), ("item",))),
        rank=Rank("items", "item", "y", 2),
        example={"x": 1.0, "items": [1, 2]},
    )


def handles(engine: Engine) -> str:
    return bundled(
        engine,
        "handles",
        passed_on(),
        {"in:x": np.array([[1.0], [2.0]]), "out:y": np.array([[1.0], [2.0]])},
        request=(Field("x", "float64"),),
        inputs=(Tensor("x", "float64", (-1, 1), ("x",)),),
        handler=HandlerSpec(("preprocess", "postprocess"), (Y,)),
        response=(ResponseField("y", "float64"),),
        example={"x": 1.0},
        files={"handler.py": HANDLER, "lib/threefold.py": "def three(x):\n    return 3 * x\n"},
    )


PICTURE = encoded(PHOTOGRAPH)
KINDS: Final[dict[str, tuple[Callable[[Engine], str], bytes, str, Any]]] = {
    "looks": (looks, PICTURE, "image/jpeg", [{"y": pytest.approx(143.3, abs=1.0)}]),
    "ranks": (ranks, b'{"x": 2, "items": [1, 5, 3]}', "application/json", [{"item": [5, 3], "y": [10.0, 6.0]}]),
    "handles": (handles, b'[{"x": 2}, {"x": -1}]', "application/json", [{"y": 7.0}, {"y": -2.0}]),
}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine = Engine(tmp_path_factory.mktemp("local") / "p")
    engine.up()
    yield engine
    engine.down()


@pytest.mark.parametrize("kind", KINDS)
def test_a_function_of_each_kind_answers_as_locally(engine: Engine, pods: Start, kind: str) -> None:
    make, body, content, expected = KINDS[kind]
    digest = make(engine)
    engine.deploy(kind, digest, settings={}, on_event=lambda _: None)
    pod = pods(engine.project.bundles / digest, SUNUP_DIGEST=digest).wait_ready()
    headers = {"content-type": content, "x-request-id": "r1"}
    one, other = (
        pod.ask("POST", f"/functions/{kind}", body, headers),
        engine.ask("POST", f"/functions/{kind}", body, headers=headers),
    )
    assert (one.status, one.body) == (200, other.body)
    assert one.json["predictions"] == expected
    described = pod.ask("GET", f"/functions/{kind}").json, engine.ask("GET", f"/functions/{kind}").json
    assert described[0]["request"] == described[1]["request"]
    assert pod.stop() == 0


def test_a_pod_that_has_served_has_imported_nothing_more(engine: Engine, pods: Start) -> None:
    pod = pods(engine.project.bundles / ranks(engine), PYTHONPROFILEIMPORTTIME="1")
    pod.wait_ready()
    for method, target, body in [
        ("POST", "/functions/ranks", b'{"x": 2, "items": [1, 5, 3]}'),
        ("POST", "/v1/models/ranks:predict", b'{"instances": [{"x": 2, "items": [1, 5]}]}'),
        ("GET", "/openapi.json", b""),
    ]:
        assert pod.ask(method, target, body).status == 200
    assert pod.probe("/metrics").status == 200
    assert pod.stop() == 0
    seen = {name for name in imported(pod) if not name.startswith("_")} - sys.stdlib_module_names
    assert {"onnxruntime", "uvloop"} <= seen
    assert seen <= WORKER_MODULES | SITE


SITE = {"sitecustomize", "usercustomize", "apport_python_hook"}  # what an interpreter itself looks for


def imported(pod: Pod) -> set[str]:
    """What -X importtime says, which tells of what was looked for and not found, too."""
    lines = [said for said in pod.log.read_text().splitlines() if said.startswith("import time:")]
    names = {said.rpartition("|")[2].strip().partition(".")[0] for said in lines} - {"imported package"}
    return {name for name in names if find_spec(name) is not None}
