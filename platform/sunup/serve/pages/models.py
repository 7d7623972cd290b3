"""The pages of the Open Inference Protocol v2 and of KServe v1: servers, models, readiness."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request as Asked
from starlette.responses import Response as Answer

from sunup import __version__
from sunup.errors import Unavailable
from sunup.serve.describe import metadata
from sunup.serve.pages.table import Entry, Table, find, json
from sunup.serve.telemetry.statistics import model_statistics

EXTENSIONS: Final = ("binary_tensor_data", "statistics")  # of the Open Inference Protocol


class Models:
    """The pages of the Open Inference Protocol v2, over a table that may change under them. `is_ready()`: whether
    calls should come here."""

    def __init__(self, table: Table, is_ready: Callable[[], bool]) -> None:
        self._table = table
        self._is_ready = is_ready

    async def server(self, _: Asked) -> Answer:
        """GET /v2"""
        return json({"name": "sunup", "version": __version__, "extensions": EXTENSIONS})

    async def live(self, _: Asked) -> Answer:
        """GET /v2/health/live"""
        return json({"live": True})

    async def ready(self, _: Asked) -> Answer:
        """GET /v2/health/ready"""
        ready = self._is_ready()
        return json({"ready": ready}, 200 if ready else 503)

    async def models(self, _: Asked) -> Answer:
        """GET /v2/models, GET /v1/models"""
        return json({"models": sorted(self._table)})

    async def index(self, _: Asked) -> Answer:
        """POST /v2/repository/index"""
        return json(
            [
                {
                    "name": name,
                    "version": e.version,
                    "state": "READY" if e.ready else "UNAVAILABLE",
                    "reason": "" if e.ready else "its last worker could not start",
                }
                for name, e in sorted(self._table.items())
            ]
        )

    async def model(self, asked: Asked) -> Answer:
        """GET /v2/models/F[/versions/V]"""
        return Answer(metadata(find(self._table, asked).manifest), media_type="application/json")

    async def model_ready(self, asked: Asked) -> Answer:
        """GET /v2/models/F[/versions/V]/ready"""
        entry = find(self._table, asked)
        said = {"name": entry.function, "ready": entry.ready}
        return json(said, 200 if entry.ready else 503)

    async def infer(self, asked: Asked) -> Answer:
        """POST /v2/models/F[/versions/V]/infer of what no worker answered."""
        find(self._table, asked)
        raise Unavailable("This process has no model. Try again.")


class Statistics:
    """What workers counted, over the same table. `counters`: the folder their counters are in."""

    def __init__(self, table: Table, counters: Path) -> None:
        self._table = table
        self._counters = counters

    async def model(self, asked: Asked) -> Answer:
        """GET /v2/models/F[/versions/V]/stats"""
        return json({"model_stats": [self._of(find(self._table, asked))]})

    async def models(self, _: Asked) -> Answer:
        """GET /v2/models/stats: of all, unless there is a function of that name."""
        if entry := self._table.get("stats"):
            return Answer(metadata(entry.manifest), media_type="application/json")
        return json({"model_stats": [self._of(self._table[name]) for name in sorted(self._table)]})

    def _of(self, entry: Entry) -> dict[str, Any]:
        return model_statistics(self._counters, function=entry.function, version=entry.version, revision=entry.revision)


class KServe:
    """The pages of KServe v1, over the same table."""

    def __init__(self, table: Table) -> None:
        self._table = table

    async def model(self, asked: Asked) -> Answer:
        """GET /v1/models/F"""
        entry = find(self._table, asked)
        said = {"name": entry.function, "ready": entry.ready}
        return json(said, 200 if entry.ready else 503)

    async def predict(self, asked: Asked) -> Answer:
        """POST /v1/models/F:predict of what no worker answered."""
        if asked.method != "POST":  # the route takes GET too, or it would be that of a model called "F:predict"
            raise HTTPException(405, headers={"Allow": "POST"})
        find(self._table, asked)
        raise Unavailable("This process has no model. Try again.")
