"""The command line as a person uses it: real processes, a real engine, bundles of a tiny model."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.engine_fixture import Engine

from sunup.bundle.manifest import Scale
from sunup.cli.functions import parse_server_timing
from sunup.cli.main import COMMANDS

PLATFORM = Path(sys.executable).with_name("platform")


class Ran:
    """What one command did."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.code = done.returncode
        self.out = done.stdout
        self.err = done.stderr

    def __repr__(self) -> str:
        return f"Ran(code={self.code}, out={self.out!r}, err={self.err!r})"

    @property
    def json(self) -> Any:
        assert self.code == 0, self
        return json.loads(self.out)

    def refused(self, code: int) -> str:
        """The one paragraph on standard error of a command that ended with `code`."""
        assert self.code == code, self
        *progress, last = self.err.splitlines()
        assert last.startswith("error: "), self
        assert not [line for line in progress if "error" in line or "Traceback" in line], self
        return last


def platform(root: Path, *arguments: str, **env: str) -> Ran:
    command = [str(PLATFORM), *arguments]
    environment = {**os.environ, **env}
    return Ran(
        subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, env=environment, timeout=120)
    )


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """A project with nothing in it."""
    (tmp_path / "functions").mkdir()
    return tmp_path


def seconds_of_help() -> float:
    began = time.perf_counter()
    subprocess.run([str(PLATFORM), "--help"], check=True, capture_output=True)
    return time.perf_counter() - began


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    # 150 ms is the promise; one of twenty, so that a machine busy with other tests does not decide.
    assert any(seconds_of_help() < 0.150 for _ in range(20))
    code = "import sys, sunup.cli.main; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    held = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"rich", "numpy", "mlflow", "feast", "onnxruntime", "msgspec"} & set(held)


def test_help_lists_every_command(empty: Path) -> None:
    out = platform(empty, "--help").out
    for name, entry in COMMANDS.items():
        assert f"{name} " in out
        assert entry.summary in out
        assert platform(empty, name, "--help").code == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["deplo"], "Did you mean 'deploy'?"),
        (["status", "--jso"], "--json"),
        (["deploy"], "NAME|DIR"),
        (["call", "f", "{amount: 1}"], "not JSON"),
        (["up", "--host", "0.0.0.0"], "--open"),
        (["inspect", "nothing"], "neither a bundle's folder"),
        (["deploy", "./functions"], "manifest.json"),
        (["status", "--project", "nowhere"], "nowhere"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_usage_errors(empty: Path, arguments: list[str], says: str) -> None:
    assert says in platform(empty, *arguments).refused(2)


@pytest.mark.parametrize(
    "arguments",
    [["status"], ["call", "f", "{}"], ["rollback", "f"], ["remove", "f"], ["logs", "f"], ["deploy", "f", "--no-start"]],
)
def test_without_an_engine(empty: Path, arguments: list[str]) -> None:
    assert "platform up" in platform(empty, *arguments).refused(1)


def test_down_without_an_engine_is_no_failure(empty: Path) -> None:
    assert platform(empty, "down", "--json").json == {"stopped": False}


def test_status(engine: Engine) -> None:
    engine.serve("double", 2.0)
    root = engine.project.root
    facts = platform(root, "status", "--json").json
    assert [one["name"] for one in facts["functions"]] == ["double"]
    assert {"supervisor", "door", "nursery", "front"} <= {process["role"] for process in facts["engine"]["processes"]}
    table = platform(root, "status").out
    assert "double" in table
    assert "ready" in table
    detail = platform(root, "status", "double").out
    assert "nursery" in detail
    assert "missing" in platform(root, "status", "missing").refused(1)


def test_call(engine: Engine, tmp_path: Path) -> None:
    engine.serve("double", 2.0)
    root = engine.project.root
    said = platform(root, "call", "double", '{"x": 4}')
    assert said.out.splitlines()[0].split() == ["y", "8.0"]
    assert "execute" in said.out
    facts = platform(root, "call", "double", '[{"x": 1}, {"x": 2}]', "--json").json
    assert [one["y"] for one in facts["predictions"]] == [2.0, 4.0]
    assert facts["stages_ms"]["execute"] > 0
    (tmp_path / "record.json").write_text('{"x": 3}')
    assert platform(root, "call", "double", f"@{tmp_path / 'record.json'}", "--json").json["predictions"] == [
        {"y": 6.0}
    ]
    assert "z" in platform(root, "call", "double", '{"z": 4}').refused(1)
    assert "double" in platform(root, "call", "dubble", '{"x": 4}').refused(1)


def test_rollback_remove_and_logs(engine: Engine) -> None:
    engine.serve("double", 2.0)
    engine.serve("double", 3.0)
    root = engine.project.root
    assert engine.call("double", 2.0).y == 6.0
    assert platform(root, "rollback", "double", "--json").json["revision"] == 1
    assert engine.call("double", 2.0).y == 4.0
    assert platform(root, "rollback", "double", "--to", "2", "--json").json["revision"] == 2
    assert "99" in platform(root, "rollback", "double", "--to", "99").refused(1)
    assert platform(root, "logs", "double", "-n", "5").code == 0
    assert platform(root, "remove", "double", "--json").json["removed"]
    assert engine.call("double", 2.0).status == 404


def test_deploy_a_bundle_from_a_folder(engine: Engine, tmp_path: Path) -> None:
    folder = tmp_path / "prepared"
    digest = engine.bundle("double", 2.0, scale=Scale(idle_s=60))
    shutil.copytree(engine.project.bundles / digest, folder)
    shutil.rmtree(engine.project.bundles)
    root = engine.project.root
    facts = platform(root, "deploy", str(folder), "--json").json
    assert facts["digest"] == digest
    assert facts["curl"].startswith("curl ")
    answered = subprocess.run(facts["curl"], shell=True, capture_output=True, text=True, check=True)
    assert json.loads(answered.stdout)["predictions"] == [{"y": 4.0}]
    assert platform(root, "deploy", str(folder), "--json").json["unchanged"]
    with (folder / "model.onnx").open("ab") as file:
        file.write(b"!")
    assert "model.onnx" in platform(root, "deploy", str(folder)).refused(1)
    assert engine.call("double", 2.0).y == 4.0


def test_inspect(engine: Engine) -> None:
    digest = engine.bundle("double", 2.0)
    root = engine.project.root
    facts = platform(root, "inspect", digest[:10], "--json").json
    assert facts["manifest"]["function"] == "double"
    shown = platform(root, "inspect", str(engine.project.bundles / digest)).out
    assert "model.onnx" in shown
    assert "double/1" in shown


def test_up_says_that_it_runs_already(engine: Engine) -> None:
    ran = platform(engine.project.root, "up", "--detach")
    assert ran.code == 0
    assert ran.out.strip().endswith(str(engine.port))


def test_server_timing() -> None:
    assert parse_server_timing("decode;dur=0.02, lookup;desc=x;dur=1.5, cold") == {"decode": 0.02, "lookup": 1.5}
    assert parse_server_timing("") == {}
