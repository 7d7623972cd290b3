"""What a model answers, asked through the library that made it: which outputs, and how they are named."""

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

import lightgbm
import numpy as np
import xgboost
from numpy.typing import NDArray
from sklearn.base import is_classifier, is_clusterer, is_outlier_detector, is_regressor

from sunup.bundle.convert.trees import lightgbm as lightgbm_family
from sunup.bundle.convert.trees import xgboost as xgboost_family

Arrays = Mapping[str, NDArray[Any]]
Ask = Callable[[Any], Arrays]
Kind = Literal["classifier", "regressor", "detector", "clusterer", ""]

BOOSTERS: Final = (lightgbm.Booster, xgboost.Booster)


def kind_of(model: Any) -> Kind:
    """What an estimator is; "" for what is none of those that are served."""
    if is_classifier(model):
        return "classifier"
    if is_regressor(model) or type(model) is xgboost.XGBRanker or type(model) is lightgbm.LGBMRanker:
        return "regressor"
    if is_outlier_detector(model):
        return "detector"
    return "clusterer" if is_clusterer(model) and hasattr(model, "predict") else ""


def asking(model: Any) -> Ask:
    """How to ask a model: a table or matrix -> its outputs, by name.

    A classifier gives label and, if it has them, probability; a regressor prediction; an outlier detector label (1 or
    -1) and score (its decision function); a clusterer label.
    """
    if isinstance(model, lightgbm.Booster):
        classifies = lightgbm_family.objective_of(model) in lightgbm_family.CLASSIFYING
        return lambda table: _raw(np.asarray(model.predict(table)), classifies)
    if isinstance(model, xgboost.Booster):
        classifies = xgboost_family.classifies(model)
        return lambda table: _raw(np.asarray(model.predict(xgboost.DMatrix(table))), classifies)
    kind = kind_of(model)

    def ask(table: Any) -> Arrays:
        predicted = np.asarray(model.predict(table))
        if kind == "regressor":
            return {"prediction": predicted.astype(np.float64).reshape(len(table))}
        predicted = predicted.reshape(len(table))  # CatBoost gives a column for several classes
        answers = {"label": predicted.astype(object) if predicted.dtype.kind in "UO" else predicted}
        if kind == "classifier" and hasattr(model, "predict_proba"):
            answers["probability"] = np.asarray(model.predict_proba(table))
        if kind == "detector":
            answers["score"] = np.asarray(model.decision_function(table), dtype=np.float64).reshape(len(table))
        return answers

    return ask


def _raw(predicted: NDArray[Any], classifies: bool) -> Arrays:
    if not classifies:
        return {"prediction": predicted}
    both = np.column_stack([1.0 - predicted, predicted]) if predicted.ndim == 1 else predicted
    return {"label": both.argmax(axis=1), "probability": both}
