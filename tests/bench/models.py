"""The models the benches share: LightGBM, 200 trees of 31 leaves, 30 features, as ONNX; a small network for images."""

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from lightgbm import LGBMClassifier
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType

from functions.moderate.network import Network, to_onnx
from sunup.bundle.manifest import FORMAT, Limits, Manifest, Model, Scale
from sunup.bundle.store import Store, digest_file
from sunup.execute.onnx import OnnxExecutor, optimise
from sunup.types import Decision, Field, ImageSpec, ResponseField, Tensor

FEATURES = 30
TREES = 200
BODIES = 64
WIDTH = 4096
DEEP = 2000  # layers of `deep_model`: 2 to 3 ms a row


def rows(count: int, seed: int = 7) -> NDArray[np.float64]:
    """Rows of the bench's request: FEATURES floats each, rounded so that JSON carries them exactly as float32."""
    values = np.random.default_rng(seed).normal(size=(count, FEATURES))
    return np.round(values, 3).astype(np.float32).astype(np.float64)


def record(row: Sequence[float]) -> bytes:
    """A native call of one row."""
    return json.dumps({f"f{i}": value for i, value in enumerate(row)}).encode()


def record_bodies() -> list[bytes]:
    """Native calls of one row each, different ones, so that no cache of one answer helps anybody."""
    return [record(row) for row in rows(BODIES).tolist()]


def tree_model() -> bytes:
    """Train and convert. Input "input" float32 [-1, FEATURES]; output "probability" float32 [-1, 2]."""
    x = rows(20_000)
    y = (x[:, :5].sum(axis=1) + x[:, 5] * x[:, 6] > 1).astype(int)
    model = LGBMClassifier(n_estimators=TREES, num_leaves=31, verbose=-1, n_jobs=2, random_state=1).fit(x, y)
    onnx = convert_lightgbm(
        model, initial_types=[("input", FloatTensorType([None, FEATURES]))], zipmap=False, target_opset=15
    )
    onnx.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "n"  # declared 1, which ONNX Runtime warns about
    for node in onnx.graph.node:
        node.output[:] = ["probability" if name == "probabilities" else name for name in node.output]
    for output in onnx.graph.output:
        output.name = "probability" if output.name == "probabilities" else output.name
    return bytes(onnx.SerializeToString())


def deep_model(layers: int) -> bytes:
    """A network of the benches' rows that is all functions of single numbers: it computes out of the cache, so that two
    of them wait for no common memory, and rows together cost what they cost apart. Input, output as `tree_model`'s."""
    chance = np.random.default_rng(3)
    first, last = (
        numpy_helper.from_array((chance.normal(size=shape) / np.sqrt(shape[0])).astype(np.float32), name)
        for name, shape in (("first", (FEATURES, WIDTH)), ("last", (WIDTH, 1)))
    )
    nodes = [
        helper.make_node("MatMul", ["input", "first"], ["h0"]),
        *(helper.make_node("Tanh", [f"h{layer}"], [f"h{layer + 1}"]) for layer in range(layers)),
        helper.make_node("Add", ["h0", f"h{layers}"], ["both"]),
        helper.make_node("MatMul", ["both", "last"], ["sum"]),
        helper.make_node("Sigmoid", ["sum"], ["p"]),
        helper.make_node("Neg", ["sum"], ["minus"]),
        helper.make_node("Sigmoid", ["minus"], ["q"]),
        helper.make_node("Concat", ["q", "p"], ["probability"], axis=1),
    ]
    rows_in = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", FEATURES])
    out = helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["n", 2])
    graph = helper.make_graph(nodes, "deep", [rows_in], [out], [first, last])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(made.SerializeToString())


def image_model(size: int) -> bytes:
    """moderate's network for uint8 [-1, size, size, 3], not trained: what it costs is the same."""
    return bytes(to_onnx(Network(3, seed=1), size).SerializeToString())


