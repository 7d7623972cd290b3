"""What registries answer: challenges, tokens, refusals, nothing; and what is said of it."""

import json
import re
from typing import Any

import pytest
import urllib3
from urllib3 import exceptions

from sunup.engine.kubernetes.image.registry.login import Login
from sunup.engine.kubernetes.image.registry.refusal import Answer, refused, unreached
from sunup.engine.kubernetes.image.registry.token import Keyring, parse_challenge
from sunup.errors import ImageError


@pytest.mark.parametrize(
    ("header", "scheme", "parameters"),
    [
        ('Basic realm="x"', "Basic", {"realm": "x"}),
        (
            'Bearer realm="https://a/token",service="a, \\"b\\"",scope="repository:x:pull,push"',
            "Bearer",
            {"realm": "https://a/token", "service": 'a, "b"', "scope": "repository:x:pull,push"},
        ),
        ("bearer realm=https://a", "bearer", {"realm": "https://a"}),
        ("Negotiate", "Negotiate", {}),
    ],
)
def test_challenges(header: str, scheme: str, parameters: dict[str, str]) -> None:
    assert parse_challenge(header) == (scheme, parameters)


def answer(status: int, body: object = None, **headers: str) -> Answer:
    data = body.encode() if isinstance(body, str) else json.dumps(body).encode() if body is not None else b""
    return Answer(status, urllib3.HTTPHeaderDict(headers), data)


def test_a_password_does_not_go_over_plain_http() -> None:
    keys = Keyring(Login("me", "pw"), lambda *_: pytest.fail("asked"), plain=False)
    with pytest.raises(ImageError, match=r"in plain http\. It is not sent"):
        keys.open(['Bearer realm="http://tokens.example.com"'], ("repository:x:pull",))


def test_a_token_is_asked_for_once_for_a_scope_and_again_when_it_is_refused() -> None:
    tokens = iter(("one", "two", "three"))
    keys = Keyring(Login(), lambda *_: answer(200, {"token": next(tokens)}), plain=False)
    challenge = ['Bearer realm="https://t.example.com",service="s"']
    assert keys.header(("a",)) == ""
    assert keys.open(challenge, ("a",)) == "Bearer one" == keys.header(("a",))
    assert keys.header(("b",)) == ""
    assert keys.open(challenge, ("b",)) == "Bearer two"
    assert keys.open(challenge, ("a",)) == "Bearer three" == keys.header(("a",))  # it has expired


@pytest.mark.parametrize("given", [answer(200, {}), answer(200, "[]"), answer(200, "x"), answer(500)])
def test_a_token_that_does_not_come(given: Answer) -> None:
    keys = Keyring(Login(), lambda *_: given, plain=False)
    with pytest.raises(ImageError, match=r"t\.example\.com.* and no token"):
        keys.open(['Bearer realm="https://t.example.com"'], ())


def test_a_realm_that_is_no_url() -> None:
    with pytest.raises(ImageError, match="which is no URL"):
        Keyring(Login(), lambda *_: answer(200), plain=False).open(['Bearer realm="file:///etc/passwd"'], ())


# --- Refusals ---------------------------------------------------------------------------------------------------------
def error(code: str, message: str = "") -> dict[str, Any]:
    return {"errors": [{"code": code, "message": message}]}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (answer(401, error("UNAUTHORIZED", "who?")), "with no login. Run: docker login x.com .*UNAUTHORIZED who"),
        (
            answer(403, error("DENIED", "no push")),
            "user me may not. Grant the right to pull and push ml/fraud.*no push",
        ),
        (answer(403, "<html><b>Forbidden</b></html>"), "It says: Forbidden."),
        (
            answer(404, error("NAME_UNKNOWN")),
            "there is no ml/fraud. Some registries want a repository to be made first",
        ),
        (answer(400, error("NAME_INVALID")), "does not take the name ml/fraud"),
        (answer(405, error("UNSUPPORTED")), "takes no images, as a mirror"),
        (answer(413, "too large"), "takes no request so large"),
        (answer(412, error("DENIED", "adding 4 MiB of storage resource will exceed the upper limit")), "no room left"),
        (answer(403, error("DENIED", "Your storage quota is used up")), "no room left.*raised.*quota is used up"),
        (answer(507), "no room left"),
        (answer(429, error("TOOMANYREQUESTS")), "too many requests.*Try again later"),
        (answer(500, "boom"), "x.com failed to push to ml/fraud: status 500, again and again.*boom"),
        (answer(418, ""), "status 418"),
    ],
)
def test_what_a_refusal_means(given: Answer, says: str) -> None:
    login = Login("me", "pw", source="the file") if given.status == 403 else Login(source="the file")
    found = refused(given, host="x.com", path="ml/fraud", doing="push to ml/fraud", login=login)
    assert isinstance(found, ImageError)
    assert re.search(says, found.message), found.message


@pytest.mark.parametrize(
    ("reason", "says"),
    [
        (exceptions.NameResolutionError("x.com", None, OSError("no")), "There is no host x.com"),  # type: ignore[arg-type]
        (exceptions.SSLError("CERTIFICATE_VERIFY_FAILED"), "is not trusted: CERTIFICATE_VERIFY_FAILED. A hint"),
        (exceptions.SSLError("[SSL: WRONG_VERSION_NUMBER]"), "does not speak TLS.*write http://x.com"),
        (exceptions.ReadTimeoutError(None, "", "slow"), "does not answer in time"),  # type: ignore[arg-type]
        (exceptions.ProtocolError("reset"), "broke off, again and again: reset"),
    ],
)
def test_why_a_registry_is_not_reached(reason: Exception, says: str) -> None:
    found = unreached(reason, host="x.com", plain=False, hint="A hint.")
    assert re.search(says, found.message), found.message
