"""The handlers of a pod's two ports: the function with all that a front would say of it, and probes with metrics."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import msgspec
from starlette.types import ASGIApp

from sunup.errors import MethodNotAllowed, UnknownFunction
from sunup.link.route import Route
from sunup.serve.app import Scoped
from sunup.serve.handler import FunctionHandler
from sunup.serve.http.message import JSON, Request, Response
from sunup.serve.pages.table import Entry
from sunup.serve.telemetry.metrics import MetricsHandler

LIVE: Final = b"/live"
READY: Final = b"/ready"


class PodHandler(FunctionHandler):
    """Serves one function. Nobody else is behind this port, so every route is answered here."""

    def owns(self, route: Route) -> bool:  # noqa: ARG002  # as above
        """Everything."""
        return True

    def leave(self) -> None:
        """Say from now on that calls should go elsewhere. They are answered all the same."""
        self._table[self._entry.function] = msgspec.structs.replace(self._entry, state="leaving")

    @property
    def inflight(self) -> int:
        """Calls being answered."""
        return self._meter.inflight

    @property
    def last_call(self) -> float:
        """Monotonic seconds at which the last one began."""
        return self._meter.last

    @cached_property
    def _table(self) -> dict[str, Entry]:
        return {self._entry.function: self._entry}

    @cached_property
    def _app(self) -> ASGIApp:
        return Scoped(self._table, self._meter.folder, lambda: self.guard, self._is_ready)

    def _is_ready(self) -> bool:
        return all(entry.ready for entry in self._table.values())


class Probes(MetricsHandler):
    """Answers GET /metrics, /live and /ready. `trouble()`: why calls or records should not come, "" if they should."""

    def __init__(self, counters: Path, trouble: Callable[[], str]) -> None:
        super().__init__(counters)
        self._trouble = trouble

    def handle(self, request: Request) -> Response:
        """The counters, or how the pod is."""
        path = request.target.partition(b"?")[0]
        if path not in (LIVE, READY, b"/metrics"):
            raise UnknownFunction("On this port there are /metrics, /live and /ready.")
        if path == b"/metrics":
            return super().handle(request)
        if request.method not in (b"GET", b"HEAD"):
            raise MethodNotAllowed("Probes are made with GET.")
        if path == LIVE:
            return _said(200, live=True)
        reason = self._trouble()
        return _said(503, ready=False, reason=reason) if reason else _said(200, ready=True)


def _said(status: int, **value: Any) -> Response:
    return Response(status, [JSON], msgspec.json.encode(value))