def large_network(size: int) -> bytes:
    """A residual network of 27 million seeded weights, 108 MB, for uint8 [-1, size, size, 3]: "probability" [-1, 3]."""
    random = np.random.default_rng(0)
    weights: list[Any] = [numpy_helper.from_array(np.array(1 / 255, np.float32), "scale")]
    nodes = [
        helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "scale"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["planes"], perm=[0, 3, 1, 2]),
    ]

    def weight(*shape: int) -> str:
        values = random.normal(size=shape) / np.sqrt(np.prod(shape[1:]))
        weights.append(numpy_helper.from_array(values.astype(np.float32), f"w{len(weights)}"))
        return f"w{len(weights) - 1}"

    def add(kind: str, *inputs: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, [*inputs], [f"n{len(nodes)}"], **attributes))
        return f"n{len(nodes) - 1}"

    def convolve(x: str, before: int, after: int, kernel: int, stride: int) -> str:
        pads = [kernel // 2] * 4
        return add("Conv", x, weight(after, before, kernel, kernel), weight(after), pads=pads, strides=[stride] * 2)

    x, before = add("Relu", convolve("planes", 3, 64, 7, 2)), 64
    for after, blocks in ((64, 2), (128, 2), (256, 4), (512, 5)):
        for block in range(blocks):
            stride = 2 if after > before and block == 0 else 1
            y = add("Relu", convolve(x, before, after, 3, stride))
            y = convolve(y, after, after, 3, 1)
            short = x if before == after else convolve(x, before, after, 1, stride)
            x, before = add("Relu", add("Mul", add("Add", y, short), "half")), after
    weights.append(numpy_helper.from_array(np.array(0.5, np.float32), "half"))  # so that no activation runs away
    flat = add("Flatten", add("GlobalAveragePool", x))
    nodes.append(helper.make_node("Gemm", [flat, weight(before, 3), weight(3)], ["logits"]))
    nodes.append(helper.make_node("Softmax", ["logits"], ["probability"], axis=1))
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [None, size, size, 3])
    answer = helper.make_tensor_value_info("probability", TensorProto.FLOAT, [None, 3])
    graph = helper.make_graph(nodes, "large", [image], [answer], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def image_bundle(store: Store, model: bytes, spec: ImageSpec, *, scale: Scale | None = None) -> str:
    """A bundle of such a model, that answers as moderate does; its digest."""
    labels = ("fine", "text", "blank")
    optimised = optimise(model)
    rows = np.random.default_rng(0).integers(0, 256, (8, *spec.size, 3), dtype=np.uint8)
    expected = OnnxExecutor(optimised, optimised=True).run({"image": rows}, ["probability"])[0]
    with store.stage() as folder:
        (folder / "model.onnx").write_bytes(optimised)
        arrays: dict[str, Any] = {"in:image": rows, "out:probability": expected}
        np.savez(folder / "warmup.npz", **arrays)
        (folder / "parity.json").write_bytes(b"{}")
        manifest = Manifest(
            format=FORMAT,
            sunup="bench",
            function="score",
            model=Model("score", "1", "run", "onnx"),
            request=(Field("image", "bytes"),),
            inputs=(Tensor("image", "uint8", (-1, *spec.size, 3), ("image",)),),
            outputs=(Tensor("probability", "float32", (-1, 3)),),
            response=(
                *(ResponseField(label, "float32", "probability", at) for at, label in enumerate(labels)),
                ResponseField("decision", "string", decision=Decision("fine", 0.5, "allow", "review")),
            ),
            tolerance=1e-5,
            scale=scale or Scale(max=1),
            limits=Limits(body_bytes=8 * 1024**2),
            example={"image": ""},
            files={path.name: digest_file(path) for path in sorted(folder.iterdir())},
            image=spec,
        )
        (folder / "manifest.json").write_bytes(msgspec.json.encode(manifest))
        return store.add(folder)
