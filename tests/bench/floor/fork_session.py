"""Floor of a cold start: fork a process that has imported ONNX Runtime, open the model in the child, run it once.

Arguments: MODEL ROWS COUNT. ROWS is a .npy file of model input rows; each start answers the next of them. Prints one
JSON object: "seconds" from just before fork to the answer's first byte in the parent, and "scores".
"""

import gc
import json
import os
import sys
from functools import partial

os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")

import numpy as np
from tests.bench.floor.forked import start
from tests.bench.floor.session import open_session


def score(model: str, row: "np.ndarray[tuple[int, int], np.dtype[np.float32]]") -> float:
    return float(open_session(model).run(["probability"], {"input": row})[0][0, 1])


def main() -> None:
    model, rows, count = sys.argv[1], np.load(sys.argv[2]).astype(np.float32), int(sys.argv[3])
    gc.collect()
    gc.freeze()
    starts = [start(partial(score, model, rows[i % len(rows)][None])) for i in range(count)]
    print(json.dumps({"seconds": [s for s, _ in starts], "scores": [p for _, p in starts]}))


if __name__ == "__main__":
    main()
