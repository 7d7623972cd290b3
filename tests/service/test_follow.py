"""`platform deploy NAME@ALIAS --follow`: the alias moves, and the function is another version. With real registries:
MLflow's SQLite file, and a tracking server over HTTP."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from tests.engine_fixture import Engine, until
from tests.mlflow_fixture import MlflowServer
from tests.service.test_cli import Ran, platform

from sunup.errors import CommandError
from sunup.settings import Project

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of importing MLflow and what it imports: theirs
    from mlflow import MlflowClient

pytestmark = [
    pytest.mark.timeout(600),  # the first test waits for a server to start and a training
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),  # in MLflow 3.17's own tables
]

ROOT = Path(__file__).resolve().parents[2]
# The promise is 5 s; a busy test machine gets three times that.
MOVE_SECONDS_MAX = 3 * 5.0
NAME = "cancer@champion"
REFUSED = "6"  # a version that cannot be loaded


class Place:
    """A project, and the registry its models are in. `uri`: None for the project's own."""

    def __init__(self, root: Path, uri: str | None) -> None:
        self.project = Project(root)
        (root / "functions").mkdir(parents=True)
        self.env = {} if uri is None else {"MLFLOW_TRACKING_URI": uri}
        environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
        script = str(ROOT / "examples" / "own_model.py")
        subprocess.run([sys.executable, script], cwd=root, check=True, capture_output=True, env=environment | self.env)
        self.client = MlflowClient(tracking_uri=uri or self.project.own_registry)
        for _ in range(4):
            self._register(uri is None)
        if uri is None:
            self.client.create_model_version("cancer", self._broken(root / "broken"))
        self.point(1)

    def _register(self, local: bool) -> None:
        """The same files as another version. MLflow looks a models:/ address up in the registry of the whole process,
        which is none of a SQLite file here."""
        source = self.client.get_model_version("cancer", "1").source
        if local:
            source = self.client.get_model_version_download_uri("cancer", "1")
        self.client.create_model_version("cancer", source, model_id=None if local else source.removeprefix("models:/"))

    def _broken(self, folder: Path) -> str:
        """The address of a model whose pickle is none."""
        files = self.client.get_model_version_download_uri("cancer", "1")
        shutil.copytree(unquote(urlsplit(files).path), folder)
        (pickle,) = (path for path in folder.rglob("model.*") if path.is_file())
        pickle.write_bytes(b"no model")
        return folder.as_uri()

    def run(self, *arguments: str, **env: str) -> Ran:
        return platform(self.project.root, *arguments, **(self.env | env))

    def point(self, version: int | str) -> None:
        """Move the alias."""
        self.client.set_registered_model_alias("cancer", "champion", str(version))

    def facts(self) -> dict[str, Any]:
        found: dict[str, Any] = self.run("status", "cancer", "--json").json["functions"][0]
        return found

    def answers(self) -> str:
        """The version that answers a call."""
        called = self.run("call", "cancer", json.dumps(self.example))
        return called.out if called.code else called.out.partition("(cancer/")[2].partition(")")[0]

    @property
    def example(self) -> dict[str, Any]:
        digest = self.facts()["digest"]
        example: dict[str, Any] = json.loads((self.project.bundles / digest / "manifest.json").read_text())["example"]
        return example

    def follow(self) -> dict[str, Any]:
        """The alias at version 1, deployed and followed."""
        self.point(1)
        deployed: dict[str, Any] = self.run("deploy", NAME, "--follow", "--json").json
        assert deployed["model"] == "cancer/1"
        assert deployed["follows"] == NAME
        self.wait(lambda: self.facts()["follows"]["looked_at"] is not None, "the first look")
        return deployed

    def wait(self, condition: Callable[[], bool], what: str) -> float:
        return until(condition, what, seconds=MOVE_SECONDS_MAX)

    def follower(self) -> int:
        processes = self.run("status", "--json").json["engine"]["processes"]
        return next((process["pid"] for process in processes if process["role"] == "follower"), 0)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    server = MlflowServer(tmp_path_factory.mktemp("server"))
    server.start()
    try:
        server.wait()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A project with its own registry: a SQLite file."""
    place = Place(tmp_path_factory.mktemp("own") / "p", None)
    yield place
    place.run("down")


@pytest.fixture(scope="module")
def served(server: MlflowServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A project whose registry is a tracking server."""
    place = Place(tmp_path_factory.mktemp("served") / "p", server.url)
    yield place
    place.run("down")


def moved(place: Place, version: int) -> float:
    """Move the alias, and make calls until the new version answers; how long that took."""
    record = json.dumps(place.example)
    began = time.monotonic()
    place.point(version)
    place.wait(
        lambda: f"cancer/{version}" in place.run("call", "cancer", record).out, f"answers from version {version}"
    )
    return time.monotonic() - began


@pytest.mark.parametrize("kind", ["own", "served"])
def test_a_function_follows_its_alias(kind: str, request: pytest.FixtureRequest) -> None:
    place: Place = request.getfixturevalue(kind)
    place.follow()
    taken = [moved(place, version) for version in (2, 3, 2)]
    print(f"from the move of an alias ({kind}) to answers of its new version: {[round(s, 2) for s in taken]} s")
    follows = place.facts()["follows"]
    assert (follows["name"], follows["version"], follows["trouble"], follows["refused"]) == (NAME, "2", "", None)
    assert "follows cancer@champion" in place.run("status").out
    assert "version 2 is deployed" in (place.project.logs / "cancer.log").read_text()


