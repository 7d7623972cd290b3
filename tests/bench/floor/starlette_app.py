"""Floor: the same scoring as raw_asgi.py behind Starlette's routing, request and response.

Arguments: MODEL PORT.
"""

import asyncio
import gc
import sys

import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from tests.bench.floor.raw_asgi import score
from tests.bench.floor.session import open_session


def main() -> None:
    session = open_session(sys.argv[1])

    async def predict(request: Request) -> Response:
        return Response(score(session, await request.body()), media_type="application/json")

    app = Starlette(routes=[Route("/functions/{name}", predict, methods=["POST"])])
    config = uvicorn.Config(
        app, port=int(sys.argv[2]), http="httptools", loop="none", lifespan="off",
        access_log=False, log_level="error", date_header=False, server_header=False,
    )  # fmt: skip
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(uvicorn.Server(config).serve())


if __name__ == "__main__":
    main()
