"""Small real models and the MLflow folders they are saved in, for the tests of conversion."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightgbm
import mlflow.catboost
import mlflow.lightgbm
import mlflow.onnx
import mlflow.sklearn
import mlflow.xgboost
import numpy as np
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema
from sklearn.datasets import make_classification

from sunup.bundle.convert.task import run
from sunup.bundle.evidence import PARITY
from sunup.bundle.job import Job, Result
from sunup.types import Field

MLFLOW_TYPES = {"float64": "double", "float32": "float", "int64": "long", "int32": "integer", "bool": "boolean"}
TRUSTED = (
    "collections.OrderedDict",
    "lightgbm.basic.Booster",
    "lightgbm.sklearn.LGBMClassifier",
    "lightgbm.sklearn.LGBMRegressor",
    "numpy.dtype",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.tree._tree.Tree",
    "sklearn.utils._bunch.Bunch",
    "xgboost.core.Booster",
    "xgboost.sklearn.XGBClassifier",
)


MODULES = {
    "lightgbm": mlflow.lightgbm,
    "sklearn": mlflow.sklearn,
    "xgboost": mlflow.xgboost,
    "catboost": mlflow.catboost,
    "onnx": mlflow.onnx,
}
QUIET = {"verbose": -1, "n_estimators": 15, "num_leaves": 12, "n_jobs": 1}


def boosted(**options: Any) -> lightgbm.LGBMClassifier:
    """A small LightGBM classifier, not fitted."""
    return lightgbm.LGBMClassifier(**QUIET, **options)


def table(
    *, rows: int = 600, columns: int = 6, classes: int = 3, seed: int = 0
) -> tuple[pd.DataFrame, np.ndarray[Any, Any]]:
    """Random inputs c0 ... and labels 0 ... classes - 1."""
    values, labels = make_classification(
        rows, columns, n_informative=columns - 1, n_redundant=0, n_classes=classes, random_state=seed
    )
    return pd.DataFrame(values, columns=[f"c{i}" for i in range(columns)]), labels


def fields_of(frame: pd.DataFrame) -> tuple[Field, ...]:
    """The request fields of a table's columns."""
    return tuple(
        Field(str(name), "string" if dtype.kind == "O" else str(dtype)) for name, dtype in frame.dtypes.items()
    )


def save(
    model: Any, frame: pd.DataFrame, folder: Path, *, example: bool = True, requirements: Sequence[str] = ()
) -> str:
    """Save a fitted model as MLflow does, with a signature and (`example`) its first rows. Returns its flavour."""
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    flavor = type(model).__module__.split(".")[0]
    flavor = flavor if flavor in MODULES else "sklearn"
    columns = [ColSpec(MLFLOW_TYPES.get(f.dtype, f.dtype), f.name) for f in fields_of(frame)]
    trusted = flavor == "sklearn" or isinstance(model, lightgbm.LGBMModel)
    MODULES[flavor].save_model(
        model,
        str(folder),
        signature=ModelSignature(Schema(columns)),
        input_example=frame.head(20) if example else None,
        pip_requirements=list(requirements) or ["mlflow"],
        **({"skops_trusted_types": list(TRUSTED)} if trusted else {}),
    )
    return flavor


def job(model: Any, frame: pd.DataFrame, folder: Path, **more: Any) -> Job:
    """A saved model and the job to convert it; `out` exists."""
    flavor = save(model, frame, folder / "model", **more)
    (folder / "out").mkdir()
    return Job(
        folder=str(folder / "model"),
        flavor=flavor,
        columns=fields_of(frame),
        requirements=(),
        tolerance=1e-5,
        out=str(folder / "out"),
    )


def convert(model: Any, frame: pd.DataFrame, folder: Path, **more: Any) -> tuple[Result, dict[str, Any]]:
    """Convert and prove in this process: the result and parity.json."""
    stages: list[str] = []
    result = run(job(model, frame, folder, **more), lambda name, _: stages.append(name))
    assert stages == ["convert", "prove"]
    return result, json.loads((folder / "out" / PARITY).read_bytes())
