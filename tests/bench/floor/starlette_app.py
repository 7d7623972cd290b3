"""Floor: the same scoring as raw_asgi.py behind Starlette's routing, request and response.

Arguments: MODEL PORT.
"""

import asyncio
import sys

import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from tests.bench.floor.raw_asgi import score
from tests.bench.floor.serving import serve
from tests.bench.floor.session import open_session


def main() -> None:
    session = open_session(sys.argv[1])

    async def predict(request: Request) -> Response:
        return Response(score(session, await request.body()), media_type="application/json")

    app = Starlette(routes=[Route("/functions/{name}", predict, methods=["POST"])])
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(app, int(sys.argv[2])))


if __name__ == "__main__":
    main()
