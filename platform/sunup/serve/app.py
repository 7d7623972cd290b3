"""Everything about functions that needs no model, as a Starlette app over the pages.

The same app answers in a worker, for its one function, and in the front, for all of them.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request as Asked
from starlette.responses import Response as Answer
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sunup.access.guard import Guard, Headers, given_in
from sunup.errors import CallError, MethodNotAllowed, UnknownFunction
from sunup.serve.http.coding import compressed
from sunup.serve.http.message import Request, Response, error_body, header
from sunup.serve.pages.docs import Docs, swagger_files
from sunup.serve.pages.models import KServe, Models, Statistics
from sunup.serve.pages.native import Functions
from sunup.serve.pages.scoring import Scoring
from sunup.serve.pages.table import Part, Table

NO_BODY: Final[Message] = {"type": "http.disconnect"}


class Scoped:
    """The app over what the key of each request covers, as if there were nothing else. `guard()`: who may call now;
    without a key, only what says nothing of functions gets here. The other arguments as of `build`."""

    def __init__(
        self, table: Table, counters: Path, guard: Callable[[], Guard | None], ready: Callable[[], bool] = lambda: True
    ) -> None:
        self._table = table
        self._build = partial(build, counters=counters, ready=ready)
        self._guard = guard
        self._whole = self._build(table)
        self._apps: dict[frozenset[str], ASGIApp] = {}
        self._of: Guard | None = None  # whose scopes these are

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope["headers"])(scope, receive, send)

    def _app(self, headers: Headers) -> ASGIApp:
        guard = self._guard()
        if guard is None or guard.keys is None:
            return self._whole
        if guard is not self._of:
            self._of = guard
            self._apps.clear()
        key = guard.find(given_in(headers))
        if key is not None and key.functions is None:
            return self._whole
        covered = frozenset(key.functions or ()) if key is not None else frozenset()
        if covered not in self._apps:
            self._apps[covered] = self._build(Part(self._table, covered))
        return self._apps[covered]


def build(table: Table, counters: Path, ready: Callable[[], bool] = lambda: True) -> ASGIApp:
    """The app over `table`, which is looked at anew for every request. `counters`: the folder of workers' counters;
    `ready()`: whether the server is."""
    f, m, k, s = Functions(table), Models(table, ready), KServe(table), Scoring(table)
    stats, docs = Statistics(table, counters), Docs(swagger_files())
    routes = [
        Route("/", f.greet),
        Route("/openapi.json", f.openapi),
        Route("/docs", docs.page),
        Route("/docs/start.js", docs.start),
        Route("/docs/{file}", docs.file),
        Route("/functions", f.functions),
        Route("/functions/{name}", f.function, methods=["GET", "POST"]),
        Route("/functions/{name}/ready", f.function_ready),
        Route("/functions/{name}/ping", s.ping),
        Route("/functions/{name}/health", s.ping),
        Route("/functions/{name}/version", s.version),
        Route("/functions/{name}/invocations", s.invocations, methods=["POST"]),
        Route("/v1/models", m.models),
        Route("/v1/models/{name}:predict", k.predict, methods=["GET", "POST"]),
        Route("/v1/models/{name}", k.model),
        Route("/v2", m.server),
        Route("/v2/health/live", m.live),
        Route("/v2/health/ready", m.ready),
        Route("/v2/models", m.models),
        Route("/v2/models/stats", stats.models),
        Route("/v2/repository/index", m.index, methods=["POST"]),
    ]
    for path in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
        routes += [Route(path, m.model), Route(f"{path}/ready", m.model_ready), Route(f"{path}/stats", stats.model)]
        routes.append(Route(f"{path}/infer", m.infer, methods=["POST"]))
    app = Starlette(routes=routes, exception_handlers={CallError: _explain, HTTPException: _explain})
    app.router.redirect_slashes = False
    return app


async def call_app(app: ASGIApp, request: Request) -> Response:
    """One request through an ASGI app, in this process."""
    if request.target == b"*":  # OPTIONS of the whole server (RFC 9110, 9.3.7)
        return Response(200, [(b"allow", b"GET, HEAD, OPTIONS, POST")], b"")
    path, _, query = request.target.partition(b"?")
    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": request.method.decode(),
        "scheme": "http",
        "path": unquote(path.decode("latin-1")),
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": request.headers,
        "client": None,
        "server": None,
    }
    incoming: list[Message] = [{"type": "http.request", "body": request.body, "more_body": False}]
    answer = Response(500, [], b"")

    async def receive() -> Message:
        return incoming.pop() if incoming else NO_BODY

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = [(n, v) for n, v in message.get("headers", ()) if n != b"content-length"]
        else:
            answer.body += message.get("body", b"")

    await app(scope, receive, send)
    if accepts := header(request, b"accept-encoding"):
        answer.body = compressed(answer.body, answer.headers, accepts)
    return answer


async def _explain(asked: Asked, error: Exception) -> Answer:
    """An error in the shape of the protocol that the path belongs to."""
    headers = {}
    if isinstance(error, HTTPException):
        headers = dict(error.headers or {})
        path = asked.url.path
        if error.status_code == 405:
            taken = headers["Allow"] = ", ".join(sorted(headers.get("Allow", "none").split(", ")))  # it gives a set
            error = MethodNotAllowed(f"{path} does not take {asked.method}. It takes {taken}.")
        else:
            error = UnknownFunction(f"There is nothing at {path}. GET /functions lists what there is.")
    assert isinstance(error, CallError)
    if error.retry:
        headers["retry-after"] = str(error.retry_after_s)
    return Answer(error_body(error, asked.scope["path"].encode()), error.status, headers, "application/json")
