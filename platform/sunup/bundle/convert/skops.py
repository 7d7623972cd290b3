"""Models in skops' format: read without unpickling, and only types that are known here or that the deployer trusts.

skops rebuilds a model from a list of the types it names, and refuses those beyond its own list. MLflow takes the
exceptions from the MLmodel file, which comes with the model: its author's word for it. Here the deployer's is asked.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import skops.io  # type: ignore[import-untyped]
from mlflow.models import Model

from sunup.errors import ConversionRefused

LIBRARIES: Final = ("catboost.", "lightgbm.", "sklearn.", "xgboost.")  # whose models these are; they are installed here
BOOSTER: Final = "lightgbm.basic.Booster"
PLAIN: Final = ("collections.OrderedDict", "numpy.dtype")  # containers of theirs that do nothing


def check_types(folder: Path, flavor: str, trusted: Sequence[str]) -> tuple[str, ...]:
    """The types a model's skops file names beyond skops' own list, sorted; none for another format.

    Raises ConversionRefused naming those that are neither of the libraries models come from nor in `trusted`.
    """
    options: dict[str, Any] = Model.load(str(folder)).flavors.get(flavor, {})
    # A plain Booster is LightGBM's own text, whatever MLflow notes beside it.
    if options.get("serialization_format") != "skops" or options.get("model_class") == BOOSTER:
        return ()
    file = folder / str(options.get("pickled_model") or options.get("data"))
    try:
        types = tuple(sorted(skops.io.get_untrusted_types(file=file)))
    except Exception as error:  # whatever a file that is none makes it raise
        reason = f"{type(error).__name__}: {error}"
        raise ConversionRefused(f"{file.name} cannot be read as a skops file: {reason}") from error
    unknown = [name for name in types if not name.startswith(LIBRARIES) and name not in (*PLAIN, *trusted)]
    if unknown:
        listed = ", ".join(f'"{name}"' for name in unknown)
        raise ConversionRefused(
            f"The model names types that are not known here: {', '.join(unknown)}. If you trust them, write "
            f"trusted = [{listed}] under [function] of function.toml; else deploy another version."
        )
    return types
