"""Models made of trees: a forest, what comes before it and what turns its sums into answers; and their graphs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sunup.bundle.convert.graph import ML_OPSET, STOCK_ML, Graph, Nodes
from sunup.bundle.convert.trees.forest import Forest, add_forest
from sunup.errors import ConversionRefused
from sunup.types import Field, Tensor

Way = Callable[[NDArray[np.float64]], NDArray[np.float64]]


class Prepare(Protocol):
    """Adds what the matrix goes through before the trees."""

    def __call__(self, *, nodes: Nodes, x: str) -> str: ...


class Finish(Protocol):
    """Adds what the sums of leaves go through after the trees."""

    def __call__(self, *, nodes: Nodes, raw: str) -> str: ...


@dataclass(frozen=True, slots=True)
class TreeModel:
    """A model of trees, whatever library made it.

    `prepare` adds what the float64 matrix [rows, features] goes through first; `finish` turns the forest's sums
    [rows, outputs] into probabilities [rows, classes], or predictions [rows, 1] when `classes` is None, or outlier
    scores [rows, 1] when it `detects`.
    """

    forest: Forest
    prepare: Prepare
    finish: Finish
    classes: NDArray[Any] | None
    detects: bool = False

    def add(self, nodes: Nodes, x: str) -> str:
        """Add the model over the float64 matrix `x`: probabilities [rows, classes] or predictions [rows, 1]."""
        raw = add_forest(nodes, self.forest, self.prepare(nodes=nodes, x=x))
        return self.finish(nodes=nodes, raw=raw)


@dataclass(frozen=True, slots=True)
class Converted:
    """An ONNX model not yet proven.

    `forest`: its trees, when rows at their splits can be made. `to_trees` maps input columns [rows, columns] to what
    the trees see, `to_input` back; both None: the trees see the columns. `note`: how it was made.
    """

    model: bytes
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    forest: Forest | None = None
    to_trees: Way | None = None
    to_input: Way | None = None
    note: str = "trees written directly in float64"


def convert_trees(model: TreeModel, columns: Sequence[Field]) -> Converted:
    """The graph of a bare tree model over one matrix of all columns."""
    several = model.forest.trees.value.shape[1] > 1
    graph = Graph([column.name for column in columns], ml=STOCK_ML if several else ML_OPSET)
    answer = model.add(graph, "input")
    if model.detects:
        graph.add("Reshape", answer, graph.constant(np.array([-1])), output="score")
        add_detection(graph, answer, "label")
        outputs: tuple[Tensor, ...] = (Tensor("label", "int64", (-1,)), Tensor("score", "float64", (-1,)))
        return Converted(graph.model(outputs, {}), graph.inputs, outputs, model.forest)
    if model.classes is None:
        graph.add("Reshape", answer, graph.constant(np.array([-1])), output="prediction")
        outputs = (Tensor("prediction", "float64", (-1,)),)
        return Converted(graph.model(outputs, {}), graph.inputs, outputs, model.forest)
    label = Tensor("label", add_label(graph, answer, model.classes), (-1,))
    outputs = (label, Tensor("probability", "float64", (-1, len(model.classes))))
    return Converted(graph.model(outputs, {"probability": answer}), graph.inputs, outputs, model.forest)


def add_detection(nodes: Nodes, score: str, output: str) -> None:
    """Add the label of outlier scores [rows, 1] under the name `output`: -1 below zero, else 1."""
    below = nodes.add("Less", score, nodes.constant(np.array(0.0)))
    labels = nodes.add("Where", below, nodes.constant(np.array(-1)), nodes.constant(np.array(1)))
    nodes.add("Reshape", labels, nodes.constant(np.array([-1])), output=output)


def add_complement(nodes: Nodes, positive: str) -> str:
    """[rows, 1] probabilities p of the second class -> [rows, 2]: 1 - p and p."""
    return nodes.add("Concat", nodes.add("Sub", nodes.constant(np.array(1.0)), positive), positive, axis=1)


def add_label(nodes: Nodes, probability: str, classes: NDArray[Any], output: str = "label") -> str:
    """Add the class of the largest probability under the name `output`. Returns its dtype."""
    dtype = {"b": "bool", "i": "int64", "u": "int64", "f": "float64", "U": "string", "O": "string"}.get(
        classes.dtype.kind, ""
    )
    if not dtype or (dtype == "string" and not all(isinstance(c, str) for c in classes.tolist())):
        raise ConversionRefused(f"Classes of type {classes.dtype} cannot be sent. Train with numbers or text.")
    known = classes.astype(object if dtype == "string" else dtype)
    best = nodes.add("ArgMax", probability, axis=1, keepdims=0)
    nodes.add("Gather", nodes.constant(known), best, output=output, axis=0)
    return dtype


def unchanged(*, nodes: Nodes, x: str) -> str:  # noqa: ARG001 - the signature of Prepare
    """The Prepare of a model whose trees see the matrix as it is."""
    return x
