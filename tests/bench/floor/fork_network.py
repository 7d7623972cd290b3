"""Floor of a cold start with a large network: fork a process that has imported ONNX Runtime, open the model as it was
optimised beforehand for this machine (weights in a file of their own, which is mapped), run it once.

Arguments: MODEL IMAGES COUNT. IMAGES is a .npy file of model inputs; each start answers the next of them. The model is
optimised once, before anything is measured. Prints one JSON object: "seconds" from just before fork to the answer's
first byte in the parent, and "scores".
"""

import gc
import json
import os
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")

import numpy as np
import onnxruntime as ort
from tests.bench.floor.forked import start


def options(level: ort.GraphOptimizationLevel) -> ort.SessionOptions:
    made = ort.SessionOptions()
    made.intra_op_num_threads = made.inter_op_num_threads = 1
    made.add_session_config_entry("session.intra_op.allow_spinning", "0")
    made.enable_cpu_mem_arena = made.enable_mem_pattern = False
    made.graph_optimization_level = level
    made.log_severity_level = 3
    return made


def optimise(model: str, target: Path) -> None:
    """Write the model as the runtime would have it in memory, with its weights beside it."""
    given = options(ort.GraphOptimizationLevel.ORT_ENABLE_ALL)
    given.optimized_model_filepath = str(target)
    place = "session.optimized_model_external_initializers"
    given.add_session_config_entry(f"{place}_file_name", "weights.bin")
    given.add_session_config_entry(f"{place}_min_size_in_bytes", "1024")
    ort.InferenceSession(model, given, providers=["CPUExecutionProvider"])


def probability(model: Path, image: Any) -> float:
    given = options(ort.GraphOptimizationLevel.ORT_DISABLE_ALL)
    session = ort.InferenceSession(str(model), given, providers=["CPUExecutionProvider"])
    return float(session.run(["probability"], {"image": image})[0][0, 0])


def main() -> None:
    model, images, count = sys.argv[1], np.load(sys.argv[2]), int(sys.argv[3])
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "model.onnx"
        optimise(model, target)
        gc.collect()
        gc.freeze()
        answers = [partial(probability, target, images[i % len(images)][None]) for i in range(count + 1)]
        starts = [start(answer) for answer in answers][1:]  # behind the first, files are in the page cache
    print(json.dumps({"seconds": [s for s, _ in starts], "scores": [p for _, p in starts]}))


if __name__ == "__main__":
    main()
