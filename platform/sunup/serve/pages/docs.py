"""A page to try the calls at: swagger-ui over /openapi.json, all of it served from here.

The files are those of swagger-ui (Apache-2.0) as the package flask-swagger-ui (MIT) carries them; nothing of the
package is imported. Where it is not installed, the page says so.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Final

from starlette.requests import Request as Asked
from starlette.responses import Response as Answer

from sunup.errors import UnknownFunction

CARRIER: Final = "flask_swagger_ui"
FILES: Final = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}

# Scripts and calls of this server only; styles also in the page, because swagger-ui writes some there.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Sunup</title>
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<div id="calls"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
_START: Final = """SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#calls",
  tryItOutEnabled: true,
  validatorUrl: null,
});
"""
_ABSENT: Final = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Sunup</title></head>
<body>
<p>The files of swagger-ui are not installed here: they come with the package flask-swagger-ui.</p>
<p>What can be called, with examples: <a href="/openapi.json">/openapi.json</a>.</p>
</body>
</html>
"""


class Docs:
    """The page and its files. `folder`: where swagger-ui's files are, or None."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    async def page(self, _: Asked) -> Answer:
        """GET /docs"""
        return Answer(_PAGE if self._folder else _ABSENT, headers=_HEADERS, media_type="text/html")

    async def start(self, _: Asked) -> Answer:
        """GET /docs/start.js: a page may run no script of its own under this policy."""
        return Answer(_START, headers=_HEADERS, media_type="text/javascript")

    async def file(self, asked: Asked) -> Answer:
        """GET /docs/FILE"""
        name = asked.path_params["file"]
        if self._folder is None or name not in FILES:
            raise UnknownFunction(f"There is nothing at {asked.url.path}.")
        headers = {**_HEADERS, "cache-control": "max-age=3600"}
        return Answer((self._folder / name).read_bytes(), headers=headers, media_type=FILES[name])


def swagger_files() -> Path | None:
    """The folder of swagger-ui's files, if a package that carries them is installed."""
    found = find_spec(CARRIER)
    if found is None or found.origin is None:
        return None
    folder = Path(found.origin).parent / "dist"
    return folder if all((folder / name).is_file() for name in FILES) else None
