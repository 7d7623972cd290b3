"""XGBoost: trees are read from the model's own JSON, whose numbers have all digits of a float32.

Rules of XGBoost's predictor (src/predictor/cpu_predictor.cc, src/common/categorical.h of versions 2 and 3) that a plain
`x <= threshold` does not give:
- input is rounded to float32 and goes left when it is *less* than the float32 threshold;
- a missing value goes the default way; `missing` says which number is one too;
- at a split on categories, a code (cut to a whole number) in the node's set goes right, every other one left;
- base_score is kept as a prediction, and goes through the inverse of the objective's link first.
XGBoost sums float32; here the same leaves are summed in float64, which differs in the seventh digit.
"""

import json
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import numpy as np
import xgboost
from numpy.typing import NDArray
from onnx import TensorProto

from sunup.bundle.convert.graph import Nodes
from sunup.bundle.convert.trees.forest import Forest, Tree, plant, split_of_float32
from sunup.bundle.convert.trees.model import TreeModel, add_complement
from sunup.errors import ConversionRefused

ESTIMATORS: Final = (
    xgboost.XGBClassifier,
    xgboost.XGBRegressor,
    xgboost.XGBRanker,
    xgboost.XGBRFClassifier,
    xgboost.XGBRFRegressor,
)
CLASSIFIERS: Final = (xgboost.XGBClassifier, xgboost.XGBRFClassifier)
LOGISTIC: Final = ("binary:logistic", "reg:logistic")
EXPONENTIAL: Final = ("count:poisson", "reg:gamma", "reg:tweedie", "survival:cox")
IDENTITY: Final = (
    "reg:squarederror",
    "reg:linear",
    "reg:squaredlogerror",
    "reg:pseudohubererror",
    "reg:absoluteerror",
    "reg:quantileerror",
    "rank:pairwise",
    "rank:ndcg",
    "rank:map",
)
SOFTMAX: Final = "multi:softprob"
KNOWN: Final = (*LOGISTIC, *EXPONENTIAL, *IDENTITY, SOFTMAX)
CLASSIFYING: Final = ("binary:logistic", SOFTMAX)
CATEGORICAL: Final = 1  # in split_type


def tree_model(model: Any, float32_columns: NDArray[np.bool_]) -> TreeModel | None:  # noqa: ARG001 - all are rounded
    """The trees of an XGBoost estimator or Booster; None for anything else.

    A Booster classifies when its objective does; its classes are then 0, 1, ... Raises ConversionRefused.
    """
    native = isinstance(model, xgboost.Booster)
    if not native and type(model) not in ESTIMATORS:
        return None
    booster = Booster(json.loads((model if native else model.get_booster()).save_raw("json")))
    rounds = booster.rounds if native else _rounds_used(model, booster)
    classes: NDArray[Any] | None = None
    if type(model) in CLASSIFIERS:
        classes = np.asarray(model.classes_)
        if booster.objective not in CLASSIFYING:
            raise ConversionRefused(f"An XGBoost classifier with objective {booster.objective!r} has no probabilities.")
    elif native and booster.objective in CLASSIFYING:
        classes = np.arange(max(2, booster.outputs))
    missing = np.nan if native else float(model.missing)
    forest = booster.forest(rounds)
    return TreeModel(
        forest=forest,
        prepare=partial(_prepare, booster.categorical, missing, booster.features),
        finish=partial(_finish, booster.margin(), booster.objective, binary=classes is not None and len(classes) == 2),
        classes=classes,
    )


def classifies(model: Any) -> bool:
    """Whether a Booster's predictions are probabilities of classes."""
    return objective_of(model) in CLASSIFYING


def objective_of(booster: Any) -> str:
    """A Booster's objective, by name."""
    return str(json.loads(booster.save_config())["learner"]["objective"]["name"])


