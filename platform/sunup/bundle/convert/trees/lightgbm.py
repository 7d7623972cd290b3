"""LightGBM: trees are read from the model's own text, whose numbers have all their digits.

Rules of LightGBM's predictor (src/io/tree.cpp and c_api.cpp of version 4) that a plain `x <= threshold` does not give:
- a value within 1e-35 of zero counts as zero;
- a missing value goes the default way where the feature had missing values in training, else it counts as zero;
- with zero_as_missing, zero goes the default way too;
- at a split on categories, a code (cut to a whole number) in the node's set goes left, every other one right.
"""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

import lightgbm
import numpy as np
from numpy.typing import NDArray

from sunup.bundle.convert.graph import Nodes
from sunup.bundle.convert.trees.forest import Forest, Tree, plant, split_of_float32
from sunup.bundle.convert.trees.model import TreeModel, add_complement
from sunup.errors import ConversionRefused

ZERO: Final = float(np.float32(1e-35))  # kZeroThreshold
CATEGORICAL, DEFAULT_LEFT = 1, 2  # bits of decision_type; bits 2 and 3 are how missing values are treated
MISSING_NONE, MISSING_ZERO, MISSING_NAN = 0, 1, 2
VERSIONS: Final = ("v3", "v4")

SOFTMAX: Final = ("multiclass", "softmax")
LOGISTIC: Final = ("binary", "multiclassova", "cross_entropy")
EXPONENTIAL: Final = ("poisson", "gamma", "tweedie")
IDENTITY: Final = ("regression", "regression_l1", "huber", "fair", "quantile", "mape", "lambdarank", "rank_xendcg")
KNOWN: Final = (*SOFTMAX, *LOGISTIC, *EXPONENTIAL, *IDENTITY, "cross_entropy_lambda")
CLASSIFYING: Final = (*SOFTMAX, "binary", "multiclassova")


def tree_model(model: Any, float32_columns: NDArray[np.bool_]) -> TreeModel | None:
    """The trees of an LGBMClassifier, LGBMRegressor, LGBMRanker or Booster; None for anything else.

    A Booster classifies when its objective does; its classes are then 0, 1, ... Raises ConversionRefused.
    """
    if isinstance(model, lightgbm.Booster):
        native = model
    elif type(model) in (lightgbm.LGBMClassifier, lightgbm.LGBMRegressor, lightgbm.LGBMRanker):
        native = model.booster_
    else:
        return None
    booster = Booster(native.model_to_string())
    if native.pandas_categorical:
        raise ConversionRefused(_NAMED)
    classes: NDArray[Any] | None = None
    if isinstance(model, lightgbm.LGBMClassifier):
        classes = np.asarray(model.classes_)
    elif native is model and booster.objective in CLASSIFYING:
        classes = np.arange(max(2, booster.outputs))
    width = 0 if classes is None else len(classes)
    return TreeModel(
        forest=booster.forest(float32_columns),
        prepare=partial(_prepare, booster.zeros, booster.categorical, columns=native.num_feature()),
        finish=partial(_add_link, booster, classes=width),
        classes=classes,
    )


def objective_of(booster: Any) -> str:
    """A LightGBM booster's objective, by name."""
    match = re.search(r"^objective=(\S+)", booster.model_to_string(num_iteration=1), re.MULTILINE)
    return match[1] if match else ""


class Booster:
    """What the text of a booster says. `zeros`: features whose zeros are missing values; `categorical`: features split
    on codes."""

    def __init__(self, text: str) -> None:
        head, *trees = text.split("\nTree=")
        self._head = _pairs(head)
        if self._head.get("version") not in VERSIONS:
            raise ConversionRefused(f"LightGBM model format {self._head.get('version')} is not one of {VERSIONS}.")
        self.objective, *parameters = self._head.get("objective", "none").split(" ")
        if self.objective not in KNOWN:
            raise ConversionRefused(
                f"LightGBM objective {self.objective!r} is not one whose answers can be reproduced: {', '.join(KNOWN)}."
            )
        self.parameters = dict(p.partition(":")[::2] for p in parameters)
        self.outputs = int(self._head["num_tree_per_iteration"])
        self.average = "average_output" in head.split("\n")
        tables = [_pairs(tree.split("\n\n", 1)[0]) for tree in trees]
        self.iterations = len(tables) // self.outputs
        self._kinds = [_Splits(table) for table in tables]
        self.zeros = self._zero_features()
        self.categorical = sorted({int(f) for s in self._kinds for f in s.feature[s.categorical]})
        self._tables = tables

    def forest(self, float32_columns: NDArray[np.bool_]) -> Forest:
        """The trees. `float32_columns` [features]: columns that callers' tables hold as float32."""
        trees = [self._tree(i, float32_columns) for i in range(len(self._tables))]
        return plant(trees, self.outputs, "float64")

    def _tree(self, index: int, float32_columns: NDArray[np.bool_]) -> Tree:
        table, splits = self._tables[index], self._kinds[index]
        value = np.array(table["leaf_value"].split(), dtype=np.float64)
        split = _around_zero(splits.threshold)
        split = np.where(float32_columns[splits.feature], split_of_float32(split), split)
        left = splits.default_left
        # Without missing values in training, a missing value counts as zero.
        left = np.where(splits.missing == MISSING_NONE, splits.threshold >= 0, left)
        codes = splits.categorical
        return Tree(
            feature=splits.feature,
            threshold=np.where(codes, np.inf, splits.threshold),
            split=np.where(codes, np.inf, split),
            missing_left=left & ~codes,
            left=_integers(table, "left_child"),
            right=_integers(table, "right_child"),
            value=value[:, None],
            target=np.full(len(value), index % self.outputs),
            roots=np.zeros(1, dtype=np.int64),
            sets=splits.sets,
        )

    def _zero_features(self) -> list[int]:
        features = np.concatenate([s.feature for s in self._kinds])
        missing = np.concatenate([s.missing for s in self._kinds])
        zeros = set(features[missing == MISSING_ZERO].tolist())
        if mixed := zeros & set(features[missing == MISSING_NAN].tolist()):
            raise ConversionRefused(
                f"LightGBM features {sorted(mixed)} treat zero as missing in some trees and not in others, which has "
                "no ONNX form. Train with one setting of zero_as_missing."
            )
        return sorted(zeros)


