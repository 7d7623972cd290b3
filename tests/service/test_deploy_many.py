"""Many bundles deployed by one command: what fails is named, the rest is live; what dies on the way loses nothing."""

import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tests.engine_fixture import Engine, until
from tests.service.test_cli import platform

from sunup.bundle.manifest import StreamSpec
from sunup.bundle.store import MANIFEST
from sunup.engine.local.client import deploy_many
from sunup.errors import CommandError
from sunup.limits import DEPLOY_TOGETHER


class Elsewhere:
    """Bundles prepared on another machine."""

    def __init__(self, root: Path) -> None:
        self.made = Engine(root)

    def bundle(self, name: str, factor: float, **more: Any) -> Path:
        return self.made.project.bundles / self.made.bundle(name, factor, **more)

    def some(self, count: int) -> list[Path]:
        """f000 answers 0, f001 answers x, f002 answers 2x, ..."""
        return [self.bundle(f"f{number:03}", float(number)) for number in range(count)]


@pytest.fixture
def elsewhere(tmp_path: Path) -> Elsewhere:
    return Elsewhere(tmp_path / "elsewhere")


def deploy(engine: Engine, *folders: Path) -> Any:
    return platform(engine.project.root, "deploy", *map(str, folders), "--json")


def test_what_fails_is_named_and_the_others_are_live(engine: Engine, elsewhere: Elsewhere, tmp_path: Path) -> None:
    good = elsewhere.some(26)
    streaming = elsewhere.bundle("streamed", 2.0, stream=StreamSpec("embedded", "in"))
    broken, wrong = elsewhere.bundle("broken", 1.0), elsewhere.bundle("wrong", 1.0, claim=3.0)
    (broken / "model.onnx").write_bytes(b"\0" * 100)
    again = elsewhere.bundle("f003", 99.0)
    empty = tmp_path / "empty"
    empty.mkdir()
    ran = deploy(engine, *good, streaming, broken, wrong, again, empty)
    assert ran.code == 1, ran
    facts = json.loads(ran.out)
    assert sorted(one["function"] for one in facts["functions"]) == [f"f{n:03}" for n in range(26)] + ["streamed"]
    failed = {Path(one["bundle"]): one["error"] for one in facts["failed"]}
    assert set(failed) == {broken, wrong, again, empty}
    assert (failed[broken]["code"], failed[wrong]["code"]) == ("bundle_damaged", "proof_failed")
    assert "does not match its digest" in failed[broken]["message"]
    assert "recorded answers" in failed[wrong]["message"]
    assert str(good[3]) in failed[again]["message"]
    assert MANIFEST in failed[empty]["message"]
    status = {one["name"]: one for one in engine.status(None)["functions"]}
    assert len(status) == 27
    assert not any(worker for one in status.values() for worker in one["workers"] if worker["role"] == "calls")
    assert status["streamed"]["stream"]["broker"] == "embedded"
    assert engine.call("f007", 3.0).y == 21.0
    assert engine.call("wrong", 3.0).status == 404
    listed = engine.ask("GET", "/functions").json["functions"]
    assert [one["name"] for one in listed] == sorted(status)


def test_people_get_one_line_for_each_failure(engine: Engine, elsewhere: Elsewhere) -> None:
    good, wrong = elsewhere.some(2), elsewhere.bundle("wrong", 1.0, claim=3.0)
    ran = platform(engine.project.root, "deploy", *map(str, [*good, wrong]))
    assert ran.code == 1, ran
    assert ran.out.startswith("2 functions are live after")
    assert ran.out.endswith("; 1 bundles failed\n")
    assert [line for line in ran.err.splitlines() if line.startswith("error: ")] == [
        line for line in ran.err.splitlines() if str(wrong) in line
    ]
    again = platform(engine.project.root, "deploy", *map(str, good))
    assert again.code == 0, again
    assert again.out.endswith(", 2 of them unchanged\n")
    names = platform(engine.project.root, "deploy", str(good[0]), "fraud-v3")
    assert "folders only" in names.err


