"""A nursery whose children open a real model, run it once and say so: `python -m tests.nursery_program RUN OWN_FD`."""

import os
import sys
from typing import Any

from sunup.link.process import inherit_listener
from sunup.rehearsal import rehearse
from sunup.serve.nursery import Nursery


def child(spec: dict[str, Any], fds: list[int]) -> None:
    import numpy as np

    from sunup.execute.onnx import OnnxExecutor

    executor = OnnxExecutor(bytes.fromhex(spec["model"]), optimised=False)
    answer = executor.run({"x": np.array([[spec["x"]]])}, ["y"])[0]
    os.write(fds[0], str(float(answer[0, 0])).encode())


if __name__ == "__main__":
    rehearse()
    Nursery(inherit_listener(int(sys.argv[2])), child).run()
