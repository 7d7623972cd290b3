"""The handler of the front: what has no function or needs no model. It never wakes a worker."""

import logging
import sys
from collections.abc import Awaitable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from sunup.access.guard import Guard
from sunup.bundle.manifest import Manifest
from sunup.bundle.store import read_manifest
from sunup.errors import SunupError, Unavailable
from sunup.limits import BODY_BYTES_DEFAULT, PASSED_BYTES_MAX, UNFINISHED_BYTES_MAX
from sunup.link.route import Route
from sunup.serve.app import Scoped, call_app
from sunup.serve.http.message import Request, Response, Unfinished, error_body, error_response, public
from sunup.serve.pages.table import Entry

_LOG: Final = logging.getLogger(__name__)


class FrontHandler:
    """Answers for every function of the engine, from their manifests. See http.message.Handler.

    `bundles`: the store's folder; `counters`: that of the workers' counters. An entry is what the engine says of a
    function: its "function" (the name), "revision", "digest" and "state".
    """

    def __init__(self, bundles: Path, counters: Path) -> None:
        self.body_bytes_max = BODY_BYTES_DEFAULT
        self.room = memoryview(bytearray(PASSED_BYTES_MAX))
        self.unfinished = Unfinished(UNFINISHED_BYTES_MAX)
        self._bundles = bundles
        self._table: dict[str, Entry] = {}
        self.guard: Guard | None = None  # a caller is shown what the key covers, as if there were nothing else
        self._app = Scoped(self._table, counters, lambda: self.guard)

    def __repr__(self) -> str:
        return f"FrontHandler({', '.join(sorted(self._table))})"

    def update(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Exactly these functions exist. Raises BundleDamaged when a manifest cannot be read."""
        known = {entry["function"]: self._read(entry) for entry in entries}
        self._table.clear()
        self._table.update(known)

    def heard(self, head: Mapping[str, Any]) -> None:
        """The engine says that a function exists or changed ({"op": "function", ...entry}), or that it is gone
        ({"op": "forget", "function"}). One whose manifest cannot be read is logged, and is not here."""
        name = head["function"]
        known = self._table.pop(name, None)
        if head["op"] == "function":
            try:
                self._table[name] = self._read(head, known)
            except SunupError as error:
                _LOG.error("the function %s is not shown: %s", name, error.message)

    def handle(self, request: Request) -> Response | Awaitable[Response]:
        """Answer from the table."""
        return call_app(self._app, request)

    def owns(self, route: Route) -> bool:
        """All but predictions of functions that exist: those are the workers'."""
        return not route.predicts or route.function not in self._table

    def refuse(self, error: Exception, target: bytes = b"") -> Response:
        """In the shape of the target's protocol."""
        known = public(error)
        return error_response(known, error_body(known, target))

    def connections(self, change: int) -> None:
        """Nobody counts them."""

    def _read(self, entry: Mapping[str, Any], known: Entry | None = None) -> Entry:
        """What the table holds of a function. `known`: what it held before; its manifest need not be read again."""
        revision, state, digest = entry["revision"], sys.intern(entry["state"]), entry["digest"]
        if known is not None and known.digest == digest:
            return msgspec.structs.replace(known, revision=revision, state=state)
        manifest = read_manifest(self._bundles / digest)
        model = f"{manifest.model.name}/{manifest.model.version}"
        return Entry(manifest.function, model, revision, state, digest, self._manifest)

    def _manifest(self, digest: str) -> Manifest:
        """For a page. It could be read when the function was told of."""
        try:
            return read_manifest(self._bundles / digest)
        except SunupError as error:
            _LOG.error("a function cannot be shown: %s", error.message)
            raise Unavailable("The bundle of this function cannot be read. The engine's log says more.") from error
