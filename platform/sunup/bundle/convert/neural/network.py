"""What Keras' and PyTorch's networks have in common: a graph they export, asked beside the network itself."""

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, helper

from sunup.bundle.convert.examples import feeds
from sunup.bundle.convert.onnx import OnnxModel
from sunup.bundle.parity import Arrays
from sunup.errors import ConversionRefused
from sunup.types import Field

Network = Callable[[Sequence[NDArray[Any]]], Sequence[NDArray[Any]]]

LARGEST: Final = 1e6  # beyond it float32 sums hang on the order in which a library adds


def served(proto: ModelProto, network: Network, columns: Sequence[Field], note: str) -> OnnxModel:
    """A network as it is served. `network`: its inputs in the graph's order -> its outputs, float32.

    Raises ConversionRefused for inputs that are no columns, or more outputs than the graph has.
    """
    model = OnnxModel(_named(proto), columns, note=note)
    converted = model.converted
    names = [output.name for output in converted.outputs]

    def ask(rows: Arrays) -> Arrays:
        given = list(feeds(converted.inputs, rows).values())
        for array in given:
            # What libraries make of missing values (a maximum with nothing, say) and of sums of huge ones differs: that
            # is listed as refused, and proven is what lies within.
            if array.dtype.kind == "f" and not (np.abs(array) <= LARGEST).all():
                raise ValueError("missing, infinite or huge values")
        answers = [np.asarray(answer) for answer in network(given)]
        if len(answers) != len(names):
            raise ConversionRefused(f"This network gives {len(answers)} outputs, and its graph {len(names)}.")
        return dict(zip(names, answers, strict=True))

    model.original = ask
    return model


def _named(proto: ModelProto) -> ModelProto:
    """The graph with outputs called `output`, or `output_0` ...: exporters call them what they like."""
    graph = proto.graph
    many = len(graph.output) > 1
    for place, output in enumerate(graph.output):
        name = f"output_{place}" if many else "output"
        if name != output.name:
            graph.node.append(helper.make_node("Identity", [output.name], [name]))
            output.name = name
    return proto
