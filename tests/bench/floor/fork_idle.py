"""Floor of a warm function's memory: children of a process that has imported what the nursery has, each holding the
model's session and an empty event loop.

Arguments: MODEL COUNT. Prints {"pids": [parent, child, ...]} and waits for the end of its input.
"""

import asyncio
import gc
import json
import os
import sys

os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")

import uvloop
from tests.bench.floor.session import open_session

from sunup.rehearsal import rehearse
from sunup.serve import nursery


def idle(model: str, ready: int, end: int) -> None:
    """A child: until `end` can be read."""
    session = open_session(model)
    os.write(ready, b"1")

    async def wait() -> None:
        over = asyncio.Event()
        asyncio.get_running_loop().add_reader(end, over.set)
        await over.wait()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(wait())
    del session


def main() -> None:
    assert nursery
    model, count = sys.argv[1], int(sys.argv[2])
    rehearse()
    gc.collect()
    gc.freeze()
    ready, told = os.pipe()
    end, keep = os.pipe()
    pids = [os.getpid()]
    for _ in range(count):
        pid = os.fork()
        if pid == 0:
            os.close(keep)
            idle(model, told, end)
            os._exit(0)
        os.read(ready, 1)
        pids.append(pid)
    print(json.dumps({"pids": pids}), flush=True)
    sys.stdin.readline()
    os.close(keep)
    for pid in pids[1:]:
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
