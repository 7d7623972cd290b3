"""Everything about functions that needs no model: what there is, what it takes, whether it is ready. A Starlette app.

The same app answers in a worker, for its one function, and in the front, for all of them.
"""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request as Asked
from starlette.responses import Response as Answer
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Scope

from sunup import __version__
from sunup.bundle.manifest import Manifest
from sunup.errors import CallError, MethodNotAllowed, Unavailable, UnknownFunction
from sunup.serve.describe import describe, metadata, openapi
from sunup.serve.http.message import Request, Response, error_body

NAMES_SHOWN: Final = 20  # names an error lists; more would bury it
EXTENSIONS: Final[tuple[str, ...]] = ()  # of the Open Inference Protocol

NO_BODY: Final[Message] = {"type": "http.disconnect"}


class Entry(msgspec.Struct, frozen=True):
    """A deployed function. `state`: ready, starting, cold (at zero: the next call wakes it) or failed."""

    manifest: Manifest
    revision: int
    state: str

    @property
    def ready(self) -> bool:
        """Whether a call would be answered, at once or after waking a worker."""
        return self.state != "failed"

    @property
    def model(self) -> str:
        return f"{self.manifest.model.name}/{self.manifest.model.version}"


Table = Mapping[str, Entry]  # by function name


class Functions:
    """The native endpoints, over a table that may change under them."""

    def __init__(self, table: Table) -> None:
        self._table = table

    async def greet(self, _: Asked) -> Answer:
        """GET /"""
        lines = [f"Sunup {__version__}", "", "GET /functions       what is deployed"]
        lines += ["GET /openapi.json    how to call it", "POST /functions/NAME a prediction", ""]
        return Answer("\n".join(lines), media_type="text/plain")

    async def functions(self, _: Asked) -> Answer:
        """GET /functions"""
        listed = [
            {"name": name, "revision": e.revision, "model": e.model, "state": e.state, "url": f"/functions/{name}"}
            for name, e in sorted(self._table.items())
        ]
        return _json({"functions": listed})

    async def function(self, asked: Asked) -> Answer:
        """GET /functions/F; other methods reach here only where no worker is."""
        entry = _entry(self._table, asked)
        if asked.method == "POST":
            raise Unavailable("This process has no model. Try again.")
        return _json(describe(entry.manifest, entry.revision, entry.state))

    async def function_ready(self, asked: Asked) -> Answer:
        """GET /functions/F/ready"""
        entry = _entry(self._table, asked)
        said = {"function": entry.manifest.function, "ready": entry.ready}
        return _json({**said, "state": entry.state, "revision": entry.revision}, 200 if entry.ready else 503)

    async def openapi(self, _: Asked) -> Answer:
        """GET /openapi.json"""
        return _json(openapi([self._table[name].manifest for name in sorted(self._table)]))


class Models:
    """The endpoints of the Open Inference Protocol v2 and KServe v1, over the same table."""

    def __init__(self, table: Table) -> None:
        self._table = table

    async def server(self, _: Asked) -> Answer:
        """GET /v2"""
        return _json({"name": "sunup", "version": __version__, "extensions": EXTENSIONS})

    async def live(self, _: Asked) -> Answer:
        """GET /v2/health/live"""
        return _json({"live": True})

    async def ready(self, _: Asked) -> Answer:
        """GET /v2/health/ready"""
        return _json({"ready": True})

    async def models(self, _: Asked) -> Answer:
        """GET /v2/models, GET /v1/models"""
        return _json({"models": sorted(self._table)})

    async def index(self, _: Asked) -> Answer:
        """POST /v2/repository/index"""
        return _json(
            [
                {
                    "name": name,
                    "version": e.manifest.model.version,
                    "state": "READY" if e.ready else "UNAVAILABLE",
                    "reason": "" if e.ready else "its last worker could not start",
                }
                for name, e in sorted(self._table.items())
            ]
        )

    async def model(self, asked: Asked) -> Answer:
        """GET /v2/models/F[/versions/V]"""
        return Answer(metadata(_entry(self._table, asked).manifest), media_type="application/json")

    async def model_ready(self, asked: Asked) -> Answer:
        """GET /v2/models/F[/versions/V]/ready"""
        entry = _entry(self._table, asked)
        said = {"name": entry.manifest.function, "ready": entry.ready}
        return _json(said, 200 if entry.ready else 503)

    async def infer(self, asked: Asked) -> Answer:
        """POST /v2/models/F[/versions/V]/infer of what no worker answered."""
        _entry(self._table, asked)
        raise Unavailable("This process has no model. Try again.")


def build(table: Table) -> ASGIApp:
    """The app over `table`, which is looked at anew for every request."""
    f, m = Functions(table), Models(table)
    routes = [
        Route("/", f.greet),
        Route("/openapi.json", f.openapi),
        Route("/functions", f.functions),
        Route("/functions/{name}", f.function, methods=["GET", "POST"]),
        Route("/functions/{name}/ready", f.function_ready),
        Route("/v1/models", m.models),
        Route("/v2", m.server),
        Route("/v2/health/live", m.live),
        Route("/v2/health/ready", m.ready),
        Route("/v2/models", m.models),
        Route("/v2/repository/index", m.index, methods=["POST"]),
    ]
    for path in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
        routes += [Route(path, m.model), Route(f"{path}/ready", m.model_ready)]
        routes.append(Route(f"{path}/infer", m.infer, methods=["POST"]))
    app = Starlette(routes=routes, exception_handlers={CallError: _explain, HTTPException: _explain})
    app.router.redirect_slashes = False
    return app


async def call_app(app: ASGIApp, request: Request) -> Response:
    """One request through an ASGI app, in this process."""
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
    return answer


async def _explain(asked: Asked, error: Exception) -> Answer:
    """An error in the shape of the protocol that the path belongs to."""
    headers = {}
    if isinstance(error, HTTPException):
        headers = dict(error.headers or {})
        path = asked.url.path
        if error.status_code == 405:
            error = MethodNotAllowed(f"{path} does not take {asked.method}. It takes {headers.get('Allow', 'none')}.")
        else:
            error = UnknownFunction(f"There is nothing at {path}. GET /functions lists what there is.")
    assert isinstance(error, CallError)
    if error.retry:
        headers["retry-after"] = str(error.retry_after_s)
    plain = asked.scope["path"].startswith(("/v1", "/v2"))
    body = msgspec.json.encode({"error": error.message}) if plain else error_body(error)
    return Answer(body, error.status, headers, "application/json")


def _entry(table: Table, asked: Asked) -> Entry:
    """The function, and the version if one is, named by the path. Raises UnknownFunction."""
    name, version = asked.path_params["name"], asked.path_params.get("version")
    entry = table.get(name)
    if entry is None:
        raise UnknownFunction(f"There is no function {name!r} here. {_names(table)}")
    served = entry.manifest.model.version
    if version not in (None, served):
        raise UnknownFunction(f"Version {version!r} of {name!r} is not served here; version {served!r} is.")
    return entry


def _names(table: Table) -> str:
    names = sorted(table)
    if not names:
        return "None is deployed yet."
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return f"There is {', '.join(names[:NAMES_SHOWN])}{more}."


def _json(value: Any, status: int = 200) -> Answer:
    return Answer(msgspec.json.encode(value), status, media_type="application/json")
