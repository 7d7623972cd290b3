"""Streams that somebody pauses, whole or by partition, on the embedded log and on a real Kafka broker."""

import os
import signal
import time
from collections import Counter

import pytest
from tests.engine_fixture import Engine, until
from tests.service.test_cli import platform
from tests.topics import Scored, sources

from sunup.errors import CommandError

pytestmark = pytest.mark.timeout(120)


def check_exact(scored: Scored, sent: int) -> None:
    assert len(scored.outputs()) == len(set(sources(scored.outputs()))) == sent


def test_a_paused_stream_has_no_workers_whatever_restarts_until_it_is_resumed(scored: Scored) -> None:
    root, name = scored.engine.project.root, scored.name
    scored.send(range(100))
    until(lambda: len(scored.outputs()) == 100, "scores")
    said = platform(root, "stream", "pause", name).out
    assert "is paused" in said
    until(lambda: scored.facts["workers"] == 0, "the workers to end")
    scored.send(range(100, 200))
    until(lambda: scored.facts["lag"] == 100, "the lag")
    assert not scored.workers
    facts = scored.facts
    assert (facts["state"], facts["paused"]) == ("paused", "all")
    assert "paused by" in facts["reason"]
    os.kill(scored.engine.pids()["supervisor"], signal.SIGKILL)
    until(lambda: scored.engine.running() is None, "the supervisor to be gone")
    scored.engine.up()
    scored.deploy(3.0)
    until(lambda: scored.facts["lag"] == 100, "the lag, after a kill and a deploy")
    time.sleep(1.0)  # long enough for a worker that should not be
    assert (scored.facts["state"], scored.workers, len(scored.outputs())) == ("paused", [], 100)
    assert "is read." in platform(root, "stream", "resume", name).out
    scored.wait_for_zero()
    assert (scored.facts["state"], scored.facts["paused"]) == ("idle", [])
    check_exact(scored, 200)


def test_a_partition_that_is_paused_waits_while_the_others_are_read(scored: Scored) -> None:
    root, name = scored.engine.project.root, scored.name
    until(lambda: len(scored.facts["partitions"]) == 4, "the partitions")
    assert (
        "but for partition 1, 2" in platform(root, "stream", "pause", name, "--partition", "2", "--partition", "1").out
    )
    scored.send(range(1000))
    until(lambda: not scored.workers and _waiting(scored).keys() == {1, 2}, f"what is not paused, not {scored.facts}")
    facts = scored.facts
    assert (facts["state"], facts["paused"]) == ("idle", [1, 2])
    assert f"{facts['lag']} records wait in partition 1" in facts["note"]
    assert [one["paused"] for one in facts["partitions"]] == [False, True, True, False]
    table = platform(root, "stream", "status", name).out
    assert [line.split()[0] for line in table.splitlines() if line.split()[-1:] == ["paused"]] == ["1", "2"]
    assert {record.partition for record in scored.topics.read(scored.stream.input)} == {0, 1, 2, 3}
    scored.engine.resume(name, [1])
    until(lambda: not scored.workers and _waiting(scored).keys() == {2}, "partition 1")
    scored.engine.resume(name, None)
    scored.wait_for_zero()
    check_exact(scored, 1000)


def test_partitions_paused_under_load_stop_and_go_on_without_loss(scored: Scored) -> None:
    until(lambda: len(scored.facts["partitions"]) == 4, "the partitions")
    for start in range(0, 4000, 500):
        scored.send(range(start, start + 500))
        if start % 1000:
            scored.engine.resume(scored.name, None)
        else:
            scored.engine.pause(scored.name, [start // 1000])
    scored.wait_for_zero()
    check_exact(scored, 4000)
    keys = Counter(record.key for record in scored.outputs())
    assert set(keys.values()) == {1}


def test_what_cannot_be_paused_is_said(engine: Engine, scored: Scored) -> None:
    engine.serve("plain", 2.0)
    until(lambda: len(scored.facts["partitions"]) == 4, "the partitions")
    for function, partitions, what in (
        ("plain", None, "has no"),
        ("nobody", None, "No function nobody"),
        (scored.name, [1, 9], "no partition 9"),
    ):
        with pytest.raises(CommandError, match=what):
            engine.pause(function, partitions)
    engine.pause(scored.name, None)
    with pytest.raises(CommandError, match="All of"):
        engine.resume(scored.name, [1])
    engine.remove(scored.name)
    scored.deploy()
    assert scored.facts["paused"] == [], "forgotten with the function"


def _waiting(scored: Scored) -> dict[int, int]:
    facts = scored.facts
    if sum(one["end"] for one in facts["partitions"]) != scored.sent:
        return {}
    return {one["partition"]: one["lag"] for one in facts["partitions"] if one["lag"]}
