"""The local engine in its real processes, spoken to over real sockets: deploy, scale to zero, wake, switch, stop."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.engine_fixture import Answer, Engine, until

from sunup.bundle.manifest import Limits, Scale
from sunup.engine.local.services import rotate
from sunup.errors import CommandError
from sunup.limits import LOG_BYTES_MAX

SHORT = Scale(idle_s=0.5)


def test_deploy_then_call(engine: Engine) -> None:
    result = engine.serve("double", 2.0)
    assert (result["revision"], result["unchanged"]) == (1, False)
    assert engine.call("double", 21.0).y == 42.0
    again = engine.deploy("double", result["digest"], settings={}, on_event=lambda _: None)
    assert (again["revision"], again["unchanged"]) == (1, True)


def test_to_zero_and_back(engine: Engine) -> None:
    engine.serve("double", 2.0, scale=SHORT)
    until(lambda: engine.at_zero("double"), "the function to go to zero")
    answer = engine.call("double", 1.5)
    assert answer.y == 3.0
    stages = {part.split(";")[0].strip() for part in answer.headers["server-timing"].split(",")}
    assert {"hold", "fork", "load", "prove", "decode", "execute", "encode"} <= stages
    assert "fork" not in engine.call("double", 1.5).headers["server-timing"]
    until(lambda: engine.status("double")["functions"][0]["cold_starts"]["count"] == 1, "the cold start to be counted")
    cold = engine.status("double")["functions"][0]["cold_starts"]
    assert set(cold["last_ms"]) == {"hold", "fork", "load", "prove", "total"}
    assert cold["mean_ms"] == cold["last_ms"]


def test_a_thousand_calls_at_zero_are_all_answered(engine: Engine) -> None:
    engine.serve("double", 2.0, scale=SHORT)
    until(lambda: engine.at_zero("double"), "the function to go to zero")
    begun = time.monotonic()
    ends: list[float] = []

    def one(n: int) -> Answer:
        answer = engine.call("double", float(n))
        ends.append(time.monotonic() - begun)
        return answer

    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(one, range(1000)))
    assert [a.status for a in answers] == [200] * 1000
    assert all(a.y == 2.0 * n for n, a in enumerate(answers))
    print(f"first answer after {1000 * min(ends):.0f} ms, the last of 1,000 after {max(ends):.2f} s")
    assert min(ends) < 1.0
    assert max(ends) < 30.0


def test_a_full_log_makes_way(tmp_path: Path) -> None:
    (tmp_path / "fraud.log").write_bytes(bytes(LOG_BYTES_MAX + 1))
    (tmp_path / "small.log").write_bytes(b"x")
    rotate(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fraud.log", "fraud.log.1", "small.log"]


@pytest.mark.parametrize("target", ["/v1/models/double:predict", "/functions/double/invocations"])
def test_a_call_in_another_protocol_wakes_the_function_too(engine: Engine, target: str) -> None:
    engine.serve("double", 2.0, scale=SHORT)
    until(lambda: engine.at_zero("double"), "the function to go to zero")
    answer = engine.ask("POST", target, b'{"inputs": {"x": [1.5, 2]}}')
    assert (answer.status, answer.json) == (200, {"predictions": [3.0, 4.0]})


def test_the_front_answers_what_needs_no_model_and_wakes_nobody(engine: Engine) -> None:
    engine.serve("double", 2.0, scale=SHORT)
    until(lambda: engine.at_zero("double"), "the function to go to zero")
    for target in (
        "/v2",
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/double",
        "/v2/models/double/ready",
        "/v2/models/double/versions/1/ready",
        "/v2/models/double/stats",
        "/v1/models",
        "/v1/models/double",
        "/functions",
        "/functions/double",
        "/functions/double/ping",
        "/functions/double/health",
        "/functions/double/version",
        "/openapi.json",
        "/docs",
    ):
        assert engine.ask("GET", target).status == 200, target
    assert engine.ask("GET", "/functions/double/ready").status == 200
    assert engine.ask("POST", "/v2/repository/index").status == 200
    missing = engine.call("dubble", 1.0)
    assert missing.status == 404
    assert "double" in missing.body.decode()
    assert engine.at_zero("double")


def test_one_connection_for_several_functions(engine: Engine) -> None:
    engine.serve("double", 2.0)
    engine.serve("triple", 3.0)
    connection = engine.open()
    for _ in range(3):
        assert engine.call("double", 5.0, connection).y == 10.0
        assert engine.call("triple", 5.0, connection).y == 15.0
        assert engine.ask("GET", "/v2", connection=connection).status == 200
    connection.close()


def test_rollback_and_remove(engine: Engine) -> None:
    engine.serve("times", 2.0)
    engine.serve("times", 3.0)
    assert engine.rollback("times", None)["revision"] == 1
    assert engine.call("times", 1.0).y == 2.0
    assert engine.rollback("times", 2)["revision"] == 2
    assert engine.call("times", 1.0).y == 3.0
    with pytest.raises(CommandError, match="no revision 9"):
        engine.rollback("times", 9)
    engine.remove("times")
    assert engine.call("times", 1.0).status == 404
    with pytest.raises(CommandError, match="No function times"):
        engine.remove("times")


def test_a_bundle_that_fails_its_proof_is_not_routed(engine: Engine) -> None:
    engine.serve("times", 2.0)
    with pytest.raises(CommandError, match="not routed") as refused:
        engine.serve("times", 3.0, claim=3.1)
    assert refused.value.code == "proof_failed"
    assert engine.call("times", 1.0).y == 2.0
    assert engine.status("times")["functions"][0]["revision"] == 1


def test_a_damaged_bundle_is_refused_and_the_old_one_serves(engine: Engine) -> None:
    engine.serve("times", 2.0)
    digest = engine.bundle("times", 3.0)
    with (engine.project.bundles / digest / "model.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(CommandError, match=r"model\.onnx") as refused:
        engine.deploy("times", digest, settings={}, on_event=lambda _: None)
    assert refused.value.code == "bundle_damaged"
    assert engine.call("times", 1.0).y == 2.0


def test_a_queue_that_is_full_refuses_at_once(engine: Engine, tmp_path: Path) -> None:
    engine.serve("times", 2.0, scale=Scale(max=1, idle_s=0.5, queue_max=4), limits=Limits(timeout_s=1.0))
    until(lambda: engine.at_zero("times"), "the function to go to zero")
    digest = engine.status("times")["functions"][0]["digest"]
    model = engine.project.bundles / digest / "model.onnx"
    model.rename(tmp_path / "away")  # no worker can be born now, so calls stay in the queue
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: engine.call("times", 1.0), range(12)))
    assert {a.status for a in answers} == {503}
    assert {"retry-after"} <= set(answers[0].headers)
    codes = [a.json["error"]["code"] for a in answers]
    assert codes.count("overloaded") >= 8
    assert set(codes) <= {"overloaded", "deadline_exceeded"}
    assert "model.onnx" in engine.status("times")["functions"][0]["reason"]
    (tmp_path / "away").rename(model)
    until(lambda: engine.call("times", 1.0).status == 200, "the function to recover")


def test_processes_at_rest_are_small_and_idle(engine: Engine) -> None:
    engine.serve("times", 2.0, scale=SHORT)
    until(lambda: engine.at_zero("times"), "the function to go to zero")
    processes = engine.status(None)["engine"]["processes"]
    assert {p["role"] for p in processes} == {"supervisor", "door", "nursery", "front"}
    assert sum(p["pss_bytes"] for p in processes) < 200 * 1024**2

    def ticks() -> int:
        stats = [Path(f"/proc/{p['pid']}/stat").read_text().rpartition(")")[2].split() for p in processes]
        return sum(int(s[11]) + int(s[12]) for s in stats)

    before = ticks()
    time.sleep(3.0)  # what is measured is three seconds of nothing
    assert ticks() - before <= 3 * 3  # 100 ticks a second: 1 % of a core, with three times the slack


def test_down_while_calls_are_in_progress(tmp_path: Path) -> None:
    engine = Engine(tmp_path / "p")
    engine.up()
    engine.serve("times", 2.0)
    connections = [engine.open() for _ in range(20)]
    for connection in connections:
        assert engine.call("times", 1.0, connection).y == 2.0
    begun = time.monotonic()
    engine.down()
    assert time.monotonic() - begun < 5.0
    assert engine.running() is None
    for connection in connections:
        connection.close()
    engine.up()
    assert engine.call("times", 4.0).y == 8.0
    engine.down()
