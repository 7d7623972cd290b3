"""A real container registry for tests: Debian's docker-registry on a free port, its images in a temporary folder; with
nobody asked who they are, with passwords, with tokens, and over TLS."""

import base64
import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse
import uuid
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from tests.ports import free_port
from tests.secured_kafka import Certificates

USER: Final = "deployer"
PASSWORD: Final = "pässwört/1"
# bcrypt of PASSWORD, which is all that the registry reads, with the least work.
_HTPASSWD: Final = f"{USER}:$2b$04$CxQ.nPAxPxhslAKxaGkRfO0yTpwE2zBshh7MjB/Ry.ANNbfYLRDmi\n"
_START_SECONDS_MAX: Final = 30.0


def program(name: str) -> str:
    """The path of docker-registry or skopeo; without one the test is skipped at home and fails in CI."""
    found = shutil.which(name)
    if found is None:
        says = f"{name} is not installed: infra/registry.sh gets it"
        if os.environ.get("CI") == "true":
            pytest.fail(says)
        pytest.skip(says)
    return found


class RegistryServer:
    """One registry process and its images, which outlive `stop`. `more`: sections of its configuration."""

    def __init__(self, folder: Path, **more: Any) -> None:
        self._binary = program("docker-registry")
        self.folder, self.port = folder, free_port()
        folder.mkdir(parents=True, exist_ok=True)
        self._more = more
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def data(self) -> Path:
        """Where it keeps what it was given."""
        return self.folder / "data"

    def start(self) -> "RegistryServer":
        """Start on the same port and data as before, and wait until it listens."""
        more = {key: value for key, value in self._more.items() if key != "http"}
        config = {
            "version": "0.1",
            "log": {"level": "warn", "accesslog": {"disabled": False}},
            "storage": {"filesystem": {"rootdirectory": str(self.data)}, "delete": {"enabled": True}},
            "http": {"addr": self.host, "secret": "of the tests", **self._more.get("http", {})},
            **more,
        }
        (self.folder / "config.yml").write_text(json.dumps(config))  # JSON is YAML
        with (self.folder / "log").open("ab") as log:
            command = [self._binary, "serve", str(self.folder / "config.yml")]
            # Its traces would go to a collector that nobody runs.
            environment = {"PATH": os.environ["PATH"], "OTEL_TRACES_EXPORTER": "none"}
            process = self._process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        deadline = time.monotonic() + _START_SECONDS_MAX
        while not self._listens():
            assert time.monotonic() < deadline, self._log()
            assert process.poll() is None, self._log()
            time.sleep(0.02)  # the only sign that a server listens is that it does
        return self

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def requests(self) -> list[str]:
        """What it was asked so far, as "PUT /v2/...", in order of the answers. It logs an answer before it sends it."""
        return [f"{method} {path}" for method, path, _ in self._answers()]

    def asked(self, *methods: str) -> int:
        """How many requests so far were of these methods, and done."""
        return sum(method in methods and status < 400 for method, _, status in self._answers())

    def _answers(self) -> Iterator[tuple[str, str, int]]:
        for line in self._log().splitlines():
            found = re.search(r'"([A-Z]+) (/v2/.*) HTTP/1\.[01]" (\d+) ', line)
            if found is not None:
                yield found[1], found[2], int(found[3])

    def _log(self) -> str:
        return (self.folder / "log").read_text("utf-8", "replace")

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True


