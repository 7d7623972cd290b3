"""The self-proof: a model on this machine must give the answers the original gave where the bundle was made.

warmup.npz holds a few rows as the model takes them (`in:<input>`) and the original's outputs for them (`out:<output>`).
Labels must be equal. Floats must lie within the manifest's tolerance, absolute up to 1 and relative beyond: they are
never bit-equal, because CPUs differ.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sunup.errors import BundleDamaged, ProofFailed

Arrays = Mapping[str, NDArray[Any]]


class Warmup(NamedTuple):
    """Rows to run first, by model input, and the original model's outputs for them, by model output."""

    feeds: Arrays
    expected: Arrays

    @property
    def rows(self) -> int:
        return max((len(array) for array in self.feeds.values()), default=0)


def read_warmup(path: Path) -> Warmup:
    """Read warmup.npz; nothing in it can be a pickle. Raises BundleDamaged."""
    feeds: dict[str, NDArray[Any]] = {}
    expected: dict[str, NDArray[Any]] = {}
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            for name in arrays.files:
                kind, _, tensor = name.partition(":")
                array = arrays[name]
                # The runtime takes strings as objects; the file keeps them as fixed-width unicode.
                (feeds if kind == "in" else expected)[tensor] = (
                    array.astype(object) if array.dtype.kind == "U" else array
                )
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise BundleDamaged(f"{path.name} cannot be read ({error}). Deploy the model again.") from error
    if not feeds or not expected:
        raise BundleDamaged(f"{path.name} holds no rows to prove the model with. Deploy the model again.")
    return Warmup(feeds, expected)


def compare(given: Arrays, expected: Arrays, tolerance: float) -> None:
    """Raises ProofFailed, naming the output, the row and the difference, unless `given` matches `expected`."""
    for name, want in expected.items():
        got = given[name]
        if got.size != want.size:
            raise ProofFailed(f"Output {name!r} has shape {list(got.shape)}; the original gave {list(want.shape)}.")
        got = got.reshape(want.shape)
        row, difference = _worst(got, want)
        if difference > (tolerance if want.dtype.kind == "f" else 0.0):
            rows = (
                f"row {row} of the warm-up rows gives {got.tolist()[row]!r}, the original gave {want.tolist()[row]!r}"
            )
            raise ProofFailed(
                f"The model does not give its recorded answers on this machine: output {name!r}, {rows} "
                f"(difference {difference:.3g}, allowed {tolerance:.3g}). The old revision still serves. "
                "Deploy again from this machine, or look for another version of ONNX Runtime."
            )


def _worst(got: NDArray[Any], want: NDArray[Any]) -> tuple[int, float]:
    """The row that differs most, and by how much: 1.0 for a label that is another one."""
    if want.dtype.kind == "f":
        scale = np.maximum(1.0, np.abs(want))
        with np.errstate(invalid="ignore"):
            apart = np.abs(got - want) / scale
        same = (got == want) | (np.isnan(got) & np.isnan(want))  # equal infinities and missing values included
        apart = np.where(same, 0.0, np.where(np.isnan(apart), np.inf, apart))
    else:
        apart = (got != want).astype(np.float64)
    by_row = apart.reshape(len(apart), -1).max(axis=1)
    row = int(by_row.argmax())
    return row, float(by_row[row])
