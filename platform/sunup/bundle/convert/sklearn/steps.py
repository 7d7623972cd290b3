"""Steps of pipelines that we write ourselves, in float64: skl2onnx has no converter for them, or one that answers
otherwise on some rows (a row of zeros, a value beyond float32, a rare category)."""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    Normalizer,
    OneHotEncoder,
    PolynomialFeatures,
    PowerTransformer,
)

from sunup.bundle.convert.graph import Nodes
from sunup.bundle.convert.trees.forest import ML

ALL: Final = (
    FunctionTransformer,
    KBinsDiscretizer,
    MissingIndicator,
    Normalizer,
    OneHotEncoder,
    PolynomialFeatures,
    PowerTransformer,
    SimpleImputer,
)
FUNCTIONS: Final[dict[Any, tuple[str, ...]]] = {
    # numpy's function -> operators, in order
    np.log: ("Log",),
    np.log1p: ("+1", "Log"),
    np.exp: ("Exp",),
    np.sqrt: ("Sqrt",),
    np.abs: ("Abs",),
    np.sin: ("Sin",),
    np.cos: ("Cos",),
    np.tanh: ("Tanh",),
}


class Step(NamedTuple):
    """What a step writes: from a matrix (float64, or text where `text`) to float64 [rows, width], or text as it is."""

    write: Callable[[Nodes, str], str]
    width: int
    text: bool = False


def own_step(step: Any, *, text: bool) -> Step | None:
    """A fitted step of one of ALL as we write it, on text or on numbers; None when the stock converter may."""
    kind = type(step)
    if text:
        return _words(step) if kind is OneHotEncoder else _same_words(step) if kind is SimpleImputer else None
    makers: dict[type, Callable[[Any], Step | None]] = {
        FunctionTransformer: _function,
        KBinsDiscretizer: _bins,
        MissingIndicator: _gaps,
        Normalizer: _norm,
        PolynomialFeatures: _products,
        PowerTransformer: _power,
        SimpleImputer: _filled,
    }
    return makers[kind](step) if kind in makers else None


def fills(step: Any) -> NDArray[np.float64] | None:
    """What a SimpleImputer puts where a number is missing, one per column; None for any other kind of imputing."""
    if type(step) is not SimpleImputer or not _is_nan(step.missing_values):
        return None
    plain = np.array(step.statistics_.tolist())  # a constant's array holds objects
    if plain.dtype.kind not in "fi" or np.isnan(plain).any():
        return None
    return plain.astype(np.float64)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and bool(np.isnan(value))


def _filled(step: Any) -> Step | None:
    values = fills(step)
    if values is None:
        return None
    marked = step.indicator_.features_ if step.add_indicator else np.empty(0, dtype=np.int64)

    def write(nodes: Nodes, x: str) -> str:
        full = nodes.add("Where", nodes.add("IsNaN", x), nodes.constant(values), x)
        return nodes.add("Concat", full, _missing(nodes, x, marked), axis=1) if len(marked) else full

    return Step(write, len(values) + len(marked))


def _gaps(step: Any) -> Step | None:
    if not _is_nan(step.missing_values):
        return None
    return Step(lambda nodes, x: _missing(nodes, x, step.features_), len(step.features_))


def _missing(nodes: Nodes, x: str, columns: NDArray[Any]) -> str:
    found = nodes.add("Gather", nodes.add("IsNaN", x), nodes.constant(columns.astype(np.int64)), axis=1)
    return nodes.add("Cast", found, to=TensorProto.DOUBLE)


def _norm(step: Any) -> Step:
    """Rows of next to nothing stay as they are (sklearn.preprocessing._data._handle_zeros_in_scale)."""

    def write(nodes: Nodes, x: str) -> str:
        axis = nodes.constant(np.array([1]))
        if step.norm == "l2":
            size = nodes.add("Sqrt", nodes.add("ReduceSumSquare", x, axis, keepdims=1))
        else:
            reduce = "ReduceSum" if step.norm == "l1" else "ReduceMax"
            size = nodes.add(reduce, nodes.add("Abs", x), axis, keepdims=1)
        none = nodes.add("Less", size, nodes.constant(np.array(10 * np.finfo(np.float64).eps)))
        return nodes.add("Div", x, nodes.add("Where", none, nodes.constant(np.array(1.0)), size))

    return Step(write, step.n_features_in_)


def _products(step: Any) -> Step:
    """Each output is a product of columns, where a column of ones stands for those that are not there."""
    powers = step.powers_
    factors = [np.repeat(np.arange(len(row)), row) for row in powers]
    most = max(1, *(len(row) for row in factors))
    table = np.array([np.pad(row, (0, most - len(row)), constant_values=powers.shape[1]) for row in factors])

    def write(nodes: Nodes, x: str) -> str:
        one = nodes.add("Pad", x, nodes.constant(np.array([0, 0, 0, 1])), nodes.constant(np.array(1.0)))
        parts = [nodes.add("Gather", one, nodes.constant(table[:, i]), axis=1) for i in range(most)]
        total = parts[0]
        for part in parts[1:]:
            total = nodes.add("Mul", total, part)
        return total

    return Step(write, len(powers))