def test_a_warm_function_gets_a_worker_of_the_new_revision_before_it_is_routed(
    engine: Engine, elsewhere: Elsewhere
) -> None:
    engine.serve("f001", 5.0)
    assert engine.call("f001", 2.0).y == 10.0
    assert deploy(engine, *elsewhere.some(3)).code == 0
    status = {one["name"]: one for one in engine.status(None)["functions"]}
    assert (status["f001"]["revision"], status["f001"]["state"]) == (2, "ready")
    assert (status["f002"]["revision"], status["f002"]["state"]) == (1, "cold")
    assert engine.call("f001", 2.0).y == 2.0


def test_a_supervisor_killed_on_the_way_loses_nothing_it_told_of(engine: Engine, elsewhere: Elsewhere) -> None:
    bundles = _taken(engine, elsewhere.some(DEPLOY_TOGETHER * 2 + 10))
    told = []

    def kill_at_first(event: dict[str, Any]) -> None:
        told.append(event["done"])
        if len(told) == 1:
            os.kill(engine.pids()["supervisor"], signal.SIGKILL)

    with pytest.raises(CommandError, match="ended before it answered"):
        deploy_many(engine.project, bundles, kill_at_first)
    until(lambda: engine.running() is None, "the end of the supervisor")
    engine.up()
    there = {one["name"] for one in engine.status(None)["functions"]}
    assert {bundle["function"] for bundle in bundles[: told[0]]} <= there
    assert not _provers(engine)
    for name in sorted(there):
        assert engine.ask("GET", f"/functions/{name}/ready").status == 200
    facts = deploy_many(engine.project, bundles, lambda _: None)
    assert [one["function"] for one in facts] == [bundle["function"] for bundle in bundles]
    assert {one["function"] for one in facts if one["unchanged"]} == there
    assert {one["revision"] for one in facts} == {1}
    assert engine.call(f"f{len(bundles) - 1:03}", 2.0).y == 2.0 * (len(bundles) - 1)


def test_a_prover_or_a_nursery_that_is_killed_fails_no_bundle(engine: Engine, elsewhere: Elsewhere) -> None:
    bundles = _taken(engine, elsewhere.some(DEPLOY_TOGETHER * 3))
    ended = threading.Event()
    killed: list[int] = []

    def kill() -> None:
        while not ended.is_set() and len(killed) < 3:
            for pid in _provers(engine)[:1]:
                _kill(pid, killed)
            time.sleep(0.01)

    def once(event: dict[str, Any]) -> None:
        if event["done"] == DEPLOY_TOGETHER * 2:
            _kill(engine.pids()["nursery"], [])

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        facts = deploy_many(engine.project, bundles, once)
    finally:
        ended.set()
        killer.join()
    assert killed
    assert not [one for one in facts if "error" in one]
    until(lambda: not _provers(engine), "the end of the provers")


def test_two_bundles_of_one_function_are_refused_by_the_engine(engine: Engine, elsewhere: Elsewhere) -> None:
    bundles = _taken(engine, [elsewhere.bundle("twice", 1.0), elsewhere.bundle("twice", 2.0)])
    with pytest.raises(CommandError, match="same function"):
        deploy_many(engine.project, bundles, lambda _: None)


def _taken(engine: Engine, folders: list[Path]) -> list[dict[str, Any]]:
    """The bundles in the engine's own store, as it is asked to deploy them."""
    for folder in folders:
        shutil.copytree(folder, engine.project.bundles / folder.name)
    names = [json.loads((folder / MANIFEST).read_bytes())["function"] for folder in folders]
    return [
        {"function": name, "digest": folder.name, "settings": {}} for name, folder in zip(names, folders, strict=True)
    ]


def _provers(engine: Engine) -> list[int]:
    """The processes of this engine that prove bundles."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            name = Path(f"/proc/{entry}/comm").read_text()
            command = Path(f"/proc/{entry}/cmdline").read_text()
        except OSError:
            continue  # it ended meanwhile
        if name == "sunup-prover\n" and str(engine.project.run) in command:
            found.append(int(entry))
    return found


def _kill(pid: int, killed: list[int]) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    killed.append(pid)
