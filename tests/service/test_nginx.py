"""infra/nginx.conf as shipped, with this test's ports and certificate: HTTPS answers are those of a direct call."""

import http.client
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.engine_fixture import Answer, Engine, until
from tests.ports import free_port

from sunup.access import keys
from sunup.bundle.manifest import Limits
from sunup.engine.access import Rules

CONFIG = Path(__file__).parents[2] / "infra" / "nginx.conf"
NAME = "models.example.com"
BODY = b'{"x": 2.0}'
LARGE = 4 * 1024 * 1024


def binary() -> str:
    """The path of nginx; without one the test is skipped at home and fails in CI."""
    found = shutil.which("nginx", path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")
    if found is None or shutil.which("openssl") is None:
        how = "nginx or openssl is not installed: infra/nginx.sh (Debian: apt-get install nginx-light openssl)"
        if os.environ.get("CI") == "true":
            pytest.fail(how)
        pytest.skip(how)
    return found


class Proxied(Engine):
    """An engine with keys behind an nginx."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.file = root / "keys.jsonl"
        self.key, record = keys.make(name="web", functions=["double", "large"])
        keys.add(self.file, record)
        self.tls_port = free_port()
        self.folder = root / "nginx"
        self.folder.mkdir()
        self.certificate = self.folder / "certificate.pem"
        certify = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -keyout key.pem -out certificate.pem"
        names = ["-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}"]
        subprocess.run([*certify.split(), *names], cwd=self.folder, check=True, capture_output=True)

    def config(self) -> Path:
        """The shipped file with this test's places in it, and what a distribution's nginx.conf has around it."""
        shipped = CONFIG.read_text("utf-8")
        for pattern, ours in (
            (r"127\.0\.0\.1:8000", f"127.0.0.1:{self.port}"),
            (r"listen 443", f"listen 127.0.0.1:{self.tls_port}"),
            (r"/etc/ssl/certs/\S+\.pem", str(self.certificate)),
            (r"/etc/ssl/private/\S+\.key", str(self.folder / "key.pem")),
        ):
            shipped, count = re.subn(pattern, ours, shipped)
            assert count, pattern
        (self.folder / "sunup.conf").write_text(shipped)
        temporary = "".join(
            f"{kind}_temp_path {self.folder / kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        log = f"access_log {self.folder / 'access.log'};\nerror_log {self.folder / 'error.log'};\n"
        whole = self.folder / "nginx.conf"
        whole.write_text(
            f"daemon off;\nworker_processes 1;\npid {self.folder / 'pid'};\nerror_log {self.folder / 'error.log'};\n"
            f"events {{}}\nhttp {{\n{log}{temporary}include {self.folder / 'sunup.conf'};\n}}\n"
        )
        return whole

    def https(self, name: str = NAME) -> http.client.HTTPSConnection:
        context = ssl.create_default_context(cafile=str(self.certificate))
        context.check_hostname = name == NAME
        connection = http.client.HTTPSConnection(NAME, timeout=20, context=context)
        plain = socket.create_connection(("127.0.0.1", self.tls_port), 20)
        connection.sock = context.wrap_socket(plain, server_hostname=name)
        return connection


@pytest.fixture
def proxied(tmp_path: Path) -> Iterator[Proxied]:
    nginx = binary()
    engine = Proxied(tmp_path / "p")
    engine.up(Rules(api_keys=str(engine.file)))
    config = engine.config()
    # As root, its workers would be another user's, who cannot get to this folder.
    command = [nginx, "-c", str(config), "-p", str(engine.folder)]
    command += ["-g", "user root;"] if os.geteuid() == 0 else []
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        until(lambda: process.poll() is not None or (engine.folder / "pid").exists(), "nginx")
        assert process.poll() is None, process.stderr.read()
        yield engine
    finally:
        process.terminate()
        process.wait(10)
        process.stderr.close()
        engine.down()


def ask(
    connection: http.client.HTTPConnection, method: str, target: str, body: bytes | None = None, **headers: str
) -> Answer:
    """One request on a connection."""
    connection.request(method, target, body, {name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    return Answer(response.status, dict(response.getheaders()), response.read())


def test_https_answers_are_those_of_a_direct_call(proxied: Proxied) -> None:
    proxied.serve("double", 2.0)
    proxied.serve("large", 2.0, limits=Limits(body_bytes=LARGE))
    secure, direct = proxied.https(), proxied.open()
    key = {"x_api_key": proxied.key}
    rows = json.dumps([{"x": float(n)} for n in range(10_000)])  # what a call may hold, and white space around it
    for method, target, body, headers in (
        ("POST", "/functions/double", BODY, key),
        (
            "POST",
            "/v2/models/double/infer",
            b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": [2]}]}',
            key,
        ),
        ("POST", "/functions/double/invocations", b'{"inputs": {"x": [2]}}', key),
        ("POST", "/functions/double", BODY, {"authorization": f"Bearer {proxied.key}"}),
        ("POST", "/functions/double", BODY, {}),
        ("POST", "/functions/other", BODY, key),
        ("POST", "/functions/double", b"{", key),
        ("POST", "/functions/double", b" " * (1024 * 1024 + 1), key),
        ("POST", "/functions/large", rows.encode().ljust(LARGE), key),
        ("GET", "/functions", None, key),
        ("HEAD", "/functions/double", None, key),
        ("GET", "/v2/health/live", None, {}),
    ):
        through = ask(secure, method, target, body, x_request_id="an-id-of-mine", **headers)
        straight = ask(direct, method, target, body, x_request_id="an-id-of-mine", **headers)
        assert (through.status, through.body) == (straight.status, straight.body), (target, through)
        for name in ("content-type", "x-request-id", "www-authenticate"):
            assert through.headers.get(name) == straight.headers.get(name), (target, name)
    secure.close()
    direct.close()


def test_request_ids_and_kept_connections(proxied: Proxied) -> None:
    proxied.serve("double", 2.0)
    secure = proxied.https()
    given = ask(secure, "POST", "/functions/double", BODY, x_api_key=proxied.key, x_request_id="mine-7")
    assert (given.headers["x-request-id"], given.json["id"]) == ("mine-7", "mine-7")
    made = {
        ask(secure, "POST", "/functions/double", BODY, x_api_key=proxied.key).headers["x-request-id"] for _ in range(50)
    }
    assert len(made) == 50
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in made), "nginx's own"
    secure.close()
    # nginx keeps its connections to Sunup: fifty calls did not take fifty of them.
    peers = [line for line in Path("/proc/net/tcp").read_text().splitlines() if f":{proxied.port:04X} " in line]
    assert len(peers) < 20


def test_what_nginx_refuses_itself(proxied: Proxied) -> None:
    proxied.serve("double", 2.0)
    secure = proxied.https()
    assert ask(secure, "POST", "/functions/double", b" " * (8 * 1024**2 + 1), x_api_key=proxied.key).status == 413
    secure.close()
    with pytest.raises(ssl.SSLError):
        proxied.https("evil.test")
    # nginx writes a refused request down once the connection has ended, after the answer was read.
    log = proxied.folder / "access.log"
    until(lambda: "POST /functions/double" in log.read_text(), "the refused request in nginx's log")
    assert proxied.key not in log.read_text()
