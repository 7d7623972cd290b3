"""Who may call a real engine: keys on every path, rotated while it runs, and kept out of everything it writes."""

import http.client
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.engine_fixture import Answer, Engine, until

from sunup.access import keys
from sunup.bundle.manifest import Scale
from sunup.engine.access import Rules
from sunup.errors import EngineError

BODY = b'{"x": 2.0}'
ROTATION_SECONDS_MAX = 2.0
TENSOR = b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": [2]}]}'
PATHS = (  # one prediction in each protocol
    ("/functions/double", BODY),
    ("/v2/models/double/infer", TENSOR),
    ("/v1/models/double:predict", b'{"inputs": {"x": [2]}}'),
    ("/functions/double/invocations", b'{"inputs": {"x": [2]}}'),
)
CLOSED = (
    *("/", "/v2", "/docs", "/openapi.json", "/functions", "/v2/models", "/v1/models", "/absent"),
    *(
        "/functions/double",
        "/functions/double/ready",
        "/functions/double/ping",
        "/v2/models/double",
        "/v1/models/double",
    ),
)


def message(refused: Answer, target: str) -> str:
    """Where each protocol keeps it."""
    if target.endswith("/invocations"):
        return str(refused.json["message"])
    error = refused.json["error"]
    return str(error if target.startswith("/v") else error["message"])