def docker_config(folder: Path, contents: Mapping[str, Any]) -> dict[str, str]:
    """An environment in which Docker's config says `contents`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(contents))
    return {"DOCKER_CONFIG": str(folder), "PATH": os.environ["PATH"]}


def logged_in(folder: Path, host: str, user: str = USER, password: str = PASSWORD) -> dict[str, str]:
    """The environment after `docker login`."""
    packed = base64.b64encode(f"{user}:{password}".encode()).decode()
    return docker_config(folder, {"auths": {host: {"auth": packed}}})


def skopeo(*arguments: str) -> str:
    """What skopeo says, which knows nothing of Sunup."""
    policy = ["--insecure-policy"]
    ran = subprocess.run([program("skopeo"), *policy, *arguments], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


class TokenServer:
    """Makes a registry's tokens, as the distribution project's token authentication says: for USER whatever it asks
    for, for whoever gives no name what begins with open/, and reading only. Tokens are RS256 with the certificate
    inside."""

    ISSUER: Final = "tests"
    SERVICE: Final = "registry of the tests"
    REFRESH: Final = "an identity token"

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = serialization.PrivateFormat.PKCS8
        (folder / "token.key").write_bytes(
            key.private_bytes(serialization.Encoding.PEM, pem, serialization.NoEncryption())
        )
        self.bundle = folder / "token.pem"
        self._self_sign(folder)
        self._key = key
        self.asked: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}/token"
        self._thread = threading.Thread(target=self._server.serve_forever, name="tokens")
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def auth(self) -> dict[str, Any]:
        """The section of a registry's configuration that sends callers here."""
        section = {
            "realm": self.url,
            "service": self.SERVICE,
            "issuer": self.ISSUER,
            "rootcertbundle": str(self.bundle),
        }
        return {"token": section}

    def _self_sign(self, folder: Path) -> None:
        command = ["openssl", "req", "-x509", "-new", "-key", str(folder / "token.key"), "-days", "2"]
        subprocess.run([*command, "-subj", "/CN=tokens", "-out", str(self.bundle)], check=True, capture_output=True)

    def token(self, user: str, scopes: list[str]) -> str:
        """A JSON web token that lets its bearer do what `scopes` say, as far as the user may."""
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":", 2)
            wanted = actions.split(",")
            if user != USER:
                wanted = ["pull"] if name.startswith("open/") and "pull" in wanted else []
            access.append({"type": kind, "name": name, "actions": wanted})
        now = int(time.time())
        claims = {"iss": self.ISSUER, "sub": user, "aud": self.SERVICE, "iat": now, "nbf": now - 10, "exp": now + 300}
        pem = self.bundle.read_text().split("-----")[2]
        head = {"typ": "JWT", "alg": "RS256", "x5c": ["".join(pem.split())]}
        parts = [json.dumps(part).encode() for part in (head, {**claims, "jti": uuid.uuid4().hex, "access": access})]
        signed = b".".join(map(_packed, parts))
        signature = self._key.sign(signed, padding.PKCS1v15(), hashes.SHA256())
        return (signed + b"." + _packed(signature)).decode()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
                server.asked.append(self.path)
                header = self.headers.get("Authorization", "")
                right = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
                if header and header != f"Basic {right}":
                    self._answer(401, {"errors": [{"code": "UNAUTHORIZED", "message": "wrong password"}]})
                else:
                    self._answer(200, {"token": server.token(USER if header else "", query.get("scope", []))})

            def do_POST(self) -> None:
                form = urllib.parse.parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                server.asked.append(f"POST {form['grant_type'][0]}")
                if form.get("refresh_token") != [server.REFRESH] or form.get("service") != [server.SERVICE]:
                    self._answer(400, {"error": "invalid_grant"})
                else:
                    self._answer(200, {"access_token": server.token(USER, form["scope"][0].split())})

            def _answer(self, status: int, facts: dict[str, Any]) -> None:
                data = json.dumps(facts).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *arguments: Any) -> None:
                """Nothing."""

        return Handler


def _packed(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


@pytest.fixture(scope="session")
def registry_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """A registry that asks nobody who they are, shared by the session: use a prefix of your own."""
    server = RegistryServer(tmp_path_factory.mktemp("images"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def registry_with_passwords(tmp_path: Path) -> Iterator[RegistryServer]:
    """One that lets in USER with PASSWORD alone."""
    file = tmp_path / "htpasswd"
    file.write_text(_HTPASSWD, "utf-8")
    server = RegistryServer(tmp_path / "images", auth={"htpasswd": {"realm": "tests", "path": str(file)}})
    server.start()
    yield server
    server.stop()


@pytest.fixture
def token_server(tmp_path: Path) -> Iterator[TokenServer]:
    server = TokenServer(tmp_path / "tokens")
    yield server
    server.stop()


@pytest.fixture
def registry_with_tokens(tmp_path: Path, token_server: TokenServer) -> Iterator[RegistryServer]:
    """One that sends callers to `token_server`."""
    server = RegistryServer(tmp_path / "images", auth=token_server.auth())
    server.start()
    yield server
    server.stop()


@pytest.fixture
def registry_over_tls(tmp_path: Path) -> Iterator[tuple[RegistryServer, Certificates]]:
    """One whose certificate is of an authority nobody knows."""
    made = Certificates(tmp_path / "certificates")
    tls = {"tls": {"certificate": str(made.server), "key": str(made.server_key)}}
    server = RegistryServer(tmp_path / "images", http=tls)
    server.start()
    yield server, made
    server.stop()
