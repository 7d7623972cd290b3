"""A function's own code, handler.py of its bundle: loaded in the one process that serves it, and called on columns."""

import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sunup.errors import BundleDamaged

Columns = dict[str, NDArray[Any]]

_MODULE: Final = "handler"


class HookFailed(Exception):
    """A hook raised, or gave what cannot be used. `refused`: its preprocess raised ValueError, that is, the values
    sent are wrong. The cause goes to the log, never to a caller."""

    def __init__(self, message: str, *, refused: bool = False) -> None:
        super().__init__(message)
        self.refused = refused


class Handler:
    """The hooks of a bundle. Raises BundleDamaged when the file cannot be imported.

    From here on this process finds what lib/ holds, after the standard library and before everything else installed;
    and it writes no compiled files, for they would change the bundle.
    """

    def __init__(self, file: Path) -> None:
        sys.dont_write_bytecode = True
        lib = file.with_name("lib")
        if lib.is_dir():
            installed = [place for place, entry in enumerate(sys.path) if entry.endswith("site-packages")]
            sys.path.insert(min(installed, default=len(sys.path)), str(lib))
        self._module = _imported(file)
        self.preprocess_or_none: Callable[[Columns], Any] | None = getattr(self._module, "preprocess", None)
        self.postprocess_or_none: Callable[[Columns, Columns], Any] | None = getattr(self._module, "postprocess", None)

    def __repr__(self) -> str:
        return f"Handler({self._module.__file__})"

    def preprocess(self, columns: Columns, count: int) -> Columns:
        """`columns` [count each] with what the hook made of them in their place. Raises HookFailed."""
        if self.preprocess_or_none is None:
            return columns
        try:
            made = self.preprocess_or_none(dict(columns))
        except ValueError as error:
            raise HookFailed("preprocess refused the values", refused=True) from error
        except Exception as error:  # whatever its author's code raises
            raise HookFailed("preprocess failed") from error
        return columns | checked("preprocess", made, count)

    def postprocess(self, columns: Columns, outputs: Columns, count: int) -> Columns:
        """The response columns [count each]. Raises HookFailed."""
        assert self.postprocess_or_none is not None
        try:
            made = self.postprocess_or_none(dict(columns), outputs)
        except Exception as error:  # whatever its author's code raises
            raise HookFailed("postprocess failed") from error
        return checked("postprocess", made, count)


def checked(hook: str, made: Any, count: int) -> Columns:
    """What a hook returned, as arrays of `count` rows. Raises HookFailed saying what is wrong with it."""
    if not isinstance(made, Mapping):
        raise HookFailed(f"{hook} returned {type(made).__name__}, not a dict of columns")
    columns: Columns = {}
    for name, values in made.items():
        try:
            array = np.asarray(values)
        except ValueError as error:
            raise HookFailed(f"{hook} returned a column {name!r} of uneven lists") from error
        if array.ndim == 0 or len(array) != count:
            have = "no rows" if array.ndim == 0 else f"{len(array)} rows"
            raise HookFailed(f"{hook} returned a column {name!r} of {have} for {count} rows")
        columns[str(name)] = array.astype(object) if array.dtype.kind == "U" else array
    return columns


def _imported(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(_MODULE, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[_MODULE] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever its author's code raises
        raise BundleDamaged(f"{file} cannot be imported: {type(error).__name__}: {error}") from error
    return module
