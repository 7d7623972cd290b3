"""Models in ONNX, run by ONNX Runtime on the CPU. The only file that names onnxruntime.

Small models are the rule here: a run costs 10-50 us, so every thread pool, arena and spin loop the runtime offers would
cost more than it gives, and a session without threads survives the fork that makes a worker.
"""

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read at import; without it the official builds report every session made
import onnxruntime as ort

from sunup.types import PIXELS, Tensor

_DTYPES: Final[Mapping[str, str]] = {
    "tensor(bool)": "bool",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(string)": "string",
    "tensor(uint8)": PIXELS,
}
_PROVIDERS: Final = ["CPUExecutionProvider"]
_SPREAD_BYTES_MIN: Final = 1024  # smaller tensors stay in the graph: a page each would be wasted on them
_ERRORS_ONLY: Final = 3  # the runtime's log level; its warnings go to stderr once per batch


class OnnxExecutor:
    """A loaded ONNX model. `model` is a file or its bytes.

    `optimised`: the graph already went through `optimise`, so loading does not do it again. `layout`: loading arranges
    the weights of convolutions as this machine's processor likes them best, which halves the run of a small network.
    `threads` beyond one start a pool, which must not exist before a fork. Raises ValueError for an input or output of a
    type we do not carry, and the runtime's own exceptions for bytes that are no model.
    """

    def __init__(self, model: Path | bytes, *, optimised: bool, layout: bool = False, threads: int = 1) -> None:
        levels = ort.GraphOptimizationLevel
        options = _options(threads)
        options.graph_optimization_level = levels.ORT_DISABLE_ALL if optimised else levels.ORT_ENABLE_EXTENDED
        if layout:
            options.graph_optimization_level = levels.ORT_ENABLE_ALL
        source = model if isinstance(model, bytes) else str(model)
        self._session = ort.InferenceSession(source, options, providers=_PROVIDERS)
        self.inputs: Sequence[Tensor] = tuple(_tensor(node) for node in self._session.get_inputs())
        self.outputs: Sequence[Tensor] = tuple(_tensor(node) for node in self._session.get_outputs())
        self._run = self._session.run

    def __repr__(self) -> str:
        return f"OnnxExecutor({', '.join(t.name for t in self.inputs)} -> {', '.join(t.name for t in self.outputs)})"

    def run(self, feeds: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> list[NDArray[Any]]:
        """See Executor.run. Releases the interpreter lock while the model runs."""
        results: list[NDArray[Any]] = self._run(outputs, feeds)
        return results

    def close(self) -> None:
        """Drop the session, and with it the model's memory."""
        del self._session, self._run


def optimise(model: bytes) -> bytes:
    """The model with the rewrites that suit any machine done (ORT_ENABLE_EXTENDED, no layout changes).

    The same bytes give the same bytes for one version of the runtime, so bundles stay content-addressed.
    """
    with tempfile.TemporaryDirectory(prefix="sunup-") as folder:
        target = Path(folder) / "model.onnx"
        options = _options(threads=1)
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(target)
        ort.InferenceSession(model, options, providers=_PROVIDERS)
        return target.read_bytes()


def spread(model: Path, target: Path, weights: str, *, layout: bool) -> None:
    """Write `model` to `target` as OnnxExecutor would have it in memory, its larger tensors in the file
    `weights` beside it, from where a session maps them. `layout`: see OnnxExecutor. It suits this machine only.
    """
    options = _options(threads=1)
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if layout else levels.ORT_DISABLE_ALL
    options.optimized_model_filepath = str(target)
    place = "session.optimized_model_external_initializers"
    options.add_session_config_entry(f"{place}_file_name", weights)
    options.add_session_config_entry(f"{place}_min_size_in_bytes", str(_SPREAD_BYTES_MIN))
    ort.InferenceSession(str(model), options, providers=_PROVIDERS)


def runtime() -> str:
    """The version of ONNX Runtime: part of what a self-proof is valid for."""
    return str(ort.__version__)


def _options(threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_cpu_mem_arena = False  # an arena keeps the memory of the largest batch for ever
    options.enable_mem_pattern = False  # patterns are kept per input shape, and every batch size is another shape
    options.log_severity_level = _ERRORS_ONLY
    return options


def _tensor(node: Any) -> Tensor:
    if node.type not in _DTYPES:
        raise ValueError(f"{node.name} is {node.type}; carried are {', '.join(_DTYPES)}")
    shape = tuple(size if isinstance(size, int) else -1 for size in node.shape)
    return Tensor(node.name, _DTYPES[node.type], shape)
