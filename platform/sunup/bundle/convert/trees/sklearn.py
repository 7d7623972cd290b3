"""scikit-learn's own trees, forests and boosting.

Trees, forests and GradientBoosting* round their input to float32 and compare that with float64 thresholds
(sklearn/tree/_tree.pyx); HistGradientBoosting* compares float64. A missing value goes where training sent it, or with
the larger child (missing_go_to_left).
"""

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.ensemble._iforest import _average_path_length
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier, ExtraTreeRegressor

from sunup.bundle.convert.graph import Nodes
from sunup.bundle.convert.trees.forest import Tree, plant, split_of_float32
from sunup.bundle.convert.trees.model import TreeModel, add_complement, unchanged

SINGLE: Final = (DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier, ExtraTreeRegressor)
AVERAGED: Final = (RandomForestClassifier, RandomForestRegressor, ExtraTreesClassifier, ExtraTreesRegressor)
BOOSTED: Final = (GradientBoostingClassifier, GradientBoostingRegressor)
BINNED: Final = (HistGradientBoostingClassifier, HistGradientBoostingRegressor)
ALL: Final = (*SINGLE, *AVERAGED, *BOOSTED, *BINNED, IsolationForest)


def tree_model(model: Any, float32_columns: NDArray[np.bool_]) -> TreeModel | None:
    """The trees of one of ALL; None for anything else (subclasses may predict otherwise) and for what has no such form:
    several targets, a start value that depends on the row, categorical splits.
    """
    kind = type(model)
    if kind in SINGLE or kind in AVERAGED:
        return _averaged(model) if model.n_outputs_ == 1 else None
    if kind is IsolationForest:
        return _isolating(model)
    if kind in BOOSTED:
        return _boosted(model)
    return _binned(model, float32_columns) if kind in BINNED else None


def _averaged(model: Any) -> TreeModel:
    members = model.estimators_ if type(model) in AVERAGED else [model]
    classes = getattr(model, "classes_", None)
    # With two classes the second one's share says it all, and single values keep float64 to the end.
    columns = slice(1, 2) if classes is not None and len(classes) == 2 else slice(None)
    trees = [_tree(member.tree_, member.tree_.value[:, 0, columns]) for member in members]
    outputs = trees[0].value.shape[1]
    binary = outputs == 1 and classes is not None and len(classes) == 2
    finish = partial(_finish_average, len(members), binary=binary)
    return TreeModel(plant(trees, outputs, "float32"), unchanged, finish, classes)


def _finish_average(count: int, *, binary: bool, nodes: Nodes, raw: str) -> str:
    mean = raw if count == 1 else nodes.add("Div", raw, nodes.constant(np.array(float(count))))
    return add_complement(nodes, mean) if binary else mean


def _isolating(model: Any) -> TreeModel:
    """A leaf's value is how deep it lies, with what its rows would add; the score is 2 to minus the mean's share."""
    trees = []
    lengths = zip(model._decision_path_lengths, model._average_path_length_per_tree, strict=True)
    for member, features, (path, more) in zip(model.estimators_, model.estimators_features_, lengths, strict=True):
        tree = _tree(member.tree_, (path + more - 1.0)[:, None])
        trees.append(replace(tree, feature=np.asarray(features, dtype=np.int64)[tree.feature]))
    usual = float(_average_path_length([model._max_samples])[0]) * len(trees)
    finish = partial(_finish_isolation, usual, float(model.offset_))
    return TreeModel(plant(trees, 1, "float32"), unchanged, finish, None, detects=True)


def _finish_isolation(usual: float, offset: float, *, nodes: Nodes, raw: str) -> str:
    share = nodes.add("Div", raw, nodes.constant(np.array(-usual)))
    score = nodes.add("Pow", nodes.constant(np.array(2.0)), share)
    return nodes.add("Sub", nodes.constant(np.array(-offset)), score)


def _boosted(model: Any) -> TreeModel | None:
    if model.init_ != "zero" and type(model.init_) not in (DummyClassifier, DummyRegressor):
        return None
    start = model._raw_predict_init(np.zeros((1, model.n_features_in_), dtype=np.float32))
    grid = model.estimators_  # [iterations, outputs]
    trees = [
        _tree(member.tree_, member.tree_.value[:, 0, :] * model.learning_rate, target=output)
        for row in grid
        for output, member in enumerate(row)
    ]
    classes = getattr(model, "classes_", None)
    link = _link(classes, 2.0 if getattr(model, "loss", "") == "exponential" else 1.0)
    finish = partial(_finish_boosted, np.asarray(start, dtype=np.float64), link)
    return TreeModel(plant(trees, grid.shape[1], "float32"), unchanged, finish, classes)


