"""Names of images and registries, and logins in Docker's config."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.registry_server import docker_config

from sunup.engine.kubernetes.image.registry.login import Login, find_login
from sunup.engine.kubernetes.image.registry.reference import (
    Address,
    is_loopback,
    parse_address,
    parse_reference,
    repository_of,
)
from sunup.errors import ImageError, UsageError

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "address", "url"),
    [
        ("registry.example.com", Address("registry.example.com", "", False), "https://registry.example.com"),
        ("registry.example.com/ml/prod/", Address("registry.example.com", "ml/prod", False), None),
        ("10.77.0.1:5000/x", Address("10.77.0.1:5000", "x", False), "https://10.77.0.1:5000"),
        ("http://10.77.0.1:5000/x", Address("10.77.0.1:5000", "x", True), "http://10.77.0.1:5000"),
        ("localhost:5000", Address("localhost:5000", "", True), "http://localhost:5000"),
        ("localhost", Address("localhost", "", True), "http://localhost"),
        ("127.0.0.1:5000/a", Address("127.0.0.1:5000", "a", True), "http://127.0.0.1:5000"),
        ("[::1]:5000/a", Address("[::1]:5000", "a", True), "http://[::1]:5000"),
        ("https://localhost:5000", Address("localhost:5000", "", False), "https://localhost:5000"),
        ("docker.io/somebody", Address("docker.io", "somebody", False), "https://registry-1.docker.io"),
    ],
)
def test_where_a_registry_is(text: str, address: Address, url: str | None) -> None:
    assert parse_address(text) == address
    assert url in (None, address.url)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("somebody", "on Docker Hub, docker.io/somebody"),
        ("", "is no registry"),
        ("a b.com/x", "is no registry"),
        ("-x.com", "is no registry"),
        ("ftp://x.com", "registries speak https"),
        ("x.com/Fraud", "lower case"),
        ("x.com/a//b", "no prefix"),
        ("x.com/fraud:latest", "a tag or digest is not part of it"),
        (f"x.com/fraud@{DIGEST}", "a tag or digest is not part of it"),
    ],
)
def test_what_is_no_registry(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse_address(text)


@pytest.mark.parametrize(
    ("text", "path", "wanted"),
    [
        (f"x.com/ml/fraud@{DIGEST}", "ml/fraud", DIGEST),
        (f"x.com:5000/fraud:1@{DIGEST}", "fraud", DIGEST),
        ("x.com/fraud:0.1.0-ab", "fraud", "0.1.0-ab"),
        ("http://10.0.0.1:5000/fraud", "fraud", "latest"),
    ],
)
def test_what_an_image_is_called(text: str, path: str, wanted: str) -> None:
    found = parse_reference(text)
    assert (found.path, found.wanted) == (path, wanted)
    assert found.by_digest == ("sha256:" in text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x.com", "is no image"),
        ("x.com/Fraud:1", "is no image"),
        ("x.com/fraud@sha256:12", "is no digest"),
        ("x.com/fraud:-1", "is no tag"),
        ("fraud:1", "which registry|is no image|is no registry"),
    ],
)
def test_what_is_no_image(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse_reference(text)


@pytest.mark.parametrize(
    ("function", "repository"),
    [("fraud", "fraud"), ("Fraud_V2", "fraud_v2"), ("a--b__c_-d", "a-b-c-d"), ("x-", "x"), ("9", "9")],
)
def test_every_functions_name_has_a_repository(function: str, repository: str) -> None:
    assert repository_of(function) == repository
    assert Address("x.com", "ml", False).path(repository) == f"ml/{repository}"


def test_a_path_that_is_too_long() -> None:
    with pytest.raises(UsageError, match="255 characters at most"):
        Address("x.com", "/".join(["a" * 60] * 5), False).path("fraud")


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [
        ("localhost", True),
        ("a.localhost:80", True),
        ("127.9.9.9:1", True),
        ("[::1]:1", True),
        ("[::1]", True),
        ("localhost.example.com", False),
        ("10.0.0.1:5000", False),
        ("[2001:db8::1]:5000", False),
        ("x.com", False),
    ],
)
def test_which_hosts_are_this_machine(host: str, is_ours: bool) -> None:
    assert is_loopback(host) == is_ours


# --- Logins -----------------------------------------------------------------------------------------------------------
def packed(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("host", "auths", "login"),
    [
        ("x.com", {"x.com": {"auth": packed("me:p:w")}}, ("me", "p:w", "", "")),
        ("x.com", {"https://x.com": {"auth": packed("me:pw")}}, ("me", "pw", "", "")),
        ("x.com", {"https://x.com/v1/": {"username": "me", "password": "pw"}}, ("me", "pw", "", "")),
        ("x.com:5000", {"x.com": {"auth": packed("me:pw")}}, ("", "", "", "")),
        ("docker.io", {"https://index.docker.io/v1/": {"auth": packed("me:pw")}}, ("me", "pw", "", "")),
        ("x.com", {"x.com": {"identitytoken": "t"}}, ("", "", "t", "")),
        ("x.com", {"x.com": {"registrytoken": "t"}}, ("", "", "", "t")),
        ("x.com", {"x.com": {}}, ("", "", "", "")),
        ("x.com", {}, ("", "", "", "")),
    ],
)
def test_logins_in_the_file(host: str, auths: Mapping[str, Any], login: tuple[str, ...], tmp_path: Path) -> None:
    found = find_login(host, docker_config(tmp_path, {"auths": auths}))
    assert found[:4] == login
    assert bool(found) == any(login)
    assert found.source == str(tmp_path / "config.json")
    assert "pw" not in repr(found)


@pytest.mark.parametrize(
    ("contents", "says"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a JSON object"),
        ('{"auths": []}', None),
        ('{"auths": [1]}', "auths in .* is not a JSON object"),
        ('{"auths": {"x.com": {"auth": "%%"}}}', "is not base64"),
        ('{"auths": {"x.com": {"auth": "bm9uZQ=="}}}', "is not USER:PASSWORD"),
        (
            '{"credsStore": "nobody-has-this"}',
            "docker-credential-nobody-has-this keeps the login of x.com, and there is",
        ),
        ('{"credHelpers": {"x.com": "../../bin/sh"}}', "no such program"),
    ],
)
def test_a_config_that_cannot_be_used_says_so(contents: str, says: str | None, tmp_path: Path) -> None:
    environment = docker_config(tmp_path, {})
    (tmp_path / "config.json").write_text(contents)
    if says is None:
        assert not find_login("x.com", environment)
        return
    with pytest.raises(ImageError, match=says):
        find_login("x.com", environment)


@pytest.mark.parametrize(
    ("script", "login", "says"),
    [
        ('echo \'{"Username":"<token>","Secret":"t"}\'', Login(identity="t"), ""),
        ("echo credentials not found in native keychain; exit 1", Login(), ""),
        ("echo locked >&2; exit 2", None, "docker-credential-x has no login for x.com: locked"),
        ("echo nonsense", None, "did not answer for x.com as a credential helper does"),
    ],
)
def test_what_a_credential_program_says(script: str, login: Login | None, says: str, tmp_path: Path) -> None:
    program = tmp_path / "docker-credential-x"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    environment = docker_config(tmp_path / "docker", {"credHelpers": {"x.com": "x"}})
    environment["PATH"] = f"{tmp_path}:{environment['PATH']}"
    if login is None:
        with pytest.raises(ImageError, match=says):
            find_login("x.com", environment)
    else:
        assert find_login("x.com", environment)[:4] == login[:4]
