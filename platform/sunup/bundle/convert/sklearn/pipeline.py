"""scikit-learn pipelines and single estimators.

A bare tree model is written directly. Everything else goes through skl2onnx in float64, with our own converters in
place of the stock ones wherever a tree model stands inside, because those round thresholds to float32.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

import numpy as np
import onnx
import pandas as pd
import skl2onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from skl2onnx.common.data_types import (
    BooleanTensorType,
    DoubleTensorType,
    FloatTensorType,
    Int32TensorType,
    Int64TensorType,
    StringTensorType,
)
from sklearn.base import is_classifier
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import VotingClassifier
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.multiclass import OneVsOneClassifier
from sklearn.pipeline import FeatureUnion, Pipeline

from sunup.bundle.convert.answers import kind_of
from sunup.bundle.convert.graph import ML_OPSET, OPSET, STOCK_ML, rename, serialise, tensor_of, value
from sunup.bundle.convert.sklearn.steps import fills
from sunup.bundle.convert.sklearn.within import hooks, own_model, settle
from sunup.bundle.convert.trees import catboost
from sunup.bundle.convert.trees.model import Converted, TreeModel, convert_trees
from sunup.types import Field, Tensor

TYPES: Final = {
    "bool": BooleanTensorType,
    "int32": Int32TensorType,
    "int64": Int64TensorType,
    "float32": FloatTensorType,
    "float64": DoubleTensorType,
    "string": StringTensorType,
}
VECTORISERS: Final = (CountVectorizer, TfidfVectorizer)
NUMBERS: Final = ("bool", "int32", "int64", "float32", "float64")
# Preferred first. The stock tree operators return float32 but can stand beside ones that skl2onnx wrote; float32
# throughout is for operators without a float64 kernel. Which one is used is decided by what loads and runs.
WAYS: Final = (("float64", ML_OPSET), ("float64", STOCK_ML), ("float32", STOCK_ML))


def candidates(model: Any, columns: Sequence[Field]) -> Iterator[Callable[[], Converted]]:
    """Ways to convert a fitted estimator, best first. Each raises what its converter raises when it cannot.

    With only numbers the graph takes one float64 matrix "input" of all columns in order; with text among them, one
    [rows, 1] input per column under its name.
    """
    model = _without_idle_steps(model)
    for part in _parts(model):
        if isinstance(part, VotingClassifier):
            part.flatten_transform = False  # skl2onnx refuses True, which only concerns transform()
    trees = own_model(model, float32_of(columns))
    matrix = all(column.dtype in NUMBERS for column in columns)
    if isinstance(trees, TreeModel) and matrix:
        yield lambda: convert_trees(trees, columns)
        return
    for element, ml in WAYS:
        yield partial(_convert, model, columns, element, ml)


def _without_idle_steps(model: Any) -> Any:
    """A pipeline without the steps that do nothing, which skl2onnx does not know; its last step if that is all."""
    if not isinstance(model, Pipeline):
        return model
    steps = [(name, step) for name, step in model.steps if step not in (None, "passthrough")]
    return Pipeline(steps) if len(steps) > 1 else model.steps[-1][1]


def float32_of(columns: Sequence[Field]) -> NDArray[np.bool_]:
    """Which columns a caller's table holds as float32: they are rounded before the model sees them."""
    return np.array([column.dtype == "float32" for column in columns])


def _convert(model: Any, columns: Sequence[Field], element: str, ml: int) -> Converted:
    matrix = all(column.dtype in NUMBERS for column in columns)
    prelude = _Prelude(columns, element) if matrix else None
    if prelude is None or _by_name(model):
        types = [(c.name, TYPES[element if matrix else c.dtype]([None, 1])) for c in columns]
    else:
        types = [(prelude.taken, TYPES[element]([None, len(columns)]))]
    writers, shapes = hooks(ml, [type(part) for part in _inner(model) if catboost.is_ours(part)])
    converted = skl2onnx.convert_sklearn(
        model,
        name="model",
        initial_types=types,
        target_opset={"": OPSET, "ai.onnx.ml": STOCK_ML},
        options=_options(model),
        custom_conversion_functions=writers,
        custom_shape_calculators=shapes,
    )
    settle(converted, ml)
    graph = converted.graph
    if prelude is not None:
        inputs = prelude.put_before(graph)
    else:
        names = [info.name for info in graph.input]
        inputs = tuple(Tensor(n, c.dtype, (-1, 1), (c.name,)) for n, c in zip(names, columns, strict=True))
        _replace(graph.input, [value(tensor) for tensor in inputs])
    outputs = _name_outputs(graph, model)
    _drop_identities(graph)
    found = Converted(serialise(converted), inputs, outputs, note=f"converted by skl2onnx in {element}")
    return _with_trees_at_end(found, model, columns) if matrix else found


def _options(model: Any) -> dict[Any, Any]:
    """skl2onnx's options: probabilities as a matrix, and text made lower-case in the locale that every system has."""
    options: dict[Any, Any] = {id(part): {"locale": "C.UTF-8"} for part in _inner(model) if type(part) in VECTORISERS}
    return options | ({id(model): {"zipmap": False}} if is_classifier(model) else {})