def _binned(model: Any, float32_columns: NDArray[np.bool_]) -> TreeModel | None:
    tables = [predictor.nodes for row in model._predictors for predictor in row]
    if getattr(model, "_preprocessor", None) is not None or any(t["is_categorical"].any() for t in tables):
        return None
    outputs = len(model._predictors[0])
    trees = [_binned_tree(table, i % outputs, float32_columns) for i, table in enumerate(tables)]
    classes = getattr(model, "classes_", None)
    exponential = classes is None and model.loss in ("poisson", "gamma")
    link = "exp" if exponential else _link(classes, 1.0)
    finish = partial(_finish_boosted, np.asarray(model._baseline_prediction, dtype=np.float64).reshape(1, -1), link)
    return TreeModel(plant(trees, outputs, "float64"), unchanged, finish, classes)


def _link(classes: Any, scale: float) -> str | float:
    if classes is None:
        return ""
    return scale if len(classes) == 2 else "softmax"


def _finish_boosted(start: NDArray[np.float64], link: str | float, *, nodes: Nodes, raw: str) -> str:
    """`link`: "softmax", "exp", "" (none), or the factor inside a sigmoid."""
    total = nodes.add("Add", raw, nodes.constant(start))
    if isinstance(link, float):
        scaled = total if link == 1 else nodes.add("Mul", total, nodes.constant(np.array(link)))
        return add_complement(nodes, nodes.add("Sigmoid", scaled))
    if link == "softmax":
        return nodes.add("Softmax", total, axis=1)
    return nodes.add("Exp", total) if link == "exp" else total


def _tree(tree: Any, value: NDArray[np.float64], target: int = 0) -> Tree:
    inner = tree.children_left != -1
    missing = tree.missing_go_to_left if hasattr(tree, "missing_go_to_left") else _missing(tree)
    threshold = np.asarray(tree.threshold[inner], dtype=np.float64)
    return _assemble(
        inner,
        (tree.children_left, tree.children_right),
        feature=np.asarray(tree.feature[inner], dtype=np.int64),
        threshold=threshold,
        split=split_of_float32(threshold),
        missing_left=np.asarray(missing[inner], dtype=np.bool_),
        value=np.asarray(value[~inner], dtype=np.float64),
        target=target,
    )


def _missing(tree: Any) -> NDArray[Any]:
    nodes: NDArray[Any] = tree.__getstate__()["nodes"]
    return nodes["missing_go_to_left"]


def _binned_tree(table: NDArray[Any], target: int, float32_columns: NDArray[np.bool_]) -> Tree:
    inner = table["is_leaf"] == 0
    feature = table["feature_idx"][inner].astype(np.int64)
    threshold = table["num_threshold"][inner].astype(np.float64)
    return _assemble(
        inner,
        (table["left"], table["right"]),
        feature=feature,
        threshold=threshold,
        split=np.where(float32_columns[feature], split_of_float32(threshold), threshold),
        missing_left=table["missing_go_to_left"][inner].astype(np.bool_),
        value=table["value"][~inner].astype(np.float64)[:, None],
        target=target,
    )


def _assemble(
    inner: NDArray[np.bool_],
    sides: Iterable[NDArray[Any]],
    *,
    feature: NDArray[np.int64],
    threshold: NDArray[np.float64],
    split: NDArray[np.float64],
    missing_left: NDArray[np.bool_],
    value: NDArray[np.float64],
    target: int,
) -> Tree:
    """A Tree from arrays over all nodes, where leaves stand among the others."""
    number = np.where(inner, np.cumsum(inner) - 1, ~(np.cumsum(~inner) - 1))
    left, right = (number[side[inner].astype(np.int64)] for side in sides)
    return Tree(
        feature=feature,
        threshold=threshold,
        split=split,
        missing_left=missing_left,
        left=left,
        right=right,
        value=value,
        target=np.full(len(value), target),
        roots=np.zeros(1, dtype=np.int64),
    )
