"""A real registry that asks who we are: by password, by token, over TLS."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from tests.image_parts import runtime_image
from tests.registry_server import PASSWORD, USER, RegistryServer, TokenServer, docker_config, logged_in, skopeo
from tests.secured_kafka import Certificates

from sunup.engine.kubernetes.image.push import push_bundle, push_flat, push_image
from sunup.engine.kubernetes.image.registry.client import Registry
from sunup.engine.kubernetes.image.registry.reference import parse_address
from sunup.engine.kubernetes.image.registry.wire import Wire
from sunup.errors import ImageError


class TestPasswords:
    def test_with_the_right_login(
        self, image_bundle: Path, registry_with_passwords: RegistryServer, tmp_path: Path
    ) -> None:
        host = registry_with_passwords.host
        registry = Registry.of(host, environment=logged_in(tmp_path / "docker", host))
        reference = push_bundle(image_bundle, image_bundle.name, "fraud", registry)
        login = f"--creds={USER}:{PASSWORD}"
        assert skopeo("inspect", "--tls-verify=false", login, "--raw", f"docker://{reference}")

    def test_without_one(self, image_bundle: Path, registry_with_passwords: RegistryServer, tmp_path: Path) -> None:
        host = registry_with_passwords.host
        registry = Registry.of(host, environment=docker_config(tmp_path / "docker", {}))
        with pytest.raises(ImageError, match=rf"with no login\. Run: docker login {host}"):
            push_bundle(image_bundle, image_bundle.name, "fraud", registry)

    def test_with_a_wrong_one(
        self, image_bundle: Path, registry_with_passwords: RegistryServer, tmp_path: Path
    ) -> None:
        host = registry_with_passwords.host
        environment = logged_in(tmp_path / "docker", host, password="old")
        with pytest.raises(ImageError, match=r"with the login of .*config\.json\. Run: docker login"):
            push_bundle(image_bundle, image_bundle.name, "fraud", Registry.of(host, environment=environment))

    @pytest.mark.parametrize("kind", ["credHelpers", "credsStore"])
    def test_a_program_keeps_it(
        self, image_bundle: Path, registry_with_passwords: RegistryServer, tmp_path: Path, kind: str
    ) -> None:
        host = registry_with_passwords.host
        answer = json.dumps({"ServerURL": host, "Username": USER, "Secret": PASSWORD})
        program = tmp_path / "bin" / "docker-credential-tests"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\n[ \"$1\" = get ] && [ \"$(cat)\" = '{host}' ] && echo '{answer}'\n")
        program.chmod(0o755)
        says: dict[str, Any] = {"credHelpers": {host: "tests"}} if kind == "credHelpers" else {"credsStore": "tests"}
        environment = docker_config(tmp_path / "docker", {**says, "auths": {host: {}}})
        environment["PATH"] = f"{program.parent}{os.pathsep}{environment['PATH']}"
        assert push_bundle(image_bundle, image_bundle.name, "fraud", Registry.of(host, environment=environment))


class TestTokens:
    def test_with_a_password(
        self, image_bundle: Path, registry_with_tokens: RegistryServer, token_server: TokenServer, tmp_path: Path
    ) -> None:
        host = registry_with_tokens.host
        registry = Registry.of(f"{host}/ml", environment=logged_in(tmp_path / "docker", host))
        push_bundle(image_bundle, image_bundle.name, "fraud", registry)
        assert len(token_server.asked) == 1  # one token for everything that is done in a repository
        runtime = push_image(runtime_image(tmp_path), registry, "runtime", "1")
        assert push_flat(image_bundle, image_bundle.name, "fraud", runtime, registry)
        mounts = [request for request in registry_with_tokens.requests() if "mount=" in request]
        assert len(mounts) == 1 + 2  # the first one without a token that covers both repositories

    def test_with_an_identity_token(
        self, image_bundle: Path, registry_with_tokens: RegistryServer, token_server: TokenServer, tmp_path: Path
    ) -> None:
        host = registry_with_tokens.host
        entry = {"auth": "Og==", "identitytoken": TokenServer.REFRESH}
        environment = docker_config(tmp_path / "docker", {"auths": {host: entry}})
        assert push_bundle(image_bundle, image_bundle.name, "fraud", Registry.of(host, environment=environment))
        assert token_server.asked == ["POST refresh_token"]

    def test_whoever_may_not_push(
        self, image_bundle: Path, registry_with_tokens: RegistryServer, tmp_path: Path
    ) -> None:
        host = registry_with_tokens.host
        registry = Registry.of(f"{host}/open", environment=docker_config(tmp_path / "docker", {}))
        with pytest.raises(ImageError, match=rf"{host} refuses to .* open/fraud"):
            push_bundle(image_bundle, image_bundle.name, "fraud", registry)

    def test_with_a_wrong_password(
        self, image_bundle: Path, registry_with_tokens: RegistryServer, tmp_path: Path
    ) -> None:
        host = registry_with_tokens.host
        environment = logged_in(tmp_path / "docker", host, password="old")
        with pytest.raises(ImageError, match=r"refuses the login of .*config\.json: wrong password"):
            push_bundle(image_bundle, image_bundle.name, "fraud", Registry.of(host, environment=environment))


class TestTls:
    def test_a_certificate_that_docker_was_given(
        self, image_bundle: Path, registry_over_tls: tuple[RegistryServer, Certificates], tmp_path: Path
    ) -> None:
        server, certificates = registry_over_tls
        known = tmp_path / "certs.d"
        (known / server.host).mkdir(parents=True)
        (known / server.host / "ca.crt").write_bytes(certificates.ca.read_bytes())
        wire = Wire(parse_address(f"https://{server.host}"), environment={}, certificates=known)
        assert push_bundle(image_bundle, image_bundle.name, "fraud", Registry(wire))

    def test_one_that_nobody_knows(
        self, image_bundle: Path, registry_over_tls: tuple[RegistryServer, Certificates], tmp_path: Path
    ) -> None:
        server, _ = registry_over_tls
        wire = Wire(parse_address(f"https://{server.host}"), environment={}, certificates=tmp_path / "none")
        with pytest.raises(
            ImageError, match=rf"certificate of {server.host} is not trusted.*none/{server.host}/ca\.crt"
        ):
            push_bundle(image_bundle, image_bundle.name, "fraud", Registry(wire))

    def test_a_registry_in_plain_http(self, image_bundle: Path, registry_server: RegistryServer) -> None:
        registry = Registry.of(f"https://{registry_server.host}", environment={})
        with pytest.raises(ImageError, match=rf"does not speak TLS.* write http://{registry_server.host}"):
            push_bundle(image_bundle, image_bundle.name, "fraud", registry)

    def test_tls_where_plain_http_was_asked_for(
        self, image_bundle: Path, registry_over_tls: tuple[RegistryServer, Certificates]
    ) -> None:
        server, _ = registry_over_tls
        with pytest.raises(ImageError, match=r"HTTP request to an HTTPS server|status 400"):
            push_bundle(image_bundle, image_bundle.name, "fraud", Registry.of(server.host, environment={}))
