"""Bundles made by hand, without a registry: a logistic score over n float fields, or any ONNX model over them."""

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from sunup import __version__
from sunup.bundle.manifest import FORMAT, Limits, LogSpec, Manifest, Model, Scale, StreamSpec
from sunup.types import Decision, Field, ResponseField, Tensor


def logistic(features: int) -> bytes:
    """ONNX: probability = [1 - p, p], p = sigmoid(sum(x)); input "input" float64 [-1, features]."""
    weights = numpy_helper.from_array(np.ones((features, 1)), "weights")
    nodes = [
        helper.make_node("MatMul", ["input", "weights"], ["sum"]),
        helper.make_node("Sigmoid", ["sum"], ["p"]),
        helper.make_node("Neg", ["sum"], ["minus"]),
        helper.make_node("Sigmoid", ["minus"], ["q"]),
        helper.make_node("Concat", ["q", "p"], ["probability"], axis=1),
    ]
    rows = helper.make_tensor_value_info("input", TensorProto.DOUBLE, [None, features])
    out = helper.make_tensor_value_info("probability", TensorProto.DOUBLE, [None, 2])
    graph = helper.make_graph(nodes, "logistic", [rows], [out], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def make_bundle(
    folder: Path,
    model: bytes,
    rows: NDArray[np.float64],
    *,
    function: str = "score",
    dtype: str = "float64",
    scale: Scale | None = None,
    limits: Limits | None = None,
    request: tuple[Field, ...] | None = None,
    features: bytes | None = None,
    names: tuple[str, ...] = (),
    log: LogSpec | None = None,
    stream: StreamSpec | None = None,
    aggregates: tuple[str, ...] = (),
) -> str:
    """Write a bundle under `folder` for a model from "input" [-1, n] of `dtype` to "probability" [-1, 2]; its digest.

    The request is f0 ... fn-1 (or `names`), unless `request` says which come with it and `features`, a read plan, gives
    the rest; the response is score and decision. `rows`: warm-up rows; `log`, `aggregates`: see Manifest.
    """
    width, names = rows.shape[1], names or tuple(f"f{i}" for i in range(rows.shape[1]))
    (staged := folder / "staged").mkdir(parents=True)
    given = str(_write_files(staged, model, rows.astype(dtype), features))
    request = request or tuple(Field(name, "float64") for name in names)
    values = dict(zip(names, rows[0].tolist(), strict=True))
    example = {field.name: values.get(field.name, 1) for field in request}
    manifest = Manifest(
        format=FORMAT,
        sunup=__version__,
        function=function,
        model=Model(name=function, version="3", run_id="r", flavor="onnx"),
        request=request,
        inputs=(Tensor("input", dtype, (-1, width), names),),
        outputs=(Tensor("probability", given, (-1, 2)),),
        response=(
            ResponseField("score", given, "probability", 1),
            ResponseField("decision", "string", decision=Decision("score", 0.9, "block", "allow")),
        ),
        tolerance=1e-5,
        scale=scale or Scale(),
        limits=limits or Limits(),
        example=example,
        files={file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(staged.iterdir())},
        log=log,
        stream=stream,
        aggregates=aggregates,
    )
    return _name(staged, msgspec.json.encode(manifest))


def _name(staged: Path, manifest: bytes) -> str:
    """Write the manifest, whose digest is the folder's name from now on."""
    (staged / "manifest.json").write_bytes(manifest)
    digest = hashlib.sha256(manifest).hexdigest()
    staged.rename(staged.parent / digest)
    return digest


def _write_files(staged: Path, model: bytes, rows: NDArray[Any], features: bytes | None) -> np.dtype[Any]:
    """Everything but the manifest; the dtype the model answers with."""
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    expected = session.run(["probability"], {"input": rows})[0]
    (staged / "model.onnx").write_bytes(model)
    np.savez(staged / "warmup.npz", **{"in:input": rows, "out:probability": expected})
    (staged / "parity.json").write_bytes(b"{}")
    if features is not None:
        (staged / "features.json").write_bytes(features)
    dtype: np.dtype[Any] = expected.dtype
    return dtype
