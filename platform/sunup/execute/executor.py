"""What runs a model. The pipeline knows no more of it than this."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from sunup.types import Tensor


class Executor(Protocol):
    """A loaded model. `run` may be called from several threads at once; `close` is the last call."""

    @property
    def inputs(self) -> Sequence[Tensor]:
        """The model's inputs; -1 in a shape is a dimension free to differ per run."""
        ...

    @property
    def outputs(self) -> Sequence[Tensor]:
        """The model's outputs, all of them; a run asks for some."""
        ...

    def run(self, feeds: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> list[NDArray[Any]]:
        """The named outputs, in that order, for one batch: every array's first dimension is the rows, in order.

        Strings travel as object arrays of str. Raises whatever the runtime raises, and ValueError for names or types
        that do not fit the model; the caller decides what of it is public.
        """
        ...

    def close(self) -> None:
        """Give the model's memory back."""
        ...