class Guarded(Engine):
    """An engine with keys: `any` covers everything, `mine` the function double, `other` the function triple."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.file = root / "keys.jsonl"
        self.any = self.new("any", None)
        self.mine = self.new("mine", ["double"])
        self.other = self.new("other", ["triple"])
        self.rules = Rules(api_keys=str(self.file))

    def new(self, name: str, functions: list[str] | None) -> str:
        text, key = keys.make(name=name, functions=functions)
        keys.add(self.file, key)
        return text

    def get(self, target: str, key: str | None, connection: http.client.HTTPConnection | None = None) -> Answer:
        return self.ask("GET", target, b"", connection, {"x-api-key": key} if key else None)

    def post(
        self,
        key: str | None,
        target: str = "/functions/double",
        body: bytes = BODY,
        connection: http.client.HTTPConnection | None = None,
    ) -> Answer:
        return self.ask("POST", target, body, connection, {"authorization": f"Bearer {key}"} if key else None)


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    engine = Guarded(tmp_path / "p")
    engine.up(engine.rules)
    yield engine
    if engine.running() is None:
        engine.up(engine.rules)
    engine.down()


def test_every_protocol_wants_a_key(guarded: Guarded) -> None:
    guarded.serve("double", 2.0)
    for target, body in PATHS:
        assert guarded.post(guarded.any, target, body).status == 200
        assert guarded.post(guarded.mine, target, body).status == 200
        none, unknown, foreign = (guarded.post(key, target, body) for key in (None, "sunup_x", guarded.other))
        assert [none.status, unknown.status, foreign.status] == [401, 401, 403]
        assert none.headers["www-authenticate"] == 'Bearer realm="sunup"'
        assert "wants a key" in message(none, target)
        assert "does not know" in message(unknown, target)
        assert "does not cover" in message(foreign, target)
    connection = guarded.open()  # every request of a connection for itself
    for _ in range(3):
        assert guarded.post(guarded.mine, connection=connection).status == 200
    assert guarded.post(None, connection=connection).status == 401
    connection.close()
    counted = guarded.ask("GET", "/functions/double/ready", b"", None, {"x-api-key": guarded.any})
    assert counted.status == 200


def test_one_connection_for_several_functions_needs_the_key_of_each(guarded: Guarded) -> None:
    guarded.serve("double", 2.0)
    guarded.serve("triple", 3.0)
    connection = guarded.open()
    for _ in range(2):
        assert guarded.post(guarded.mine, connection=connection).y == 4.0
        assert guarded.post(guarded.other, "/functions/triple", connection=connection).y == 6.0
    assert guarded.post(guarded.mine, "/functions/triple", connection=connection).status == 403
    connection.close()


def test_the_front_shows_what_a_key_covers(guarded: Guarded) -> None:
    guarded.serve("double", 2.0)
    guarded.serve("triple", 3.0)
    for target in ("/v2/health/live", "/v2/health/ready"):
        assert guarded.get(target, None).status == 200, target
    for target in CLOSED:
        assert guarded.get(target, None).status == 401, target
        assert b"double" not in guarded.get(target, "sunup_x").body
    for target in (
        "/functions",
        "/v2/models",
        "/v1/models",
        "/openapi.json",
        "/functions/double",
        "/functions/%64ouble",
    ):
        shown = guarded.get(target, guarded.mine)
        assert (shown.status, b"double" in shown.body, b"triple" in shown.body) == (200, True, False), target
    assert (
        guarded.ask("POST", "/v2/repository/index", b"", None, {"x-api-key": guarded.other}).json[0]["name"] == "triple"
    )
    for name in ("triple", "absent"):  # no way to learn which of them exists
        for target in (f"/functions/{name}", f"/v2/models/{name}", f"/v1/models/{name}"):
            assert guarded.get(target, guarded.mine).status == 403, target
        hidden = guarded.get(f"/functions/%{name.encode()[0]:x}{name[1:]}", guarded.mine)
        assert (hidden.status, b"triple" in hidden.body) == (404, name == "triple"), hidden
    missing = guarded.post(guarded.any, "/functions/absent")
    assert (missing.status, b"double, triple" in missing.body) == (404, True)
    assert b"triple" in guarded.get("/functions", guarded.any).body


def test_a_stranger_wakes_nobody(guarded: Guarded) -> None:
    guarded.serve("double", 2.0, scale=Scale(idle_s=0.3))
    until(lambda: guarded.at_zero("double"), "the function to go to zero")
    for key, status in ((None, 401), ("sunup_x", 401), (guarded.other, 403)):
        for target, body in PATHS:
            refused = guarded.post(key, target, body)
            assert (refused.status, "key" in message(refused, target)) == (status, True)
            assert ("www-authenticate" in refused.headers) == (status == 401)
    with socket.create_connection(("127.0.0.1", guarded.port), timeout=10) as client:
        # A head that comes in pieces is waited for, and its end decides.
        client.sendall(b"POST /functions/double HTTP/1.1\r\nhost: localhost\r\n")
        time.sleep(0.1)  # so that the pieces are pieces
        client.sendall(b"content-length: 10\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 401 ")
    facts = guarded.status("double")["functions"][0]
    assert (facts["workers"], facts["cold_starts"]["count"]) == ([], 0)
    assert guarded.post(guarded.mine).y == 4.0


def test_keys_are_rotated_while_connections_stay(guarded: Guarded) -> None:
    guarded.serve("double", 2.0)
    connection = guarded.open()
    assert guarded.post(guarded.mine, connection=connection).status == 200
    fresh = guarded.new("fresh", ["double"])
    took = [until(lambda: guarded.post(fresh).status == 200, "the new key")]
    assert guarded.post(guarded.mine, connection=connection).status == 200
    keys.revoke(guarded.file, "mine")
    took.append(until(lambda: guarded.post(guarded.mine).status == 401, "the old key to end"))
    assert guarded.get("/functions", guarded.mine).status == 401
    assert guarded.post(guarded.mine, connection=connection).status == 401, "on the connection that was open, too"
    connection.close()
    print(f"a new key after {took[0]:.2f} s, a revoked one refused after {took[1]:.2f} s")
    assert max(took) < ROTATION_SECONDS_MAX
    assert guarded.post(fresh).status == 200
    assert guarded.status(None)["engine"]["access"]["keys"] == 3


def test_a_broken_key_file_changes_nothing_and_is_told(guarded: Guarded) -> None:
    guarded.serve("double", 2.0)
    whole = guarded.file.read_bytes()
    guarded.file.write_bytes(whole + b"half a li")
    until(lambda: "trouble" in guarded.status(None)["engine"]["access"], "the trouble to be told")
    assert "Line 4" in guarded.status(None)["engine"]["access"]["trouble"]
    assert guarded.post(guarded.mine).status == 200
    guarded.file.write_bytes(whole)
    until(lambda: "trouble" not in guarded.status(None)["engine"]["access"], "the trouble to end")


def test_keys_outlive_every_process(guarded: Guarded) -> None:
    guarded.serve("double", 2.0)
    for role in ("double", "front", "nursery", "door"):
        pid = guarded.pids()[role]
        os.kill(pid, signal.SIGKILL)
        until(lambda pid=pid, role=role: guarded.pids().get(role, pid) != pid, f"a new {role}")  # type: ignore[misc]
        assert guarded.post(None).status in (401, 503)
        until(lambda: guarded.post(guarded.mine).status == 200, "service")
        assert guarded.post(guarded.other).status == 403
        until(lambda: guarded.get("/functions", None).status == 401, "the front")
    os.kill(guarded.pids()["supervisor"], signal.SIGKILL)
    until(lambda: guarded.running() is None, "the supervisor to be gone")
    assert guarded.post(None).status == 401
    keys.revoke(guarded.file, "mine")  # what changes meanwhile holds when the next supervisor comes
    guarded.up(guarded.rules)
    assert guarded.post(guarded.mine).status == 401
    assert guarded.post(guarded.any).status == 200


def test_a_door_to_everybody_is_not_adopted_without_a_word(tmp_path: Path) -> None:
    engine = Guarded(tmp_path / "p")
    engine.up(engine.rules, host="0.0.0.0")
    engine.serve("double", 2.0)
    engine.serve("triple", 3.0, scale=Scale(idle_s=0.3))
    assert engine.post(None).status == 401
    assert engine.ask("GET", "/functions", b"", None, {"host": "any.test", "x-api-key": engine.any}).status == 200
    until(lambda: engine.at_zero("triple"), "the function to go to zero")
    os.kill(engine.pids()["supervisor"], signal.SIGKILL)
    until(lambda: engine.running() is None, "the supervisor to be gone")
    with pytest.raises(EngineError, match=r"listens on 0\.0\.0\.0.*--api-keys FILE, or --open"):
        engine.up()
    assert engine.post(None).status == 401
    assert engine.post(None, "/functions/triple").status == 401, "the door keeps its word, too"
    engine.up(engine.rules)
    assert engine.post(engine.mine).y == 4.0
    engine.down()


def test_a_browser_led_here_by_another_name_is_refused(engine: Engine) -> None:
    """DNS rebinding: a page of evil.test has its name resolve to 127.0.0.1, and calls what listens there."""
    engine.serve("double", 2.0)
    for target in ("/functions/double", "/functions", "/v2/health/live"):
        refused = engine.ask("GET", target, b"", None, {"host": f"evil.test:{engine.port}"})
        assert (refused.status, b"--allow-host" in refused.body) == (421, True), target
    assert engine.ask("POST", "/functions/double", BODY, None, {"host": "evil.test"}).status == 421
    assert engine.ask("POST", "/functions/double", BODY, None, {"host": "localhost:1"}).status == 200
    metrics = http.client.HTTPConnection("127.0.0.1", engine.metrics_port, timeout=10)
    for host, status in (("evil.test", 421), ("localhost", 200)):
        metrics.request("GET", "/metrics", headers={"host": host})
        response = metrics.getresponse()
        response.read()
        assert response.status == status
    metrics.close()


def test_names_are_added(tmp_path: Path) -> None:
    engine = Engine(tmp_path / "p")
    engine.up(Rules(hosts=("models.test",)))
    engine.serve("double", 2.0)
    for host, status in (("models.test", 200), ("evil.test", 421), ("localhost", 200)):
        assert engine.ask("POST", "/functions/double", BODY, None, {"host": host}).status == status
    engine.down()


def test_no_key_is_written_down_anywhere(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUNUP_API_KEY", guarded.any)
    guarded.down()
    guarded.up(guarded.rules)
    guarded.serve("double", 2.0)
    for key in (guarded.any, guarded.mine, guarded.other, "sunup_wrong"):
        guarded.post(key)
        guarded.get("/functions", key)
    secrets = [key.encode() for key in (guarded.any, guarded.mine, guarded.other, "sunup_wrong")]
    status = json.dumps(guarded.status(None)).encode()
    written = [path for path in guarded.project.state.rglob("*") if path.is_file()]
    assert {"double.log", "engine.log", "state.db"} <= {path.name for path in written}
    digests = [key.sha256.encode() for key in keys.read(guarded.file)]
    for pid in guarded.pids().values():
        written += [Path(f"/proc/{pid}/cmdline"), Path(f"/proc/{pid}/environ")]
    for text in (status, *(path.read_bytes() for path in written)):
        assert not any(secret in text for secret in (*secrets, *digests))