def _bins(step: Any) -> Step | None:
    """A bin's number is how many inner edges a value has reached."""
    if step.dtype not in (None, np.float64):
        return None
    inner = [np.asarray(edges[1:-1], dtype=np.float64) for edges in step.bin_edges_]
    hot = step.encode != "ordinal"

    def write(nodes: Nodes, x: str) -> str:
        parts = []
        for column, edges in enumerate(inner):
            value = nodes.add("Gather", x, nodes.constant(np.array([column])), axis=1)
            reached = nodes.add("GreaterOrEqual", value, nodes.constant(edges.reshape(1, -1)))
            number = nodes.add(
                "ReduceSum",
                nodes.add("Cast", reached, to=TensorProto.DOUBLE),
                nodes.constant(np.array([1])),
                keepdims=1,
            )
            parts.append(_hot(nodes, number, len(edges) + 1) if hot else number)
        return nodes.add("Concat", *parts, axis=1)

    return Step(write, sum(len(edges) + 1 for edges in inner) if hot else len(inner))


def _hot(nodes: Nodes, number: str, count: int) -> str:
    """[rows, 1] numbers -> [rows, count] with a one at each."""
    places = nodes.constant(np.arange(count, dtype=np.float64).reshape(1, -1))
    return nodes.add("Cast", nodes.add("Equal", number, places), to=TensorProto.DOUBLE)


def _function(step: Any) -> Step | None:
    if step.func not in FUNCTIONS or step.kw_args:
        return None

    def write(nodes: Nodes, x: str) -> str:
        for operator in FUNCTIONS[step.func]:
            x = nodes.add("Add", x, nodes.constant(np.array(1.0))) if operator == "+1" else nodes.add(operator, x)
        return x

    return Step(write, step.n_features_in_)


def _power(step: Any) -> Step:
    """Yeo-Johnson's and Box-Cox's transforms (Biometrika 87, 2000; JRSS B 26, 1964), then mean 0 and variance 1."""
    lambdas = np.asarray(step.lambdas_, dtype=np.float64)

    def side(nodes: Nodes, base: str, exponent: NDArray[np.float64]) -> str:
        """(base ** e - 1) / e, or the logarithm where e is 0."""
        zero = np.abs(exponent) < np.finfo(np.float64).eps
        some = np.where(zero, 1.0, exponent)
        raised = nodes.add("Pow", base, nodes.constant(some))
        curved = nodes.add("Div", nodes.add("Sub", raised, nodes.constant(np.array(1.0))), nodes.constant(some))
        return nodes.add("Where", nodes.constant(zero), nodes.add("Log", base), curved)

    def write(nodes: Nodes, x: str) -> str:
        if step.method == "box-cox":
            y = side(nodes, x, lambdas)
        else:
            one = nodes.constant(np.array(1.0))
            below = nodes.add("Less", x, nodes.constant(np.array(0.0)))
            base = nodes.add("Add", nodes.add("Abs", x), one)
            down = nodes.add("Neg", side(nodes, base, 2.0 - lambdas))
            y = nodes.add("Where", below, down, side(nodes, base, lambdas))
        if not step.standardize:
            return y
        scaler = step._scaler
        centred = nodes.add("Sub", y, nodes.constant(np.asarray(scaler.mean_, dtype=np.float64)))
        return nodes.add("Div", centred, nodes.constant(np.asarray(scaler.scale_, dtype=np.float64)))

    return Step(write, len(lambdas))


def _same_words(step: Any) -> Step | None:
    """Nothing is missing from a column of text: a request without it is refused, and "" is text."""
    present = step.missing_values is None or _is_nan(step.missing_values)
    if not present or step.add_indicator or not all(isinstance(value, str) for value in step.statistics_):
        return None
    return Step(lambda nodes, x: nodes.add("Identity", x), len(step.statistics_), text=True)


def _words(step: Any) -> Step | None:
    """One column per category, one for all the rare ones; only for an encoder that puts rare ones together."""
    if not step._infrequent_enabled or step.drop is not None:
        return None
    tables = []
    for categories, mapping in zip(step.categories_, step._default_to_infrequent_mappings, strict=True):
        if not all(isinstance(category, str) for category in categories):
            return None
        places = np.arange(len(categories)) if mapping is None else np.asarray(mapping)
        rare = mapping is not None and step.handle_unknown == "infrequent_if_exist"
        tables.append((categories.tolist(), places, int(places.max()) if rare else -1))

    def write(nodes: Nodes, x: str) -> str:
        parts = []
        for column, (categories, places, unknown) in enumerate(tables):
            word = nodes.add("Gather", x, nodes.constant(np.array([column])), axis=1)
            number = nodes.add(
                "LabelEncoder",
                word,
                domain=ML,
                keys_strings=categories,
                values_int64s=places.astype(np.int64).tolist(),
                default_int64=unknown,
            )
            parts.append(_hot(nodes, nodes.add("Cast", number, to=TensorProto.DOUBLE), int(places.max()) + 1))
        return nodes.add("Concat", *parts, axis=1)

    return Step(write, sum(int(places.max()) + 1 for _, places, _ in tables))
