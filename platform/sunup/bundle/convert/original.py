"""The model as it was registered: loaded by MLflow, asked through the library that made it."""

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import mlflow.catboost
import mlflow.lightgbm
import mlflow.onnx
import mlflow.sklearn
import mlflow.xgboost
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sunup.bundle.convert.answers import BOOSTERS, asking, kind_of
from sunup.bundle.convert.onnx import OnnxModel
from sunup.bundle.environment.pins import differing
from sunup.bundle.parity import Arrays
from sunup.errors import ConversionRefused
from sunup.types import PIXELS, Field

LOADERS: Final[Mapping[str, Callable[[str], Any]]] = {
    "sklearn": mlflow.sklearn.load_model,
    "lightgbm": mlflow.lightgbm.load_model,
    "catboost": mlflow.catboost.load_model,
    "onnx": mlflow.onnx.load_model,
    "xgboost": mlflow.xgboost.load_model,
}
EXTRAS: Final[Mapping[str, str]] = {
    # flavour or package whose library is an extra of its own, and which
    "catboost": "catboost",
    "keras": "keras",
    "pytorch": "torch",
    "tensorflow": "keras",
    "torch": "torch",
}


NEURAL: Final[Mapping[str, tuple[str, ...]]] = {
    # flavours of networks, and the packages their extra brings
    "keras": ("keras", "tensorflow", "tf2onnx"),
    "pytorch": ("torch", "onnxscript"),
    "tensorflow": ("keras", "tensorflow", "tf2onnx"),
}


class Original:
    """A loaded model. `answer` gives what its own library gives."""

    def __init__(self, model: Any, columns: Sequence[Field]) -> None:
        self.model = model
        self._columns = columns
        self._ask = None if isinstance(model, OnnxModel) else asking(model)
        self._named = isinstance(model, BOOSTERS) or hasattr(model, "feature_names_in_") or _mixed(columns)
        _use_one_thread(model)

    def answer(self, rows: Arrays) -> Arrays:
        """The model's outputs for columns of values [n]: see `asking`.

        Numbers become the signature's types first, as MLflow enforces them.
        """
        if self._ask is None:
            answers: Arrays = self.model.answer({c.name: _as_logged(rows[c.name], c.dtype) for c in self._columns})
            return answers
        table: Any = pd.DataFrame({c.name: _as_logged(rows[c.name], c.dtype) for c in self._columns})
        return self._ask(table if self._named else table.to_numpy())

    def takes(self, rows: Arrays) -> bool:
        """Whether the model answers these rows: not every one answers missing values, infinities or new categories."""
        try:
            self.answer(rows)
        except MemoryError:
            raise
        except Exception:  # a ValueError mostly, but each library and each model's own code has its own way to refuse
            return False
        return True


def load(folder: Path, flavor: str, columns: Sequence[Field]) -> Original:
    """Load an MLflow model folder. Raises ConversionRefused with the reason."""
    loader = LOADERS.get(flavor) or _neural(flavor, columns)
    if loader is None:
        if flavor in EXTRAS:
            raise ConversionRefused(
                f"Models of flavour {flavor} need the extra {EXTRAS[flavor]}, which is not installed here. "
                f"Run: pip install 'sunup[{EXTRAS[flavor]}]'   or log the model as ONNX, with mlflow.onnx.log_model."
            )
        raise ConversionRefused(
            f"Models of flavour {flavor} cannot be converted; {', '.join(LOADERS)} can. Log the model with one of "
            "those, as in mlflow.sklearn.log_model."
        )
    try:
        model = loader(str(folder))
    except ModuleNotFoundError as error:
        where = f"pip install 'sunup[{EXTRAS[error.name]}]'" if error.name and error.name in EXTRAS else "Install it"
        raise ConversionRefused(
            f"The model needs the Python package {error.name}, which is not installed here. {where}, or log the "
            "model without code of its own."
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # unpickling runs code of the model's author, which may raise anything
        raise ConversionRefused(f"The model cannot be loaded: {type(error).__name__}: {error}") from error
    if isinstance(model, OnnxModel):
        return Original(model, columns)
    if flavor != "onnx" and any(column.dtype == PIXELS for column in columns):
        raise ConversionRefused(
            f"A model that takes images is served from a graph; this one is of flavour {flavor}. Log it with "
            "mlflow.onnx.log_model."
        )
    if flavor == "onnx":
        return Original(OnnxModel(model, columns), columns)
    if not isinstance(model, BOOSTERS) and not kind_of(model):
        raise ConversionRefused(
            f"{type(model).__name__} is neither a classifier nor a regressor, an outlier detector or a clusterer; only "
            "those are served."
        )
    if isinstance(getattr(model, "classes_", None), list) or getattr(model, "n_outputs_", 1) != 1:
        raise ConversionRefused(f"This {type(model).__name__} has several targets. Train and register one model each.")
    return Original(model, columns)


def _neural(flavor: str, columns: Sequence[Field]) -> Callable[[str], Any] | None:
    """The loader of a network's flavour, where its library is installed."""
    if flavor not in NEURAL or any(find_spec(package) is None for package in NEURAL[flavor]):
        return None
    if flavor == "pytorch":
        from sunup.bundle.convert.neural.torch import load as load_torch  # seconds that other models do not pay

        return lambda folder: load_torch(Path(folder), flavor, columns)
    from sunup.bundle.convert.neural.keras import load as load_keras  # seconds that other models do not pay

    return lambda folder: load_keras(Path(folder), flavor, columns)


def check_requirements(requirements: Sequence[str]) -> None:
    """Refuse a model trained with another minor version of its library than this environment has.

    Raises ConversionRefused naming both versions.
    """
    for pin in differing(requirements):
        if pin.installed is None:
            raise ConversionRefused(
                f"The model needs {pin.name}=={pin.wanted}, which is not installed here. "
                f"Run: pip install {pin.name}=={pin.wanted}"
            )
        raise ConversionRefused(
            f"The model was trained with {pin.name} {pin.wanted}, but {pin.installed} is installed here, and its "
            f"answers may differ. Run: pip install {pin.name}=={pin.wanted}   or train and register the model again "
            f"with {pin.installed}."
        )


def _as_logged(values: NDArray[Any], dtype: str) -> NDArray[Any]:
    with np.errstate(over="ignore"):  # what is beyond float32 becomes infinite
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
