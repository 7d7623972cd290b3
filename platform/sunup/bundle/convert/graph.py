"""A minimal writer of ONNX graphs: names are counted, nothing varies between two runs."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from sunup.types import Tensor

OPSET: Final = 18
ML_OPSET: Final = 5  # the first with TreeEnsemble, which keeps float64 to the end
STOCK_ML: Final = 3  # what skl2onnx writes; its tree operators are gone from 5 on
IR: Final = 10  # what ai.onnx.ml 5 needs
BATCH: Final = "rows"

ELEMENT: Final = {
    "bool": TensorProto.BOOL,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "string": TensorProto.STRING,
}


class Nodes(Protocol):
    """Where nodes go: a graph of our own, or one that skl2onnx is writing. `ml`: its ai.onnx.ml version."""

    ml: int

    def add(self, op: str, *inputs: str, output: str | None = None, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output, called `output` or a new name. Returns the output's name."""
        ...

    def constant(self, array: NDArray[Any]) -> str:
        """Add a constant. Returns its name."""
        ...


class Graph:
    """A graph with one float64 matrix input [rows, len(columns)] called "input"."""

    def __init__(self, columns: Sequence[str], *, ml: int = ML_OPSET) -> None:
        self.ml = ml
        self.inputs = (Tensor("input", "float64", (-1, len(columns)), tuple(columns)),)
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def add(self, op: str, *inputs: str, output: str | None = None, domain: str = "", **attributes: Any) -> str:
        name = output or f"n{len(self._nodes)}"
        self._nodes.append(helper.make_node(op, list(inputs), [name], domain=domain, **attributes))
        return name

    def constant(self, array: NDArray[Any]) -> str:
        name = f"c{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def model(self, outputs: Sequence[Tensor], renamed: Mapping[str, str]) -> bytes:
        """The serialised model with these outputs, each added under its name or the one `renamed` has for it."""
        graph = helper.make_graph(
            self._nodes, "model", [value(t) for t in self.inputs], [value(t) for t in outputs], self._constants
        )
        for name, inner in renamed.items():
            rename(graph, inner, name)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", self.ml)]
        return serialise(helper.make_model(graph, opset_imports=opsets))


def value(tensor: Tensor) -> onnx.ValueInfoProto:
    """A graph input or output with a free first dimension."""
    shape = [BATCH if size == -1 else size for size in tensor.shape]
    return helper.make_tensor_value_info(tensor.name, ELEMENT[tensor.dtype], shape)


def rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Give a value of the graph another name wherever a node makes or uses it."""
    for node in graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                if name == old:
                    names[i] = new


def serialise(model: onnx.ModelProto) -> bytes:
    """Deterministic bytes: no producer, documentation or metadata that tells when or by what it was made."""
    model.ir_version = IR
    for text in ("producer_name", "producer_version", "doc_string", "domain"):
        model.ClearField(text)
    model.ClearField("model_version")
    del model.metadata_props[:]
    model.graph.name = "model"
    model.graph.doc_string = ""
    return bytes(model.SerializeToString(deterministic=True))


def tensor_of(info: onnx.ValueInfoProto) -> Tensor:
    """The Tensor of a graph input or output; dimensions that are not fixed are -1."""
    kind = info.type.tensor_type
    dtype = next(name for name, element in ELEMENT.items() if element == kind.elem_type)
    shape = tuple(d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else -1 for d in kind.shape.dim)
    return Tensor(info.name, dtype, shape)
