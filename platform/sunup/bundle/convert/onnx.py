"""MLflow's onnx flavour: the graph is served as it is, optimised. The original is the same graph, not optimised."""

from collections.abc import Sequence
from typing import Any

from sunup.bundle.convert.examples import feeds
from sunup.bundle.convert.trees.model import Converted
from sunup.bundle.parity import Answer, Arrays
from sunup.errors import ConversionRefused
from sunup.execute.onnx import OnnxExecutor
from sunup.types import PIXELS, SCALARS, Field, Tensor


class OnnxModel:
    """A registered graph, or one that a network's library exported. `converted`: how it is served; `original`: who
    gives the answers it is compared with, if not the graph itself. Raises ConversionRefused when it cannot be served.
    """

    def __init__(self, proto: Any, columns: Sequence[Field], *, note: str = "the registered graph, optimised") -> None:
        self.original: Answer | None = None
        data = bytes(proto.SerializeToString(deterministic=True))
        try:
            # The runtime's word for "optimised" is that it shall change nothing any more.
            self._executor = OnnxExecutor(data, optimised=True)
        except Exception as error:  # whatever the runtime says of a graph it cannot load
            raise ConversionRefused(f"This ONNX model cannot be run: {str(error).splitlines()[0][:300]}") from error
        inputs = tuple(_inputs(self._executor.inputs, columns))
        outputs = tuple(self._executor.outputs)
        for tensor in (*inputs, *outputs):
            if tensor.shape[:1] != (-1,):
                raise ConversionRefused(
                    f"`{tensor.name}` of this ONNX model has shape {list(tensor.shape)}: its first dimension must be "
                    "free, for it is the number of rows. Export the model with a dynamic batch dimension."
                )
        for tensor in outputs:
            if tensor.dtype not in SCALARS:
                raise ConversionRefused(f"`{tensor.name}` of this ONNX model is {tensor.dtype}: no reply carries that.")
        self.converted = Converted(data, inputs, outputs, note=note)

    def answer(self, rows: Arrays) -> Arrays:
        """The outputs for columns of values [n], without any optimisation."""
        if self.original is not None:
            return self.original(rows)
        names = [output.name for output in self.converted.outputs]
        return dict(zip(names, self._executor.run(feeds(self.converted.inputs, rows), names), strict=True))


def _inputs(found: Sequence[Tensor], columns: Sequence[Field]) -> Sequence[Tensor]:
    """The graph's inputs with the columns that fill them, as MLflow does: one matrix of all, or one column each."""
    if any(column.dtype == PIXELS for column in columns):
        return _beside_image(found, columns)
    names = tuple(column.name for column in columns)
    if len(found) == 1 and len(found[0].shape) == 2 and found[0].shape[1] in (-1, len(columns)):
        return [Tensor(found[0].name, found[0].dtype, (found[0].shape[0], len(columns)), names)]
    for tensor in found:
        if tensor.name not in names or tensor.shape[1:] not in ((), (1,)):
            raise ConversionRefused(
                f"Input `{tensor.name}` {list(tensor.shape)} of this ONNX model is no column of its signature "
                f"({', '.join(names)}), nor one matrix of all of them. Log it with a signature that names its columns."
            )
    return [Tensor(tensor.name, tensor.dtype, tensor.shape, (tensor.name,)) for tensor in found]


def _beside_image(found: Sequence[Tensor], columns: Sequence[Field]) -> Sequence[Tensor]:
    """The same of a model that takes an image, whatever it calls it, and maybe columns beside it."""
    image = next(column for column in columns if column.dtype == PIXELS)
    taken = [tensor for tensor in found if tensor.dtype == PIXELS]
    fits = len(taken) == 1 and len(taken[0].shape) == 4
    if not fits or any(a not in (-1, b) for a, b in zip(taken[0].shape[1:], image.shape, strict=True)):
        shapes = ", ".join(f"{tensor.name} {tensor.dtype} {list(tensor.shape)}" for tensor in found)
        raise ConversionRefused(
            f"This ONNX model does not take the image of its signature, uint8 {[-1, *image.shape]}, but {shapes}. Let "
            "the graph begin with that, and cast, scale and transpose in it."
        )
    others = [column for column in columns if column is not image]
    rest = [tensor for tensor in found if tensor is not taken[0]]
    beside = list(_inputs(rest, others)) if rest or others else []
    return [Tensor(taken[0].name, PIXELS, (-1, *image.shape), (image.name,)), *beside]