def _inner(model: Any) -> Iterator[Any]:
    """The fitted estimators inside an estimator, and itself; a ColumnTransformer fits copies of what it was given."""
    yield model
    if isinstance(model, Pipeline):
        inner = [step for _, step in model.steps]
    elif isinstance(model, ColumnTransformer):
        inner = [step for _, step, _ in model.transformers_]
    elif isinstance(model, FeatureUnion):
        inner = [step for _, step in model.transformer_list]
    else:
        inner = []
    for part in inner:
        yield from _inner(part)


def _by_name(model: Any) -> bool:
    """Whether some part picks its columns by name, so that they must be separate inputs."""
    return any(isinstance(part, ColumnTransformer) for part in _parts(model))


def _parts(model: Any) -> list[Any]:
    """An estimator and every estimator inside it."""
    return [model, *(model.get_params(deep=True).values() if hasattr(model, "get_params") else ())]


class _Prelude:
    """What turns the one float64 matrix "input" into what the converted graph takes."""

    def __init__(self, columns: Sequence[Field], element: str) -> None:
        self._columns, self._element = columns, element
        self._rounded = float32_of(columns)
        self.taken = "taken" if element == "float32" or self._rounded.any() else "input"

    def put_before(self, graph: onnx.GraphProto) -> tuple[Tensor, ...]:
        """Give the graph its new input."""
        nodes = []
        if self._element == "float32":
            nodes.append(helper.make_node("Cast", ["input"], ["taken"], to=TensorProto.FLOAT))
        elif self.taken == "taken":
            graph.initializer.append(numpy_helper.from_array(self._rounded, "is_float32"))
            nodes.append(helper.make_node("Cast", ["input"], ["as_float32"], to=TensorProto.FLOAT))
            nodes.append(helper.make_node("Cast", ["as_float32"], ["rounded"], to=TensorProto.DOUBLE))
            nodes.append(helper.make_node("Where", ["is_float32", "rounded", "input"], ["taken"]))
        names = [info.name for info in graph.input]
        if names != [self.taken]:
            parts = [f"column_{i}" for i in range(len(names))]
            for name, part in zip(names, parts, strict=True):
                rename(graph, name, part)
            graph.initializer.append(numpy_helper.from_array(np.ones(len(parts), dtype=np.int64), "one_each"))
            nodes.append(helper.make_node("Split", [self.taken, "one_each"], parts, axis=1))
        body = [*nodes, *graph.node]
        _replace(graph.node, body)
        tensor = Tensor("input", "float64", (-1, len(self._columns)), tuple(c.name for c in self._columns))
        _replace(graph.input, [value(tensor)])
        return (tensor,)


def _name_outputs(graph: onnx.GraphProto, estimator: Any) -> tuple[Tensor, ...]:
    """Call the outputs label and probability, or prediction, with free rows; drop the ones the original has not."""
    found = [tensor_of(info) for info in graph.output]
    kind = kind_of(estimator)
    shapes: list[tuple[int, ...]] = [(-1,), (-1,)]
    if kind == "classifier":
        wanted = ["label", "probability"] if hasattr(estimator, "predict_proba") else ["label"]
        shapes = [(-1,), (-1, len(estimator.classes_))]
    elif kind == "detector":
        wanted = ["label", "score"]
    else:
        wanted = ["prediction"] if kind == "regressor" else ["label"]
    outputs = []
    for source, name, shape in zip(found, wanted, shapes, strict=False):
        inner = f"{name}_found"
        rename(graph, source.name, inner)
        # What is declared is not always so.
        if source.shape == shape and not any(type(part) is OneVsOneClassifier for part in _inner(estimator)):
            rename(graph, inner, name)
        else:
            graph.initializer.append(numpy_helper.from_array(np.array(shape, dtype=np.int64), f"{name}_shape"))
            graph.node.append(helper.make_node("Reshape", [inner, f"{name}_shape"], [name]))
        outputs.append(Tensor(name, source.dtype, shape))
    _replace(graph.output, [value(tensor) for tensor in outputs])
    return tuple(outputs)


def _drop_identities(graph: onnx.GraphProto) -> None:
    """Take out nodes that only give a node's result another name; each would cost half a microsecond per call."""
    made = {name for node in graph.node for name in node.output}
    kept = {info.name for info in graph.output}
    for node in [n for n in graph.node if n.op_type == "Identity"]:
        source, name = node.input[0], node.output[0]
        if source in made and source not in kept:
            graph.node.remove(node)
            rename(graph, source, name)
            made.discard(source)


def _replace(target: Any, parts: Sequence[Any]) -> None:
    del target[:]
    target.extend(parts)


def _with_trees_at_end(found: Converted, model: Any, columns: Sequence[Field]) -> Converted:
    """Add the forest of a pipeline's last step and the ways there and back, where every other step has one back."""
    if not isinstance(model, Pipeline):
        return found
    steps = [step for _, step in model.steps[:-1] if fills(step) is None or step.add_indicator]
    last = own_model(model.steps[-1][1], np.zeros(len(columns), dtype=np.bool_))
    if not isinstance(last, TreeModel) or not all(hasattr(step, "inverse_transform") for step in steps):
        return found

    def there(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        for step in steps:
            names = getattr(step, "feature_names_in_", None)
            taken = rows if names is None else pd.DataFrame(rows, columns=names)
            rows = np.asarray(step.transform(taken), dtype=np.float64)
        return rows

    def back(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        for step in reversed(steps):
            rows = np.asarray(step.inverse_transform(rows), dtype=np.float64)
        return rows

    return replace(found, forest=last.forest, to_trees=there, to_input=back)
