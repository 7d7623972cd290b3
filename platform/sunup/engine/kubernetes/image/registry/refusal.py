"""What a registry's refusals, and failures to reach one, mean to a person: one paragraph that says what to do."""

import json
import re
from typing import Final

import urllib3
from urllib3 import exceptions

from sunup.engine.kubernetes.image.registry.login import Login
from sunup.errors import ImageError

_SHOWN: Final = 300  # characters of what a registry says itself
_NO_ROOM: Final = ": there is no room left for it. Delete images there, or have the quota raised."
_NO_PUSH: Final = ": it takes no images, as a mirror or a cache does. Name another --registry."
_QUOTA: Final = re.compile(
    r"quota|exceed.{0,40}(limit|storage)|storage.{0,40}(limit|full|exceed)|no space", re.IGNORECASE
)


class Answer:
    """What a registry said: status, headers, and the body of what is not a blob."""

    def __init__(self, status: int, headers: urllib3.HTTPHeaderDict, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def __repr__(self) -> str:
        return f"Answer({self.status})"

    @property
    def said(self) -> tuple[str, str]:
        """The code and text of its first error (OCI distribution specification, "Error Codes"); what it says
        otherwise."""
        try:
            first = json.loads(self.body)["errors"][0]
            detail = first.get("detail")
            text = f"{first.get('message') or ''} {detail if isinstance(detail, str) else ''}".strip()
            return str(first.get("code") or ""), text[:_SHOWN]
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            text = re.sub(r"<[^>]*>", " ", self.body.decode("utf-8", "replace"))
            return "", " ".join(text.split())[:_SHOWN]


def refused(answer: Answer, *, host: str, path: str, doing: str, login: Login) -> ImageError:
    """The error for an answer that is not what was hoped for. `path`: of the repository; `doing`: "push to fraud"."""
    code, text = answer.said
    quoted = f" It says: {' '.join(filter(None, (code, text))).rstrip('.')}." if code or text else ""
    if answer.status >= 500 and answer.status != 507 and not _QUOTA.search(text):
        return ImageError(
            f"{host} failed to {doing}: status {answer.status}, again and again. Try again later.{quoted}"
        )
    return ImageError(f"{host} refuses to {doing}{_why(answer, host, path, login)}{quoted}")


def _why(answer: Answer, host: str, path: str, login: Login) -> str:
    """The reason for a refusal, and what to do."""
    code, text = answer.said
    who = f"user {login.user}" if login.user else "this login" if login else "whoever has no login"
    login_of = f"the login of {login.source}" if login else "no login"
    if _QUOTA.search(text):
        return _NO_ROOM
    found = {
        "NAME_INVALID": f": it does not take the name {path}. Name another --registry, with another prefix.",
        "TAG_INVALID": f": it does not take the tag for {path}. Name another --registry.",
        "DIGEST_INVALID": ": what arrived is not what was meant. If it happens again, remove ~/.cache/sunup/image.",
        "NAME_UNKNOWN": f": there is no {path}. Some registries want a repository to be made first.",
        "UNSUPPORTED": _NO_PUSH,
    }.get(code)
    return found or {
        401: f" with {login_of}. Run: docker login {host} (or write it into {login.source}).",
        403: f": {who} may not. Grant the right to pull and push {path}, or name another --registry.",
        404: f": there is no {path}. Some registries want a repository to be made first.",
        405: _NO_PUSH,
        413: ": it, or a proxy before it, takes no request so large. Have its limit raised.",
        429: ": too many requests, though they were repeated with pauses. Try again later.",
        507: _NO_ROOM,
    }.get(answer.status, f": status {answer.status}.")


def unreached(error: Exception, *, host: str, plain: bool, hint: str) -> ImageError:
    """The error for a registry that cannot be spoken to. `hint`: where certificates of its own are looked for."""
    reason: BaseException = error
    while isinstance(reason, exceptions.MaxRetryError) and reason.reason is not None:
        reason = reason.reason
    text = " ".join(str(reason).split())[:_SHOWN]
    if isinstance(reason, exceptions.NameResolutionError):
        says = f"There is no host {host}, or no name server to ask. Check the name in --registry."
    elif isinstance(reason, exceptions.SSLError) and ("WRONG_VERSION_NUMBER" in text or "record layer" in text.lower()):
        says = f"{host} does not speak TLS. If it is meant to speak plain http, write http://{host}."
    elif isinstance(reason, exceptions.SSLError):
        says = f"The certificate of {host} is not trusted: {text}. {hint}"
    elif isinstance(reason, exceptions.NewConnectionError):
        says = f"{host} cannot be reached: {text.rpartition(': ')[2]}. Check the address in --registry."
    elif isinstance(reason, exceptions.TimeoutError):
        says = f"{host} does not answer in time. Check the address in --registry, and the network to it."
    else:
        tls = " It may speak TLS: write https:// before it." if plain else ""
        says = f"The connection to {host} broke off, again and again: {text}.{tls}"
    return ImageError(says)
