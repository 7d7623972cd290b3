"""The pages of MLflow's scoring server below each function: /functions/F/ping, /health and /version.

`/ping` and `/invocations` are also what SageMaker asks of a container.
"""

from starlette.requests import Request as Asked
from starlette.responses import Response as Answer

from sunup import __version__
from sunup.errors import Unavailable
from sunup.serve.pages.table import Table, find


class Scoring:
    """The pages over a table that may change under them."""

    def __init__(self, table: Table) -> None:
        self._table = table

    async def ping(self, asked: Asked) -> Answer:
        """GET /functions/F/ping, GET /functions/F/health: one line feed, as MLflow answers."""
        return Answer("\n", 200 if find(self._table, asked).ready else 503, media_type="text/plain")

    async def version(self, asked: Asked) -> Answer:
        """GET /functions/F/version: Sunup's, where MLflow's server tells its own."""
        find(self._table, asked)
        return Answer(__version__, media_type="text/plain")

    async def invocations(self, asked: Asked) -> Answer:
        """POST /functions/F/invocations of what no worker answered."""
        find(self._table, asked)
        raise Unavailable("This process has no model. Try again.")
