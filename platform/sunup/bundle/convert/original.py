"""The model as it was registered: loaded by MLflow, asked through the library that made it."""

import re
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import lightgbm
import mlflow.lightgbm
import mlflow.sklearn
import numpy as np
import pandas as pd
from mlflow.models import Model
from numpy.typing import NDArray
from sklearn.base import is_classifier, is_regressor

from sunup.bundle.convert.lightgbm import CLASSIFYING
from sunup.bundle.parity import Arrays
from sunup.errors import ConversionRefused
from sunup.limits import PARITY_ROWS_MAX
from sunup.types import Field

# Libraries whose pickles and predictions may change with their minor version.
STRICT: Final = ("scikit-learn", "lightgbm")
LOADERS: Final[Mapping[str, Callable[[str], Any]]] = {
    "sklearn": mlflow.sklearn.load_model,
    "lightgbm": mlflow.lightgbm.load_model,
}
_PIN: Final = re.compile(r"([A-Za-z0-9._-]+)\s*==\s*([0-9][^\s;,]*)")


class Original:
    """A loaded model. `answer` gives what its own library gives."""

    def __init__(self, model: Any, columns: Sequence[Field]) -> None:
        self.model = model
        self._columns = columns
        self._booster = isinstance(model, lightgbm.Booster)
        self._named = self._booster or hasattr(model, "feature_names_in_") or _mixed(columns)
        _use_one_thread(model)

    def answer(self, rows: Arrays) -> Arrays:
        """The model's outputs for columns of values [n]: label and probability, or prediction.

        Numbers become the signature's types first, as MLflow enforces them.
        """
        table: Any = pd.DataFrame({c.name: _as_logged(rows[c.name], c.dtype) for c in self._columns})
        if not self._named:
            table = table.to_numpy()
        if self._booster:
            return self._answer_booster(table)
        predicted = np.asarray(self.model.predict(table))
        if not is_classifier(self.model):
            return {"prediction": predicted.astype(np.float64).reshape(len(table))}
        answers = {"label": predicted.astype(object) if predicted.dtype.kind in "UO" else predicted}
        if hasattr(self.model, "predict_proba"):
            answers["probability"] = np.asarray(self.model.predict_proba(table))
        return answers

    def _answer_booster(self, table: Any) -> Arrays:
        predicted = np.asarray(self.model.predict(table))
        if objective_of(self.model) not in CLASSIFYING:
            return {"prediction": predicted}
        both = np.column_stack([1.0 - predicted, predicted]) if predicted.ndim == 1 else predicted
        return {"label": both.argmax(axis=1), "probability": both}

    def takes_missing(self, row: Arrays) -> bool:
        """Whether the model answers rows with missing values. `row`: one row with every fraction missing."""
        try:
            self.answer(row)
        except ValueError:  # scikit-learn's and LightGBM's way to refuse NaN
            return False
        return True


def load(folder: Path, flavor: str, columns: Sequence[Field]) -> Original:
    """Load an MLflow model folder. Raises ConversionRefused with the reason."""
    loader = LOADERS.get(flavor)
    if loader is None:
        raise ConversionRefused(
            f"Models of flavour {flavor} cannot be converted; {' and '.join(LOADERS)} can. Log the model with "
            "mlflow.sklearn or mlflow.lightgbm."
        )
    try:
        model = loader(str(folder))
    except ModuleNotFoundError as error:
        raise ConversionRefused(
            f"The model needs the Python package {error.name}, which is not installed here. Install it, or log the "
            "model without code of its own."
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # unpickling runs code of the model's author, which may raise anything
        raise ConversionRefused(f"The model cannot be loaded: {type(error).__name__}: {error}") from error
    if not isinstance(model, lightgbm.Booster) and not is_classifier(model) and not is_regressor(model):
        raise ConversionRefused(
            f"{type(model).__name__} is neither a classifier nor a regressor; only those are served."
        )
    if isinstance(getattr(model, "classes_", None), list) or getattr(model, "n_outputs_", 1) != 1:
        raise ConversionRefused(f"This {type(model).__name__} has several targets. Train and register one model each.")
    return Original(model, columns)


def check_requirements(requirements: Sequence[str]) -> None:
    """Refuse a model trained with another minor version of its library than is installed here.

    Only exact pins are judged (`scikit-learn==1.9.1`). Raises ConversionRefused naming both versions.
    """
    for requirement in requirements:
        pin = _PIN.match(requirement.strip())
        name = re.sub(r"[._-]+", "-", pin[1]).lower() if pin else ""
        if pin is None or name not in STRICT:
            continue
        try:
            installed = version(name)
        except PackageNotFoundError as error:
            raise ConversionRefused(
                f"The model needs {name}=={pin[2]}, which is not installed here. Run: pip install {name}=={pin[2]}"
            ) from error
        if installed.split(".")[:2] != pin[2].split(".")[:2]:
            raise ConversionRefused(
                f"The model was trained with {name} {pin[2]}, but {installed} is installed here, and its answers may "
                f"differ. Run: pip install {name}=={pin[2]}   or train and register the model again with {installed}."
            )


def real_rows(folder: Path, columns: Sequence[Field], more: str) -> dict[str, NDArray[Any]]:
    """The model's input example and the rows of the file `more` (Parquet or .npz of columns; "" for none), by column.

    Empty arrays when there are none. Rows beyond half of what a proof compares are left out, evenly.
    """
    tables = [_table(Model.load(str(folder)).load_input_example(str(folder)), columns)]
    if more.endswith(".npz"):
        with np.load(more, allow_pickle=False) as arrays:
            tables.append(pd.DataFrame({name: arrays[name] for name in arrays.files}))
    elif more:
        tables.append(pd.read_parquet(more))
    names = [column.name for column in columns]
    for table in tables:
        if absent := [name for name in names if len(table) and name not in table.columns]:
            raise ConversionRefused(f"The model's example rows lack the columns {', '.join(absent)} of its signature.")
    whole = pd.concat([table[names] for table in tables if len(table)] or [pd.DataFrame(columns=names)])
    keep = np.linspace(0, len(whole) - 1, min(len(whole), PARITY_ROWS_MAX // 2)).astype(int)
    return {c.name: _values(whole[c.name].iloc[keep], c.dtype) for c in columns}


def objective_of(booster: Any) -> str:
    """A LightGBM booster's objective, by name."""
    match = re.search(r"^objective=(\S+)", booster.model_to_string(num_iteration=1), re.MULTILINE)
    return match[1] if match else ""


def _table(example: Any, columns: Sequence[Field]) -> Any:
    if isinstance(example, np.ndarray) and example.ndim == 2 and example.shape[1] == len(columns):
        return pd.DataFrame(example, columns=[column.name for column in columns])
    return example if isinstance(example, pd.DataFrame) else pd.DataFrame()


def _values(series: Any, dtype: str) -> NDArray[Any]:
    # Numbers travel as float64, as requests bring them; `answer` makes them what the signature says.
    values: NDArray[Any] = series.astype(object if dtype == "string" else np.float64).to_numpy()
    return values


def _as_logged(values: NDArray[Any], dtype: str) -> NDArray[Any]:
    return values.astype(object if dtype == "string" else dtype)


def _mixed(columns: Sequence[Field]) -> bool:
    return any(column.dtype == "string" for column in columns)


def _use_one_thread(model: Any) -> None:
    """Sums of several threads come in any order; recorded answers must not depend on it."""
    if not hasattr(model, "get_params"):
        return
    names = [name for name in model.get_params(deep=True) if name == "n_jobs" or name.endswith("__n_jobs")]
    if names:
        model.set_params(**dict.fromkeys(names, 1))
