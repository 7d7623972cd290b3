"""Floor of a cold start: fork a process that has imported ONNX Runtime, open the model in the child, run it once.

Arguments: MODEL ROWS COUNT. ROWS is a .npy file of model input rows; each start answers the next of them. Prints one
JSON object: "seconds" from just before fork to the answer's first byte in the parent, and "scores".
"""

import gc
import json
import os
import struct
import sys
from time import perf_counter

os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")

import numpy as np
from tests.bench.floor.session import open_session


def start(model: str, row: "np.ndarray[tuple[int, int], np.dtype[np.float32]]") -> tuple[float, float]:
    """Seconds to the first byte, and the score."""
    began = perf_counter()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        p = float(open_session(model).run(["probability"], {"input": row})[0][0, 1])
        os.write(write, struct.pack("d", p))
        os._exit(0)
    os.close(write)
    answer = os.read(read, 8)
    seconds = perf_counter() - began
    os.close(read)
    os.waitpid(pid, 0)
    return seconds, struct.unpack("d", answer)[0]


def main() -> None:
    model, rows, count = sys.argv[1], np.load(sys.argv[2]).astype(np.float32), int(sys.argv[3])
    gc.collect()
    gc.freeze()
    starts = [start(model, rows[i % len(rows)][None]) for i in range(count)]
    print(json.dumps({"seconds": [s for s, _ in starts], "scores": [p for _, p in starts]}))


if __name__ == "__main__":
    main()
