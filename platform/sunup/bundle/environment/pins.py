"""Whether a model was made with the versions that are installed here."""

import re
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Final, NamedTuple

from sunup.bundle.environment.uv import canonical

# Libraries whose pickles and predictions may change with their minor version, and what else each may be installed as.
STRICT: Final[Mapping[str, tuple[str, ...]]] = {
    "scikit-learn": (),
    "lightgbm": (),
    "catboost": (),
    "xgboost": ("xgboost-cpu",),
    "xgboost-cpu": ("xgboost",),
}
_PIN: Final = re.compile(r"([A-Za-z0-9._-]+)\s*==\s*([0-9][^\s;,]*)")


class Pin(NamedTuple):
    """A version a model was made with, and the one installed here, if any."""

    name: str
    wanted: str
    installed: str | None


def differing(requirements: Sequence[str]) -> list[Pin]:
    """The libraries a model was made with in another minor version than is installed here, or that are not.

    Only exact pins are judged (`scikit-learn==1.9.1`).
    """
    found = []
    for requirement in requirements:
        pin = _PIN.match(requirement.strip())
        name = canonical(pin[1]) if pin else ""
        if pin is None or name not in STRICT:
            continue
        installed = next(filter(None, map(installed_version, (name, *STRICT[name]))), None)
        if installed is None or installed.split(".")[:2] != pin[2].split(".")[:2]:
            found.append(Pin(name, pin[2], installed))
    return found


def installed_version(name: str) -> str | None:
    """The version of a distribution that is installed here."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None
