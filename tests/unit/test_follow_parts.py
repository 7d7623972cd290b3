"""What following an alias is made of: reading an alias over HTTP, whose environment counts, what is tried again."""

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sunup.cli.client import Asker
from sunup.cli.follow.watched import Followed
from sunup.engine.follow.record import Follow
from sunup.engine.local.state import StateFile
from sunup.errors import CommandError, ConversionRefused, RegistryError, UsageError
from sunup.limits import FOLLOW_TRIES_MAX, REGISTRY_REPLY_BYTES_MAX
from sunup.registry.alias import RestAliases, fingerprint, open_aliases
from sunup.settings import Project

VERSION = json.dumps({"model_version": {"name": "fraud", "version": "3"}}).encode()


class Registry(ThreadingHTTPServer):
    """Answers every request with `status` and `body`; keeps what was asked. `closes`: it ends each kept connection,
    but without saying so."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.status, self.body, self.closes = 200, VERSION, False
        self.asked: list[tuple[str, str | None]] = []
        self.connections = 0

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Registry

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("authorization")))
        self.send_response(self.server.status)
        self.send_header("content-length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)
        self.close_connection = self.server.closes

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


def rest(uri: str, environment: dict[str, str] | None = None) -> RestAliases:
    """A reader, closed with the test's objects."""
    opened = open_aliases(uri, {"HOME": "/nowhere", **(environment or {})})
    assert isinstance(opened, RestAliases)
    return opened


def test_many_questions_take_one_connection(registry: Registry) -> None:
    aliases = rest(registry.uri)
    assert [aliases.version("fraud", "champion") for _ in range(3)] == ["3"] * 3
    assert registry.connections == 1
    assert registry.asked[0] == ("/api/2.0/mlflow/registered-models/alias?name=fraud&alias=champion", None)
    aliases.close()


def test_a_connection_that_was_closed_meanwhile_is_opened_again(registry: Registry) -> None:
    registry.closes = True
    aliases = rest(registry.uri)
    assert [aliases.version("fraud", "champion") for _ in range(3)] == ["3"] * 3
    assert registry.connections == 3
    aliases.close()


def test_what_is_special_in_names_is_quoted(registry: Registry) -> None:
    aliases = rest(registry.uri + "/base/")
    aliases.version("a&b c", "x/y")
    assert registry.asked[0][0] == "/base/api/2.0/mlflow/registered-models/alias?name=a%26b+c&alias=x%2Fy"
    aliases.close()


def basic(text: str) -> str:
    return f"Basic {base64.b64encode(text.encode()).decode()}"


@pytest.mark.parametrize(
    ("environment", "userinfo", "sent"),
    [
        ({"MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": "pw"}, "", basic("me:pw")),
        ({"MLFLOW_TRACKING_TOKEN": "t"}, "", "Bearer t"),
        ({}, "me:p%40w@", basic("me:p@w")),
        ({"MLFLOW_TRACKING_TOKEN": "t"}, "me:pw@", "Bearer t"),
    ],
    ids=["password", "token", "address", "token before address"],
)
def test_credentials_are_sent_as_mlflow_sends_them(
    registry: Registry, environment: dict[str, str], userinfo: str, sent: str
) -> None:
    aliases = rest(registry.uri.replace("//", f"//{userinfo}"), environment)
    aliases.version("fraud", "champion")
    assert registry.asked[0][1] == sent
    assert "pw" not in repr(aliases)
    aliases.close()


@pytest.mark.parametrize(
    ("status", "body", "error", "says"),
    [
        (400, b'{"error_code": "INVALID_PARAMETER_VALUE", "message": "not found"}', UsageError, "fraud@champion"),
        (404, b'{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no"}', UsageError, "fraud@champion"),
        (401, b"who?", RegistryError, "MLFLOW_TRACKING_TOKEN"),
        (403, b'{"error_code": "PERMISSION_DENIED"}', RegistryError, "MLFLOW_TRACKING_TOKEN"),
        (302, b"", RegistryError, "302"),
        (500, b"[]", RegistryError, "500"),
        (200, b"<html>", RegistryError, "200"),
        (200, b'{"model_version": {"version": "x"}}', RegistryError, "200"),
        (200, b" " * (REGISTRY_REPLY_BYTES_MAX + 1), RegistryError, "does not answer"),
    ],
)
def test_what_is_no_version(registry: Registry, status: int, body: bytes, error: type[CommandError], says: str) -> None:
    registry.status, registry.body = status, body
    aliases = rest(registry.uri)
    with pytest.raises(error, match=says):
        aliases.version("fraud", "champion")
    registry.status, registry.body = 200, VERSION
    assert aliases.version("fraud", "champion") == "3"
    aliases.close()


