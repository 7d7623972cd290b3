"""The native pages: what is deployed, what a function takes, whether it is ready."""

from starlette.requests import Request as Asked
from starlette.responses import Response as Answer

from sunup import __version__
from sunup.errors import Unavailable
from sunup.serve.describe import describe
from sunup.serve.pages.openapi import openapi
from sunup.serve.pages.table import Table, find, json


class Functions:
    """The native pages, over a table that may change under them."""

    def __init__(self, table: Table) -> None:
        self._table = table

    async def greet(self, _: Asked) -> Answer:
        """GET /"""
        lines = [f"Sunup {__version__}", "", "GET /functions       what is deployed"]
        lines += [
            "GET /openapi.json    how to call it",
            "GET /docs            try it",
            "POST /functions/NAME a prediction",
            "",
        ]
        return Answer("\n".join(lines), media_type="text/plain")

    async def functions(self, _: Asked) -> Answer:
        """GET /functions"""
        listed = [
            {"name": name, "revision": e.revision, "model": e.model, "state": e.state, "url": f"/functions/{name}"}
            for name, e in sorted(self._table.items())
        ]
        return json({"functions": listed})

    async def function(self, asked: Asked) -> Answer:
        """GET /functions/F; other methods reach here only where no worker is."""
        entry = find(self._table, asked)
        if asked.method == "POST":
            raise Unavailable("This process has no model. Try again.")
        return json(describe(entry.manifest, entry.revision, entry.state))

    async def function_ready(self, asked: Asked) -> Answer:
        """GET /functions/F/ready"""
        entry = find(self._table, asked)
        said = {"function": entry.function, "ready": entry.ready}
        return json({**said, "state": entry.state, "revision": entry.revision}, 200 if entry.ready else 503)

    async def openapi(self, _: Asked) -> Answer:
        """GET /openapi.json"""
        return json(openapi([self._table[name].manifest for name in sorted(self._table)]))