def test_a_version_that_cannot_be_served_is_refused_once(own: Place) -> None:
    own.follow()
    own.point(REFUSED)
    own.wait(lambda: own.facts()["follows"]["refused"] is not None, "the refusal")
    facts = own.facts()
    assert facts["follows"]["refused"]["version"] == REFUSED
    reason = facts["follows"]["refused"]["reason"]
    assert facts["model"] == "cancer/1"
    assert reason in " ".join(own.run("status", COLUMNS="1000").out.split())
    log = own.project.logs / "cancer.log"
    assert "version 6 is refused" in log.read_text()
    looked = facts["follows"]["looked_at"]
    own.wait(lambda: own.facts()["follows"]["looked_at"] > looked + 2, "two more looks")
    assert log.read_text().count("version 6 is refused") == 1
    moved(own, 2)
    assert own.facts()["follows"]["refused"] is None


def test_a_follower_that_is_killed_is_started_again(own: Place) -> None:
    own.follow()
    pid = own.follower()
    os.kill(pid, signal.SIGKILL)
    moved(own, 3)
    assert own.follower() not in (0, pid)


def test_it_goes_on_after_a_restart_of_everything(own: Place) -> None:
    own.follow()
    own.run("down")
    own.point(4)
    own.run("up", "--detach", "--port", "0", "--metrics-port", "0")
    until(lambda: own.facts()["model"] == "cancer/4", "what was missed", seconds=90)  # the packager begins cold
    engine = own.run("status", "--json").json["engine"]["pid"]
    os.kill(engine, signal.SIGKILL)
    own.run("up", "--detach", "--port", "0", "--metrics-port", "0")
    moved(own, 2)  # the packager outlived the engine


def test_an_engine_started_with_another_registry_does_not_look_there(served: Place) -> None:
    served.follow()
    served.run("down")
    served.run("up", "--detach", "--port", "0", "--metrics-port", "0", MLFLOW_TRACKING_URI="")
    served.wait(lambda: "MLFLOW_TRACKING_URI" in served.facts()["follows"]["trouble"], "the reason")
    served.follow()  # brings the environment along
    moved(served, 2)


def test_a_rolled_back_function_stays_until_the_alias_moves(own: Place) -> None:
    own.follow()
    moved(own, 2)
    assert own.run("rollback", "cancer", "--json").json["model"] == "cancer/1"
    looked = own.facts()["follows"]["looked_at"]
    own.wait(lambda: own.facts()["follows"]["looked_at"] > looked + 2, "two more looks")
    assert own.facts()["model"] == "cancer/1"
    moved(own, 3)


def test_what_ends_it(own: Place) -> None:
    own.follow()
    assert "no longer follows cancer@champion" in own.run("deploy", NAME).err
    assert "follows" not in own.facts()
    own.wait(lambda: own.follower() == 0, "the end of the follower")
    own.follow()
    own.run("remove", "cancer")
    own.wait(lambda: own.follower() == 0, "the end of the follower")
    own.run("down")
    own.run("up", "--detach", "--port", "0", "--metrics-port", "0")
    assert own.follower() == 0


@pytest.mark.parametrize("what", ["cancer", "cancer-v1", "models:/cancer/1", "cancer@latest"])
def test_without_an_alias_there_is_nothing_to_follow(own: Place, what: str) -> None:
    assert "alias" in own.run("deploy", what, "--follow").refused(2)


def test_a_deploy_begun_for_an_alias_that_is_no_longer_followed_is_refused(engine: Engine) -> None:
    engine.serve("times", 2.0)
    begun = {"id": "earlier", "model": "times", "version": "2"}
    with pytest.raises(CommandError, match="meanwhile"):
        engine.deploy("times", engine.bundle("times", 3.0), settings={}, on_event=lambda _: None, follow=begun)
    assert engine.call("times", 1.0).y == 2.0


def test_a_registry_that_is_away_is_asked_again(served: Place, server: MlflowServer) -> None:
    served.follow()
    server.stop()
    served.wait(lambda: "does not answer" in served.facts()["follows"]["trouble"], "the trouble")
    assert served.answers() == "1"
    server.start()
    server.wait()
    served.wait(lambda: not served.facts()["follows"]["trouble"], "the end of the trouble")
    moved(served, 2)


def test_nothing_of_the_environment_is_written_down(served: Place) -> None:
    secret = "Zwiebelfisch"
    served.run("deploy", NAME, "--follow", MLFLOW_TRACKING_PASSWORD=secret, MLFLOW_TRACKING_USERNAME="me")
    written = [path for path in served.project.state.rglob("*") if path.is_file()]
    assert [path for path in written if secret.encode() in path.read_bytes()] == []
    server = served.env["MLFLOW_TRACKING_URI"].encode()
    database = served.project.state.glob("state.db*")
    assert not any(server in path.read_bytes() for path in database)
