"""Which function a request line belongs to, and whether it may wake a worker. Pure; shared by door and connection."""

import re
from typing import Final, NamedTuple

_COLON: Final = re.compile(b"%3a", re.IGNORECASE)  # some clients escape it, as they may


class Route(NamedTuple):
    """`function`: the function named, if any. `predicts`: the call needs the model, so it wakes a worker."""

    function: str | None
    predicts: bool


NOWHERE = Route(None, False)


def route(method: bytes, target: bytes) -> Route:
    """The route of one request. `target` is the request target as sent, query included.

    Predictions: `POST /functions/F[/invocations]`, `POST /v2/models/F[/versions/V]/infer`, `POST /v1/models/F:predict`.
    Everything else named under a function belongs to it but needs no model (schema, metadata, readiness).
    """
    path = target.partition(b"?")[0]
    parts = path.split(b"/")
    post = method == b"POST"
    if len(parts) >= 3 and parts[1] == b"functions" and parts[2]:
        rest = parts[3:]
        return Route(_name(parts[2]), post and (not rest or rest == [b"invocations"]))
    if len(parts) >= 4 and parts[2] == b"models" and parts[3]:
        if parts[1] == b"v2":
            return Route(_name(parts[3]), post and parts[-1] == b"infer")
        if parts[1] == b"v1":
            name, colon, verb = _COLON.sub(b":", parts[3]).rpartition(b":")
            return Route(_name(name if colon else verb), post and verb == b"predict" and bool(colon))
    return NOWHERE


def origin_form(target: bytes) -> tuple[bytes, bytes | None]:
    """The path and query of a request target, and its host when it is absolute, as for a proxy (RFC 9112, 3.2.2)."""
    if target.startswith(b"/"):
        return target, None
    scheme, separator, rest = target.partition(b"://")
    if not separator or scheme.lower() not in (b"http", b"https"):
        return target, None
    ends = [at for at in map(rest.find, (b"/", b"?")) if at >= 0]
    end = min(ends, default=len(rest))
    path = rest[end:]
    return path if path.startswith(b"/") else b"/" + path, rest[:end]


def _name(raw: bytes) -> str | None:
    """A function name is 1-63 of [a-z0-9-_]; anything else names nothing (and so is a 404 at the front)."""
    name = raw.decode("ascii", "replace")
    return name if len(name) <= 63 and name.replace("-", "").replace("_", "").isalnum() and name.isascii() else None
