"""`platform deploy` from a real MLflow registry to a live function, and the resident process behind it."""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.engine_fixture import until
from tests.service.test_cli import platform

from sunup.bundle.declare.file import read
from sunup.bundle.packager import Packager
from sunup.cli import client, resident
from sunup.errors import CommandError
from sunup.settings import Project

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project with nothing but the model of examples/own_model.py in its registry; all it started ends with it."""
    root = tmp_path_factory.mktemp("own")
    (root / "functions").mkdir()
    script = str(ROOT / "examples" / "own_model.py")
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    subprocess.run([sys.executable, script], cwd=root, check=True, capture_output=True, env=environment)
    yield Project(root)
    platform(root, "down")


def resident_pid(project: Project) -> int:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(project.run / "packager.sock"))
        pid: int = next(client.messages(sock))["pid"]
        return pid


@pytest.fixture
def function(project: Project) -> dict[str, Any]:
    """The model deployed, whatever an earlier test left."""
    facts: dict[str, Any] = platform(project.root, "deploy", "cancer", "--json").json
    return facts


def test_ten_lines_of_user_code_become_a_live_function(project: Project, function: dict[str, Any]) -> None:
    answered = subprocess.run(shlex.split(function["curl"]), capture_output=True, text=True, check=True)
    answer = json.loads(answered.stdout)
    assert answer["model"] == "cancer/1"
    assert set(answer["predictions"][0]) == {"label", "probability"}
    assert platform(project.root, "status", "cancer", "--json").json["functions"][0]["state"] == "ready"


def test_an_unchanged_function_is_deployed_at_once(project: Project, function: dict[str, Any]) -> None:
    before = resident_pid(project)
    again = platform(project.root, "deploy", "cancer-v1", "--json").json
    assert again["unchanged"]
    assert again["revision"] == function["revision"]
    assert again["seconds"] < 3.0  # the promise is 1 s; a busy test machine gets three times that
    assert resident_pid(project) == before


@pytest.mark.usefixtures("function")
@pytest.mark.parametrize(
    ("name", "code", "says"),
    [
        ("cance", 2, "cancer"),
        ("cancer-v7", 2, "version 7"),
        ("cancer@champion", 2, "champion"),
        ("models:/cancer", 2, "models:/fraud/3"),
    ],
)
def test_names_that_mean_nothing(project: Project, name: str, code: int, says: str) -> None:
    assert says in platform(project.root, "deploy", name).refused(code)


@pytest.mark.usefixtures("function")
@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("[scale]\nmaxx = 3\n", 2, "line 2"),
        ('[features]\nservice = "cancer"\n', 1, "feature_store.yaml"),
        ('[response]\nscore = "probabilty:1"\n', 2, "probability"),
        ('[request]\n"mean radius" = "float64"\n', 2, "mean texture"),
        ("[parity]\ntolerance = 1e-30\n", 1, "tolerance"),
    ],
    ids=["misspelt key", "no feature repository", "no such output", "missing inputs", "parity"],
)
def test_a_declaration_that_does_not_hold(project: Project, text: str, code: int, says: str) -> None:
    path = project.functions / "cancer" / "function.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    try:
        assert says in platform(project.root, "deploy", "cancer").refused(code)
    finally:
        path.unlink()
    # What served before still does.
    assert platform(project.root, "status", "cancer", "--json").json["functions"][0]["state"] in ("ready", "cold")


def test_init_writes_what_would_be_derived(project: Project) -> None:
    try:
        path = Path(platform(project.root, "init", "cancer", "--json").json["path"])
        spec = read(path)
        assert (spec.name, spec.model, len(spec.request)) == ("cancer", "cancer", 30)
        assert "--force" in platform(project.root, "init", "cancer").refused(2)
        assert platform(project.root, "init", "cancer", "--force").code == 0
        assert platform(project.root, "deploy", "cancer", "--json").json["model"] == "cancer/1"
    finally:
        (project.functions / "cancer" / "function.toml").unlink(missing_ok=True)


def test_a_bundle_is_built_copied_and_inspected(project: Project, tmp_path: Path) -> None:
    out = tmp_path / "out"
    built = platform(project.root, "bundle", "cancer", "--out", str(out), "--json").json
    facts = platform(project.root, "inspect", str(out), "--json").json
    assert facts["digest"] == built["digest"]
    assert facts["parity"]["rows"] > 100
    assert "already there" in platform(project.root, "bundle", "cancer", "--out", str(out)).refused(2)


def test_each_request_has_the_environment_of_who_asks(project: Project, tmp_path: Path) -> None:
    platform(project.root, "bundle", "cancer", "--json")
    before = resident_pid(project)
    elsewhere = f"sqlite:///{tmp_path}/other.db"
    assert "no model" in platform(project.root, "bundle", "cancer", MLFLOW_TRACKING_URI=elsewhere).refused(2)
    assert platform(project.root, "bundle", "cancer", "--json").json["unchanged"]
    assert resident_pid(project) == before


def test_another_python_environment_gets_another_resident_process(project: Project) -> None:
    platform(project.root, "bundle", "cancer", "--json")
    before = resident_pid(project)
    assert platform(project.root, "bundle", "cancer", "--json", PYTHONWARNINGS="ignore").json["unchanged"]
    assert resident_pid(project) != before
    until(lambda: not Path(f"/proc/{before}").exists(), "the replaced process to be gone")


def test_a_resident_process_that_dies_at_work_is_named(project: Project) -> None:
    def kill(event: dict[str, Any]) -> None:
        if event.get("stage") == "resolve":
            os.kill(resident_pid(project), signal.SIGKILL)

    with pytest.raises(CommandError, match=r"packager\.log"):
        client.Resident(project).ask("build", {"name": "cancer"}, kill)
    assert platform(project.root, "bundle", "cancer", "--json").json["unchanged"]


def test_commands_at_once_start_one_resident_process(project: Project) -> None:
    client.Resident(project).stop()
    command = [str(Path(sys.executable).with_name("platform")), "bundle", "cancer", "--json"]
    running = [
        subprocess.Popen(command, cwd=project.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(3)
    ]
    said = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], said
    assert sum(b"starting the packager" in err for _, err in said) == 1


def test_it_ends_whenever_it_is_told_to(project: Project) -> None:
    for _ in range(40):  # told while it is about to wait: one in fifteen would wait for ever
        started = client.Resident(project)
        with started._connected(lambda _: None):
            pass
        stopping = threading.Thread(target=started.stop, daemon=True)
        stopping.start()
        stopping.join(10)
        assert not stopping.is_alive()


def test_it_ends_itself_when_nobody_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resident, "PACKAGER_IDLE_SECONDS", 0.3)
    path = tmp_path / "sock"
    desk = resident.Desk(Project(tmp_path), Packager())
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        serving = threading.Thread(target=desk.serve_until_idle, args=(listener,))
        serving.start()
        with socket.socket(socket.AF_UNIX) as asking:
            asking.connect(str(path))
            assert next(client.messages(asking))["pid"] == os.getpid()
            began = time.monotonic()
            serving.join(0.6)
            assert serving.is_alive()  # somebody is connected
        serving.join(10)
        assert not serving.is_alive()
        assert time.monotonic() - began > 0.6
    desk.close()
