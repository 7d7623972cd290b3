"""One bundle served by our own connection and handler in one process, without door or engine.

Arguments: BUNDLE PORT.
"""

import asyncio
import gc
import sys
import tempfile
from pathlib import Path

import uvloop

from sunup.function import load
from sunup.link.counters import Segment
from sunup.pipeline import Pipeline
from sunup.serve.handler import FunctionHandler
from sunup.serve.http.connection import Connection
from sunup.serve.http.links import Alone
from sunup.serve.meter import Meter, worker_series


async def serve(bundle: Path, port: int, counters: Path) -> None:
    function = load(bundle, settings={}, prove=True)
    meter = Meter(Segment.create(counters, worker_series(function.manifest.function, 1, (), ())))
    pipeline = Pipeline(function, observer=meter)
    handler = FunctionHandler(pipeline, function, revision=1, meter=meter)
    links = Alone()
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(handler, links, 0), "127.0.0.1", port, backlog=1024
    )
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    await server.serve_forever()


def main() -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(serve(Path(sys.argv[1]), int(sys.argv[2]), Path(folder) / "one.seg"))


if __name__ == "__main__":
    main()
