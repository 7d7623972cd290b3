"""Every library of trees under one question."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sunup.bundle.convert.trees import catboost, lightgbm, sklearn, xgboost
from sunup.bundle.convert.trees.model import TreeModel


def tree_model(model: Any, float32_columns: NDArray[np.bool_]) -> TreeModel | None:
    """The trees of a model that is made of them, whatever library made it; else None.

    `float32_columns` [features]: columns that callers' tables hold as float32. Raises ConversionRefused.
    """
    for family in (sklearn.tree_model, lightgbm.tree_model, xgboost.tree_model, catboost.tree_model):
        found = family(model, float32_columns)
        if found is not None:
            return found
    return None