def test_nobody_there() -> None:
    with pytest.raises(RegistryError, match="does not answer"):
        rest("http://127.0.0.1:9").version("fraud", "champion")


@pytest.mark.parametrize(
    ("uri", "environment"),
    [
        ("postgresql://db/mlflow", {}),
        ("databricks", {}),
        ("http://tracking", {"HTTP_PROXY": "http://proxy"}),
        ("https://tracking", {"https_proxy": "http://proxy", "no_proxy": "other"}),
        ("https://tracking", {"MLFLOW_TRACKING_AWS_SIGV4": "true"}),
        ("https://tracking", {"MLFLOW_REGISTRY_URI": "databricks-uc"}),
    ],
)
def test_what_only_mlflow_can_reach_is_left_to_it(uri: str, environment: dict[str, str]) -> None:
    assert open_aliases(uri, {"HOME": "/nowhere", **environment}) is None


@pytest.mark.parametrize("said", ["tracking.example", ".example", "example", "other, *"])
def test_an_address_that_needs_no_proxy(said: str) -> None:
    environment = {"HOME": "/nowhere", "https_proxy": "http://proxy", "NO_PROXY": said}
    assert open_aliases("https://tracking.example/x", environment) is not None


def test_a_users_credentials_file_is_left_to_mlflow(tmp_path: Path) -> None:
    file = tmp_path / ".mlflow" / "credentials"
    file.parent.mkdir()
    file.write_text("[mlflow]\nmlflow_tracking_username = me\n")
    assert open_aliases("http://tracking", {"HOME": str(tmp_path)}) is None


def test_a_sqlite_registry_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="not there"):
        open_aliases(f"sqlite:///{tmp_path}/none.db", {})


def test_a_fingerprint_knows_the_registry_and_no_secret() -> None:
    assert fingerprint("http://me:pw@tracking/") == fingerprint("http://tracking")
    assert fingerprint("http://tracking/a") != fingerprint("http://tracking/b")


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("http://tracking", "http://tracking"),
        ("sqlite:////abs/mlflow.db", "sqlite:////abs/mlflow.db"),
        ("sqlite:///mlflow.db", "sqlite:////there/mlflow.db"),
        ("runs", "/there/runs"),
        ("", "sqlite:////p/.sunup/mlflow/mlflow.db"),
    ],
)
def test_the_registry_of_who_asks(said: str, meant: str) -> None:
    assert Asker({"MLFLOW_TRACKING_URI": said}, "/there").registry(Project(Path("/p"))) == meant


def followed() -> Followed:
    project, asker = Project(Path("/p")), Asker({}, "/p")
    facts = {"function": "fraud", "id": "1", "name": "fraud@champion", "model": "fraud", "alias": "champion"}
    return Followed(project, {**facts, "version": "3", "registry": fingerprint(asker.registry(project))}, asker)


def test_only_a_move_is_acted_upon() -> None:
    one = followed()
    assert not one.is_lost
    assert not one.wants("3", 0.0)
    assert one.wants("4", 0.0)
    assert one.wants("2", 0.0)
    one.acted("2")
    assert not one.wants("2", 0.0)


def test_what_is_wrong_with_a_model_is_final() -> None:
    assert followed().failed(ConversionRefused("no"), 0.0)


def test_what_may_pass_is_tried_a_few_times() -> None:
    one = followed()
    assert [one.failed(CommandError("it ended"), 0.0) for _ in range(FOLLOW_TRIES_MAX)] == [False, False, True]
    assert not one.wants("4", 0.5)
    one.acted("4")
    assert one.wants("5", 0.0)


def test_a_registry_that_does_not_hand_out_files_is_asked_ever_less_often() -> None:
    one = followed()
    waits: list[float] = []
    for _ in range(30):
        assert not one.failed(RegistryError("away"), 0.0)
        waits.append(next(step / 2 for step in range(200) if one.wants("4", step / 2)))
    assert waits[0] == 1.0
    assert waits == sorted(waits)
    assert waits[-1] == 60.0


def test_the_record_outlives_its_connection(tmp_path: Path) -> None:
    one = Follow("fraud", "1", "fraud@champion", "fraud", "champion", "abc", "3", "", 1.0)
    state = StateFile(tmp_path / "state.db")
    state.follows.note(one)
    state.follows.note(one._replace(version="4", reason="no"))
    state.close()
    state = StateFile(tmp_path / "state.db")
    assert state.follows.all() == [one._replace(version="4", reason="no")]
    state.follows.forget("fraud")
    assert state.follows.all() == []
    state.close()
