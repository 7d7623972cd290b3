"""Bundles that nothing refers to are removed by a running engine, and nothing else is."""

import asyncio
import itertools
import os
import signal
import sqlite3
import time
from pathlib import Path

import pytest
from tests.engine_fixture import Engine, until

from sunup.bundle.store import Store
from sunup.engine.local.state import StateFile
from sunup.engine.local.upkeep import collection
from sunup.engine.local.upkeep.collection import Collector
from sunup.errors import CommandError
from sunup.limits import COLLECT_DELAY_SECONDS, REVISIONS_KEPT, UNUSED_SECONDS_MAX
from sunup.settings import Project


def age(engine: Engine, *digests: str) -> None:
    """As if nobody had asked for these bundles, or any without names, for longer than they are kept."""
    then = time.time() - UNUSED_SECONDS_MAX - 60
    for digest in digests or Store(engine.project.bundles).list():
        os.utime(engine.project.bundles / digest, (then, then))


def bundles(engine: Engine) -> set[str]:
    return set(Store(engine.project.bundles).list())


def proofs(engine: Engine) -> set[str]:
    with sqlite3.connect(engine.project.state / "state.db") as db:
        found = {digest for (digest,) in db.execute("SELECT digest FROM proofs")}
    db.close()
    return found


def test_what_no_revision_has_goes_with_all_that_is_kept_for_it(engine: Engine) -> None:
    kept, gone = engine.serve("kept", 2.0)["digest"], engine.serve("gone", 3.0)["digest"]
    store, root = Store(engine.project.bundles), engine.project.bundles
    store.remember("a" * 64, gone)
    store.remember("b" * 64, kept)
    for digest in (kept, gone):
        (root / ".arranged" / digest / "machine").mkdir(parents=True)
        (root / ".arranged" / digest / "machine" / "model.onnx").write_bytes(b"x")
    (root / ".arranged" / ("c" * 64)).mkdir()  # of a bundle whose removal was interrupted
    half = root / ".staging" / "of-a-killed-process"
    half.mkdir(parents=True)
    age(engine)
    engine.remove("gone")
    until(lambda: gone not in bundles(engine), "the bundle to go")
    until(lambda: proofs(engine) == {kept}, "its proof to go")
    assert bundles(engine) == {kept}
    assert [path.name for path in (root / ".checked").iterdir()] == [kept]
    assert [path.name for path in (root / ".index").iterdir()] == ["b" * 64]
    assert [path.name for path in (root / ".arranged").iterdir()] == [kept]
    assert not half.exists()
    assert f"Removed bundle {gone[:12]}" in (engine.project.logs / "engine.log").read_text()
    assert engine.call("kept", 4.0).y == 8.0


def test_a_young_bundle_is_kept_for_the_deploy_that_made_it(engine: Engine) -> None:
    engine.serve("times", 2.0)
    old, young = engine.bundle("times", 3.0), engine.bundle("times", 4.0)
    age(engine, old)
    engine.serve("other", 5.0)  # the engine looks after each deploy
    until(lambda: old not in bundles(engine), "the old one to go")
    assert engine.deploy("times", young, settings={}, on_event=lambda _: None)["revision"] == 2
    assert engine.call("times", 1.0).y == 4.0
    again = engine.bundle("times", 3.0)  # made again, or asked for again, it is young again
    assert engine.deploy("times", again, settings={}, on_event=lambda _: None)["revision"] == 3


def test_remembered_revisions_stay_and_the_oldest_go(engine: Engine) -> None:
    digests = [engine.serve("times", float(n))["digest"] for n in range(1, REVISIONS_KEPT + 3)]
    age(engine)
    engine.serve("times", 99.0)
    until(lambda: not bundles(engine) & set(digests[:3]), "the forgotten ones to go")
    assert set(digests[3:]) <= bundles(engine)
    assert engine.rollback("times", 4)["revision"] == 4
    assert engine.call("times", 2.0).y == 8.0
    with pytest.raises(CommandError, match="no revision 3"):
        engine.rollback("times", 3)


def test_a_bundle_whose_worker_still_drains_stays(engine: Engine) -> None:
    digest = engine.serve("slow", 2.0)["digest"]
    connection = engine.open()
    connection.putrequest("POST", "/functions/slow")
    connection.putheader("content-length", "10")
    connection.endheaders()  # the worker waits for the body, and cannot end
    connection.send(b'{"x"')
    assert engine.call("slow", 1.0).y == 2.0
    age(engine)
    engine.remove("slow")
    end = time.monotonic() + COLLECT_DELAY_SECONDS + 0.5
    while time.monotonic() < end:
        assert digest in bundles(engine)
        engine.status(None)
    connection.send(b": 1.0}")
    assert connection.getresponse().status == 200
    connection.close()


@pytest.mark.parametrize("delay", [0.0, 0.01, 0.05])
def test_a_kill_meanwhile_is_harmless_and_the_next_start_goes_on(engine: Engine, delay: float) -> None:
    kept = engine.serve("times", 2.0)["digest"]
    strays = {engine.bundle("times", 10.0 + n) for n in range(30)}
    age(engine, *strays)
    engine.serve("other", 3.0)
    until(lambda: not strays <= bundles(engine), "the removal to begin")
    time.sleep(delay)  # a moment later each time
    os.kill(engine.pids()["supervisor"], signal.SIGKILL)
    until(lambda: engine.running() is None, "the supervisor to be gone")
    for digest in bundles(engine):
        Store(engine.project.bundles).open(digest)  # whole, whatever was removed
    engine.up()
    until(lambda: not strays & bundles(engine), "the rest to go")
    assert kept in bundles(engine)
    assert engine.call("times", 1.0).y == 2.0


def test_a_bundle_is_held_while_it_is_deployed_and_a_going_one_is_waited_for(tmp_path: Path) -> None:
    async def held() -> None:
        project = Project(tmp_path)
        state = StateFile(project.state / "state.db")
        engine = Engine(tmp_path)
        digest, other = engine.bundle("times", 2.0), engine.bundle("times", 3.0)
        age(engine)
        collector = Collector(project, state.kept, set)
        async with collector.holding(digest):
            collector.soon()
            while other in bundles(engine):
                await asyncio.sleep(0.01)
            await collector.close()
        assert bundles(engine) == {digest}
        state.close()

    asyncio.run(held())


def test_one_pass_removes_no_more_than_its_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collection, "COLLECTED_MAX", 2)
    monkeypatch.setattr(collection, "COLLECT_DELAY_SECONDS", 0.05)

    async def collect() -> list[int]:
        project = Project(tmp_path)
        state = StateFile(project.state / "state.db")
        engine = Engine(tmp_path)
        for n in range(5):
            engine.bundle("times", float(n))
        age(engine)
        collector = Collector(project, state.kept, set)
        counts: list[int] = []
        collector.soon()
        while counts[-1:] != [0]:
            await asyncio.sleep(0.005)
            counts.append(len(bundles(engine)))
        await collector.close()
        state.close()
        return counts

    counts = asyncio.run(collect())
    assert all(0 <= before - after <= 2 for before, after in itertools.pairwise(counts))