_NAMED: Final = (
    "This LightGBM model was trained on named categories (pandas' category type), which MLflow's own scoring refuses "
    "as text. Train on codes: whole numbers, with categorical_feature naming their columns."
)


class _Splits:
    def __init__(self, table: Mapping[str, str]) -> None:
        if table.get("is_linear", "0") != "0":
            raise ConversionRefused("LightGBM models with linear_tree=true are not supported. Train without it.")
        kinds = _integers(table, "decision_type")
        self.categorical = (kinds & CATEGORICAL) != 0
        self.feature = _integers(table, "split_feature")
        self.threshold = np.array(table.get("threshold", "").split(), dtype=np.float64)
        self.default_left = (kinds & DEFAULT_LEFT) != 0
        self.missing = (kinds >> 2) & 3
        self.sets = {int(node): self._codes(table, int(self.threshold[node])) for node in self.categorical.nonzero()[0]}

    def _codes(self, table: Mapping[str, str], index: int) -> NDArray[np.int64]:
        """The codes of set `index`: the file holds a bit per code."""
        start, stop = _integers(table, "cat_boundaries")[index : index + 2]
        words = _integers(table, "cat_threshold")[start:stop].astype("<u4")
        return np.unpackbits(words.view(np.uint8), bitorder="little").nonzero()[0].astype(np.int64)


def _add_link(booster: Booster, *, classes: int, nodes: Nodes, raw: str) -> str:
    """Sums of leaves [rows, outputs] -> probabilities [rows, classes], or predictions [rows, 1] when there are none."""
    if booster.average:
        raw = nodes.add("Div", raw, nodes.constant(np.array(float(booster.iterations))))
    if booster.objective in SOFTMAX:
        return nodes.add("Softmax", raw, axis=1)
    if booster.objective in LOGISTIC:
        scale = float(booster.parameters.get("sigmoid", "1"))
        scaled = raw if scale == 1 else nodes.add("Mul", raw, nodes.constant(np.array(scale)))
        positive = nodes.add("Sigmoid", scaled)
        return add_complement(nodes, positive) if classes == 2 else positive
    if booster.objective in EXPONENTIAL:
        return nodes.add("Exp", raw)
    if booster.objective == "cross_entropy_lambda":
        return nodes.add("Log", nodes.add("Add", nodes.add("Exp", raw), nodes.constant(np.array(1.0))))
    if "sqrt" in booster.parameters:
        return nodes.add("Mul", raw, nodes.add("Abs", raw))
    return raw


def _prepare(zeros: Sequence[int], categorical: Sequence[int], *, columns: int, nodes: Nodes, x: str) -> str:
    """Make zeros of some features missing, which is what their splits test; cut codes to whole numbers."""
    if zeros:
        concerned = nodes.constant(np.isin(np.arange(columns), zeros))
        tiny = nodes.add("LessOrEqual", nodes.add("Abs", x), nodes.constant(np.array(ZERO)))
        x = nodes.add("Where", nodes.add("And", tiny, concerned), nodes.constant(np.array(np.nan)), x)
    if categorical:
        codes = nodes.constant(np.isin(np.arange(columns), categorical))
        whole = nodes.add("Mul", nodes.add("Sign", x), nodes.add("Floor", nodes.add("Abs", x)))
        x = nodes.add("Where", codes, whole, x)
    return x


def _around_zero(threshold: NDArray[np.float64]) -> NDArray[np.float64]:
    # LightGBM replaces |x| <= ZERO by 0 before it compares: all of that interval goes where zero goes.
    inside = np.abs(threshold) <= ZERO
    return np.where(inside, np.where(threshold >= 0, ZERO, np.nextafter(-ZERO, -np.inf)), threshold)


def _pairs(block: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in block.split("\n") if "=" in line)


def _integers(table: Mapping[str, str], key: str) -> NDArray[np.int64]:
    return np.array(table.get(key, "").split(), dtype=np.int64)
