"""CatBoost, without its library: a model writes itself as JSON, whose numbers have all their digits.

CatBoost rounds input to float32 and goes right when it is *more* than a split's border (catboost/libs/model/cpu of
version 1.2); leaves are float64 and summed so. Its own ONNX export rounds leaves to float32, so the trees are written
here as those of the other libraries are.
"""

import json
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sunup.bundle.convert.graph import Nodes
from sunup.bundle.convert.trees.forest import Forest, Tree, plant, split_of_float32
from sunup.bundle.convert.trees.model import TreeModel, add_complement, unchanged
from sunup.errors import ConversionRefused

SOFTMAX: Final = ("MultiClass",)
LOGISTIC: Final = ("Logloss", "CrossEntropy", "MultiClassOneVsAll")
EXPONENTIAL: Final = ("Poisson", "Tweedie")
IDENTITY: Final = ("RMSE", "MAE", "Quantile", "MAPE", "Lq", "Huber", "Expectile")
KNOWN: Final = (*SOFTMAX, *LOGISTIC, *EXPONENTIAL, *IDENTITY)
ESTIMATORS: Final = ("CatBoostClassifier", "CatBoostRegressor")


def is_ours(model: Any) -> bool:
    """Whether a model is one of CatBoost's estimators; told by name, for the library may not be installed."""
    kind = type(model)
    return kind.__module__.startswith("catboost.") and kind.__name__ in ESTIMATORS


def tree_model(model: Any, float32_columns: NDArray[np.bool_]) -> TreeModel | None:  # noqa: ARG001 - all are rounded
    """The trees of a CatBoostClassifier or CatBoostRegressor; None for anything else. Raises ConversionRefused."""
    if not is_ours(model):
        return None
    with tempfile.TemporaryDirectory(prefix="sunup-") as folder:
        path = Path(folder) / "model.json"
        model.save_model(str(path), format="json")
        document = json.loads(path.read_bytes())
    loss = str(document["model_info"]["params"]["loss_function"]["type"])
    if loss not in KNOWN:
        raise ConversionRefused(f"CatBoost loss {loss!r} is not one whose answers can be reproduced: {KNOWN}.")
    classes = np.asarray(model.classes_) if type(model).__name__ == "CatBoostClassifier" else None
    scale, bias = document["scale_and_bias"]
    width = 0 if classes is None else len(classes)
    finish = partial(_finish, float(scale), np.asarray(bias, dtype=np.float64).reshape(1, -1), loss, width)
    return TreeModel(_forest(document, len(bias)), unchanged, finish, classes)


def _forest(document: Mapping[str, Any], outputs: int) -> Forest:
    kinds = [kind for kind in document["features_info"] if kind.endswith("_features") and kind != "float_features"]
    named = [
        str(feature.get("feature_id") or feature["flat_feature_index"])
        for kind in kinds
        for feature in document["features_info"][kind]
    ]
    if named:
        raise ConversionRefused(
            f"This CatBoost model has categorical, text or embedding features ({', '.join(named)}), which have no "
            "exact form in ONNX. Encode them as numbers before training, without cat_features."
        )
    features = document["features_info"]["float_features"]
    oblivious = "oblivious_trees" in document
    written = document["oblivious_trees"] if oblivious else document["trees"]
    read = _oblivious if oblivious else _uneven
    trees = [tree for entry in written for tree in _per_output(read(entry, outputs), features, outputs)]
    return plant(trees, outputs, "float32")


class _Shape:
    """One tree as lists: node i splits `feature[i]` at `border[i]`; children as in Tree; `values` [leaves][outputs]."""

    def __init__(self) -> None:
        self.feature: list[int] = []
        self.border: list[float] = []
        self.left: list[int] = []
        self.right: list[int] = []
        self.values: list[list[float]] = []

    def node(self, split: Mapping[str, Any]) -> int:
        self.feature.append(int(split["float_feature_index"]))
        self.border.append(float(split["border"]))
        self.left.append(0)
        self.right.append(0)
        return len(self.feature) - 1

    def leaf(self, values: list[float]) -> int:
        self.values.append(values)
        return ~(len(self.values) - 1)


def _oblivious(entry: Mapping[str, Any], outputs: int) -> _Shape:
    """A tree with one split per level: split i decides bit i of the leaf's number."""
    shape = _Shape()
    splits = entry["splits"] or []
    leaves = np.asarray(entry["leaf_values"], dtype=np.float64).reshape(-1, outputs)

    def grow(level: int, number: int) -> int:
        if level < 0:
            return shape.leaf(leaves[number].tolist())
        node = shape.node(splits[level])
        shape.left[node] = grow(level - 1, number)
        shape.right[node] = grow(level - 1, number | 1 << level)
        return node

    grow(len(splits) - 1, 0)
    return shape


def _uneven(entry: Mapping[str, Any], outputs: int) -> _Shape:
    """A tree of grow_policy Depthwise or Lossguide."""
    shape = _Shape()

    def grow(part: Mapping[str, Any]) -> int:
        if "split" not in part:
            return shape.leaf(np.asarray(part["value"], dtype=np.float64).reshape(outputs).tolist())
        node = shape.node(part["split"])
        shape.left[node], shape.right[node] = grow(part["left"]), grow(part["right"])
        return node

    grow(entry)
    return shape


def _per_output(shape: _Shape, features: list[dict[str, Any]], outputs: int) -> list[Tree]:
    """The tree once per output: leaves of one value keep float64 to the end."""
    feature = np.array([features[i]["flat_feature_index"] for i in shape.feature], dtype=np.int64)
    threshold = np.array(shape.border, dtype=np.float32).astype(np.float64)
    # A missing value is smaller than every border unless training put it above all of them.
    left = np.array([features[i]["nan_value_treatment"] != "AsTrue" for i in shape.feature], dtype=np.bool_)
    values = np.array(shape.values, dtype=np.float64).reshape(-1, outputs)
    return [
        Tree(
            feature=feature,
            threshold=threshold,
            split=split_of_float32(threshold),
            missing_left=left,
            left=np.array(shape.left, dtype=np.int64),
            right=np.array(shape.right, dtype=np.int64),
            value=values[:, output : output + 1],
            target=np.full(len(values), output),
            roots=np.zeros(1, dtype=np.int64),
        )
        for output in range(outputs)
    ]


def _finish(scale: float, bias: NDArray[np.float64], loss: str, classes: int, *, nodes: Nodes, raw: str) -> str:
    """Sums of leaves [rows, outputs] -> probabilities [rows, classes], or predictions [rows, 1] when there are none."""
    if scale != 1:
        raw = nodes.add("Mul", raw, nodes.constant(np.array(scale)))
    total = nodes.add("Add", raw, nodes.constant(bias))
    if loss in SOFTMAX:
        return nodes.add("Softmax", total, axis=1)
    if loss in LOGISTIC:
        positive = nodes.add("Sigmoid", total)
        return add_complement(nodes, positive) if classes == 2 else positive
    return nodes.add("Exp", total) if loss in EXPONENTIAL else total
