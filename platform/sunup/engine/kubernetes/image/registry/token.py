"""What goes into the Authorization header: a password, or a token that was asked for with one.

Flow: the distribution project's token authentication (spec/auth/token.md and oauth.md): a 401 names where tokens are
made (`realm`), and for which `scope`; the answer holds `token` or `access_token`."""

import base64
import json
import re
from collections.abc import Callable
from typing import Final
from urllib.parse import urlencode, urlsplit

from sunup.engine.kubernetes.image.registry.login import Login
from sunup.engine.kubernetes.image.registry.refusal import Answer
from sunup.errors import ImageError

_PARAMETER: Final = re.compile(r'(\w+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_CLIENT: Final = "sunup"

Ask = Callable[[str, str, dict[str, str], bytes | None], Answer]  # method, URL, headers, body


class Keyring:
    """The headers that opened a registry so far, by scope. `ask` makes a request of whoever makes tokens."""

    def __init__(self, login: Login, ask: Ask, *, plain: bool) -> None:
        self._login = login
        self._ask = ask
        self._plain = plain
        self._basic = ""
        self._tokens: dict[tuple[str, ...], str] = {}

    def header(self, scopes: tuple[str, ...]) -> str:
        """What was found to be right for these scopes, "" before anything was asked."""
        return self._basic or self._tokens.get(scopes, "")

    def open(self, challenges: list[str], scopes: tuple[str, ...]) -> str:
        """The header a 401 asks for. `challenges`: its WWW-Authenticate headers. Raises ImageError, or returns "" when
        there is nothing to send that was not sent."""
        if self._login.registry:
            return self._keep(scopes, f"Bearer {self._login.registry}")
        offered = {scheme.lower(): parameters for scheme, parameters in map(parse_challenge, challenges)}
        if "bearer" in offered:
            return self._keep(scopes, f"Bearer {self._token(offered['bearer'], scopes)}")
        if "basic" in offered and self._login.user and not self._basic:
            self._basic = basic(self._login)
            return self._basic
        return ""

    def _keep(self, scopes: tuple[str, ...], header: str) -> str:
        if self._tokens.get(scopes) == header:
            return ""
        self._tokens[scopes] = header
        return header

    def _token(self, named: dict[str, str], scopes: tuple[str, ...]) -> str:
        realm = named.get("realm", "")
        host = urlsplit(realm).netloc
        if not realm.startswith(("https://", "http://")):
            raise ImageError(
                f"A registry says that tokens are made at {realm!r}, which is no URL. It is set up wrongly."
            )
        if realm.startswith("http://") and not self._plain and self._login:
            raise ImageError(
                f"A registry wants the password sent to {host} in plain http. It is not sent. Ask who runs it."
            )
        asked = [("service", named["service"])] if named.get("service") else []
        if self._login.identity:
            body = [("grant_type", "refresh_token"), *asked, ("client_id", _CLIENT), ("scope", " ".join(scopes))]
            form = [*body, ("refresh_token", self._login.identity)]
            kind = {"Content-Type": "application/x-www-form-urlencoded"}
            answer = self._ask("POST", realm, kind, urlencode(form).encode())
        else:
            query = urlencode([*asked, *(("scope", scope) for scope in scopes or (named.get("scope", ""),) if scope)])
            headers = {"Authorization": basic(self._login)} if self._login.user else {}
            joined = "&" if "?" in realm else "?"
            answer = self._ask("GET", f"{realm}{joined}{query}" if query else realm, headers, None)
        return _read(answer, host, self._login)


def parse_challenge(header: str) -> tuple[str, dict[str, str]]:
    """The scheme and parameters of a WWW-Authenticate header (RFC 9110, section 11.6.1), one challenge in it."""
    scheme, _, rest = header.strip().partition(" ")
    found = {name.lower(): re.sub(r"\\(.)", r"\1", quoted) or plain for name, quoted, plain in _PARAMETER.findall(rest)}
    return scheme, found


def basic(login: Login) -> str:
    """A name and password as a header."""
    return f"Basic {base64.b64encode(f'{login.user}:{login.password}'.encode()).decode()}"


def _read(answer: Answer, host: str, login: Login) -> str:
    if answer.status in (400, 401, 403):
        who = f"the login of {login.source}" if login else "no login"
        raise ImageError(
            f"{host}, which makes the registry's tokens, refuses {who}: {answer.said[1]} Run docker login again."
        )
    try:
        found = json.loads(answer.body) if answer.status == 200 else {}
        token = found.get("token") or found.get("access_token")
    except (ValueError, AttributeError):
        token = None
    if not isinstance(token, str):
        raise ImageError(
            f"{host}, which makes the registry's tokens, answered with status {answer.status} and no token."
        )
    return token
