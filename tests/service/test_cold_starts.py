"""Cold starts of the engine: what the nursery keeps makes the next ones short, and never answers for another model."""

import os
import signal
import time
from pathlib import Path

from tests.engine_fixture import Engine, until
from tests.small_bundle import make_bundle
from tests.unit.test_kept import deep_model, deep_rows, wide_model

from sunup.bundle.manifest import Limits, Scale

SHORT = Scale(idle_s=0.2)


def stages(engine: Engine, name: str, target: str, body: bytes) -> dict[str, float]:
    """Milliseconds by stage of a call that wakes the function."""
    until(lambda: engine.at_zero(name), "the function to go to zero")
    answer = engine.ask("POST", target, body)
    assert answer.status == 200, answer
    said = answer.headers["server-timing"].split(",")
    return {stage.strip(): float(ms) for stage, ms in (one.split(";dur=") for one in said)}


def test_a_function_that_comes_back_finds_its_model_open(engine: Engine) -> None:
    digest = make_bundle(engine.project.bundles, deep_model(), deep_rows(), scale=SHORT)
    engine.deploy("score", digest, settings={}, on_event=lambda _: None)
    body = b'{"f0": 1.0, "f1": 2.0}'
    first = stages(engine, "score", "/functions/score", body)["load"]
    later: list[float] = []
    while min(later, default=first) > first / 3 and len(later) < 12:  # opening is only kept if it was seen to be quick
        later.append(stages(engine, "score", "/functions/score", body)["load"])
    print(f"load: first {first:.1f} ms, later {later}")
    assert min(later) < first / 3


def test_a_call_is_held_for_its_worker_and_refused_at_its_deadline(engine: Engine) -> None:
    bundles, limits = engine.project.bundles, Limits(timeout_s=0.15)
    digest = make_bundle(bundles, deep_model(1200), deep_rows(), scale=SHORT, limits=limits)
    engine.deploy("score", digest, settings={}, on_event=lambda _: None)
    until(lambda: engine.at_zero("score"), "the function to go to zero")
    body, begun = b'{"f0": 1.0, "f1": 2.0}', time.monotonic()
    late = engine.ask("POST", "/functions/score", body)
    assert (late.status, late.json["error"]["code"]) == (503, "deadline_exceeded")
    assert time.monotonic() - begun >= limits.timeout_s
    until(lambda: engine.ask("POST", "/functions/score", body).status == 200, "the worker it had woken")


def test_a_large_model_is_mapped_from_where_its_proof_laid_it_out(engine: Engine) -> None:
    digest = make_bundle(engine.project.bundles, wide_model(), deep_rows(), scale=SHORT)
    engine.deploy("score", digest, settings={}, on_event=lambda _: None)
    for _ in range(2):
        stages(engine, "score", "/functions/score", b'{"f0": 1.0, "f1": 2.0}')
        maps = Path(f"/proc/{engine.pids()['score']}/maps").read_text()
        assert f".arranged/{digest}/" in maps


def test_a_new_revision_never_runs_the_model_kept_of_the_old_one(engine: Engine) -> None:
    for factor in (2.0, 3.0, 2.0):
        engine.serve("times", factor, scale=SHORT)
        for _ in range(3):
            until(lambda: engine.at_zero("times"), "the function to go to zero")
            assert engine.call("times", 7.0).y == 7.0 * factor


def test_a_nursery_killed_with_models_kept_is_replaced_and_cold_starts_go_on(engine: Engine) -> None:
    engine.serve("times", 2.0, scale=SHORT)
    for _ in range(4):
        until(lambda: engine.at_zero("times"), "the function to go to zero")
        assert engine.call("times", 3.0).y == 6.0
        _kill_nursery(engine)


def _kill_nursery(engine: Engine) -> None:
    killed = engine.pids()["nursery"]
    os.kill(killed, signal.SIGKILL)
    until(lambda: engine.pids().get("nursery", killed) != killed, "another nursery")