class Booster:
    """What the JSON of a booster says. `rounds`: boosting rounds there are; `categorical`: features split on codes."""

    def __init__(self, document: dict[str, Any]) -> None:
        learner = document["learner"]
        self.objective = str(learner["objective"]["name"])
        if self.objective not in KNOWN:
            raise ConversionRefused(
                f"XGBoost objective {self.objective!r} is not one whose answers can be reproduced: {', '.join(KNOWN)}."
            )
        parameters = learner["learner_model_param"]
        if int(parameters.get("num_target", 1)) > 1:
            raise ConversionRefused("This XGBoost model has several targets. Train and register one model each.")
        self.features = int(parameters["num_feature"])
        self.outputs = max(1, int(parameters["num_class"]))
        self._base = np.atleast_1d(np.asarray(json.loads(parameters["base_score"]), dtype=np.float32))
        gradient = learner["gradient_booster"]
        if gradient["name"] not in ("gbtree", "dart"):
            raise ConversionRefused("XGBoost's linear booster is not supported. Train with booster='gbtree' or 'dart'.")
        model = gradient["gbtree"]["model"] if gradient["name"] == "dart" else gradient["model"]
        if any(names.get("values") for names in model.get("cats", {}).get("enc", ())):
            raise ConversionRefused(_NAMED)
        self._trees = model["trees"]
        self._weights = np.asarray(gradient.get("weight_drop", np.ones(len(self._trees))), dtype=np.float32)
        self._target = model["tree_info"]
        indptr = model.get("iteration_indptr")
        per_round = self.outputs * int(model["gbtree_model_param"]["num_parallel_tree"])
        self._ends = indptr[1:] if indptr else list(range(per_round, len(self._trees) + 1, per_round))
        self.rounds = len(self._ends)
        used = [np.asarray(t["split_indices"])[np.asarray(t["split_type"]) == CATEGORICAL] for t in self._trees]
        self.categorical = sorted({int(feature) for features in used for feature in features})

    def forest(self, rounds: int) -> Forest:
        """The trees of the first rounds."""
        count = self._ends[rounds - 1] if rounds else 0
        if count == 0:
            raise ConversionRefused("This XGBoost model has no trees.")
        return plant([self._tree(i) for i in range(count)], self.outputs, "float32")

    def margin(self) -> NDArray[np.float64]:
        """[1, 1 or outputs]: what the sums of leaves start from."""
        base = self._base
        if self.objective in LOGISTIC:
            base = -np.log(np.float32(1.0) / base - np.float32(1.0))
        elif self.objective in EXPONENTIAL:
            base = np.log(base)
        return base.astype(np.float64).reshape(1, -1)

    def _tree(self, index: int) -> Tree:
        table = self._trees[index]
        left, right = np.asarray(table["left_children"]), np.asarray(table["right_children"])
        if int(table["tree_param"].get("size_leaf_vector", 1)) > 1:
            raise ConversionRefused("This XGBoost model has several values per leaf. Train with one_output_per_tree.")
        condition = np.asarray(table["split_conditions"], dtype=np.float32)
        inner = left != -1
        number = np.where(inner, np.cumsum(inner) - 1, ~(np.cumsum(~inner) - 1))
        codes = np.asarray(table["split_type"])[inner] == CATEGORICAL
        to_left, to_right = number[left[inner]], number[right[inner]]
        default = np.asarray(table["default_left"], dtype=np.bool_)[inner]
        # x < t is x <= the float32 below t. A set's codes go right in XGBoost and left in a Tree: the sides change.
        threshold = np.nextafter(condition[inner], np.float32(-np.inf)).astype(np.float64)
        threshold = np.where(codes, np.inf, threshold)
        sets = {int(number[n]): chosen for n, chosen in _sets(table).items()}
        return Tree(
            feature=np.asarray(table["split_indices"], dtype=np.int64)[inner],
            threshold=threshold,
            split=np.where(codes, np.inf, split_of_float32(np.where(codes, 0.0, threshold))),
            missing_left=np.where(codes, ~default, default),
            left=np.where(codes, to_right, to_left),
            right=np.where(codes, to_left, to_right),
            value=(condition[~inner] * self._weights[index]).astype(np.float64)[:, None],
            target=np.full(int((~inner).sum()), self._target[index]),
            roots=np.zeros(1, dtype=np.int64),
            sets=sets,
        )


_NAMED: Final = (
    "This XGBoost model was trained on named categories (pandas' category type), which MLflow's own scoring refuses as "
    "text. Train on codes: whole numbers, with feature_types saying 'c' for their columns."
)


def _sets(table: dict[str, Any]) -> dict[int, NDArray[np.int64]]:
    """Node of the file -> the codes of its set."""
    starts, sizes = table["categories_segments"], table["categories_sizes"]
    codes = np.asarray(table["categories"], dtype=np.int64)
    return {
        node: np.sort(codes[start : start + size])
        for node, start, size in zip(table["categories_nodes"], starts, sizes, strict=True)
    }


def _rounds_used(model: Any, booster: Booster) -> int:
    """The rounds an estimator predicts with: up to the best one where early stopping found it."""
    best = model.get_booster().attr("best_iteration")
    return booster.rounds if best is None else int(best) + 1


def _prepare(categorical: Sequence[int], missing: float, columns: int, *, nodes: Nodes, x: str) -> str:
    """Make `missing` a missing value and codes whole numbers, as XGBoost does in float32."""
    if np.isnan(missing) and not len(categorical):
        return x
    rounded = nodes.add("Cast", nodes.add("Cast", x, to=TensorProto.FLOAT), to=TensorProto.DOUBLE)
    if len(categorical):
        codes = nodes.constant(np.isin(np.arange(columns), categorical))
        x = nodes.add("Where", codes, nodes.add("Floor", rounded), x)
    if not np.isnan(missing):
        absent = nodes.add("Equal", rounded, nodes.constant(np.array(float(np.float32(missing)))))
        x = nodes.add("Where", absent, nodes.constant(np.array(np.nan)), x)
    return x


def _finish(margin: NDArray[np.float64], objective: str, *, binary: bool, nodes: Nodes, raw: str) -> str:
    """Sums of leaves [rows, outputs] -> probabilities [rows, classes], or predictions [rows, 1]."""
    total = nodes.add("Add", raw, nodes.constant(margin))
    if objective == SOFTMAX:
        return nodes.add("Softmax", total, axis=1)
    if objective in LOGISTIC:
        positive = nodes.add("Sigmoid", total)
        return add_complement(nodes, positive) if binary else positive
    return nodes.add("Exp", total) if objective in EXPONENTIAL else total
