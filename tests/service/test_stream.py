"""Functions that score a topic, on the embedded log and on a real Kafka broker: nothing lost, zero workers after."""

import json
import os
import random
import signal
import sqlite3
import statistics
import threading
import time
import urllib.request
from collections import Counter

import psutil
import pytest
from tests.engine_fixture import Engine, until
from tests.service.test_cli import platform
from tests.topics import EmbeddedTopics, Scored, Topics, entry, malformed, sources

RECORDS = 20_000
pytestmark = pytest.mark.timeout(300)


def test_every_record_is_scored_once_and_bad_ones_are_dead_letters_with_reasons(scored: Scored) -> None:
    bad = malformed()
    entries = [entry(number) for number in range(RECORDS)]
    draw = random.Random(1)
    for _, one in bad:
        entries.insert(draw.randrange(len(entries)), one)
    scored.send_entries(entries)
    scored.wait_for_zero()
    outputs, dead = scored.outputs(), scored.dead()
    assert len(outputs) == len(set(sources(outputs))) == RECORDS
    answers = {record.key: json.loads(record.value or b"") for record in outputs}
    connection = scored.engine.open()
    for start in range(0, RECORDS, 5000):
        part = range(start, start + 5000)
        body = json.dumps([{"x": number} for number in part]).encode()
        rest = scored.engine.ask("POST", f"/functions/{scored.name}", body, connection).json["predictions"]
        assert [answers[str(number).encode()] for number in part] == rest
    connection.close()
    assert Counter(code_of(record.headers) for record in dead) == Counter(code for code, _ in bad)
    assert Counter((record.key, record.value) for record in dead) == Counter(one[:2] for _, one in bad)
    assert all(dict(record.headers)["sunup_error_message"] for record in dead)
    facts = scored.facts
    assert (facts["state"], facts["scored"], facts["dead"]) == ("idle", RECORDS, len(bad))


def code_of(headers: object) -> str:
    return dict(headers)["sunup_error_code"].decode()  # type: ignore[call-overload,no-any-return]


def test_outputs_are_events_that_keep_key_subject_and_trace(scored: Scored) -> None:
    trace = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    binary = [("ce_specversion", b"1.0"), ("ce_id", b"e-7"), ("ce_source", b"/shop"), ("ce_type", b"bought")]
    event = {"specversion": "1.0", "id": "e-8", "source": "/shop", "type": "bought", "data": {"x": 8}}
    structured = [("Content-Type", b"application/cloudevents+json; charset=UTF-8")]
    scored.send_entries(
        [
            (b"a", b'{"x": 7}', [*binary, ("traceparent", trace)]),
            (b"a", json.dumps(event).encode(), structured),
            (b"a", b'{"x": 9}', []),
        ]
    )
    scored.wait_for_zero()
    outputs = scored.outputs()
    assert [(record.key, json.loads(record.value or b"")) for record in outputs] == [
        (b"a", {"y": 14.0}),
        (b"a", {"y": 16.0}),
        (b"a", {"y": 18.0}),
    ]
    first, second, third = (dict(record.headers) for record in outputs)
    assert (first["ce_subject"], first["ce_traceparent"], second["ce_subject"]) == (b"e-7", trace, b"e-8")
    assert "ce_subject" not in third
    assert third["ce_source"] == f"/functions/{scored.name}".encode()
    assert (third["ce_type"], third["ce_revision"]) == (b"dev.sunup.prediction", b"1")


def test_status_and_metrics_say_how_a_stream_stands(scored: Scored) -> None:
    root = scored.engine.project.root
    scored.send_entries([*(entry(number) for number in range(100)), (b"bad", b"[]", [])])
    scored.wait_for_zero()
    (facts,) = platform(root, "stream", "status", "--json").json
    assert facts["function"] == scored.name
    assert (facts["lag"], facts["scored"], facts["dead"], facts["state"]) == (0, 100, 1, "idle")
    assert len(facts["partitions"]) == 4
    shown = platform(root, "stream", "status", scored.name).out
    for part in (scored.stream.input, scored.stream.output, scored.stream.group, "idle", "partition"):
        assert part in shown
    assert scored.stream.input in platform(root, "status").out
    with urllib.request.urlopen(f"http://127.0.0.1:{scored.engine.metrics_port}/metrics") as response:
        metrics = response.read().decode()
    assert f'sunup_stream_records_total{{function="{scored.name}",result="scored"}} 100.0' in metrics
    assert f'sunup_stream_records_total{{function="{scored.name}",result="dead"}} 1.0' in metrics
    assert f'sunup_stream_lag{{function="{scored.name}",partition="3"}} 0.0' in metrics


def test_one_record_from_zero(scored: Scored) -> None:
    seen = []
    with scored.topics.counting(scored.stream.output) as count:
        for number in range(7):
            scored.send([number])
            until(lambda wanted=number + 1: count() == wanted, "the score")  # type: ignore[misc]
            seen.append(time.time())
            scored.wait_for_zero()
    produced = {record.key: record.timestamp for record in scored.topics.read(scored.stream.input)}
    taken = [at - produced[str(number).encode()] for number, at in enumerate(seen)]
    p50 = statistics.median(taken)
    print(f"from zero on {scored.topics.broker}: p50 {p50 * 1000:.0f} ms, slowest {max(taken) * 1000:.0f} ms")
    assert p50 < 3.0, "the goal is 1 s; three times that on a machine that is busy"


class Flow:
    """Records produced by a thread, a few hundred at a time, until told to stop."""

    def __init__(self, scored: Scored, *, every: float = 0.05, each: int = 100) -> None:
        self.sent = 0
        self._scored, self._every, self._each = scored, every, each
        self._stop = threading.Event()
        self._failed: list[BaseException] = []
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Flow":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        assert not self._failed, self._failed

    def _run(self) -> None:
        try:
            while not self._stop.wait(self._every):
                self._scored.send(range(self.sent, self.sent + self._each))
                self.sent += self._each
        except BaseException as error:
            self._failed.append(error)


def check_nothing_lost(scored: Scored, sent: int) -> int:
    """That every record sent is in the output; how many are there more than once."""
    outputs = scored.outputs()
    counted = Counter(sources(outputs))
    assert {record.key for record in outputs} == {str(number).encode() for number in range(sent)}
    assert len(counted) == sent
    return len(outputs) - sent


@pytest.mark.parametrize("guarantee", ["exactly-once", "at-least-once"])
def test_killed_workers_lose_nothing(engine: Engine, topics: Topics, guarantee: str) -> None:
    scored = Scored(engine, topics, guarantee=guarantee)
    scored.create()
    scored.deploy()
    draw = random.Random(11)
    kills = 0
    with Flow(scored) as flow:
        while kills < 10:
            time.sleep(draw.uniform(0.0, 0.5))  # a random moment
            until(lambda: any(scored.workers), "a worker to kill")
            time.sleep(draw.uniform(0.0, 0.5))
            for pid in list(filter(None, scored.workers))[:1]:
                os.kill(pid, signal.SIGKILL)
                kills += 1
    scored.wait_for_zero(90)
    doubled = check_nothing_lost(scored, flow.sent)
    print(f"{topics.broker}, {guarantee}: {kills} kills, {flow.sent} records, {doubled} outputs doubled")
    if guarantee == "exactly-once" or topics.broker == "embedded":
        assert doubled == 0


def test_stopping_the_engine_loses_and_doubles_nothing(scored: Scored) -> None:
    with Flow(scored) as flow:
        for _ in range(2):
            until(lambda: bool(scored.workers), "a worker")
            scored.engine.down()
            scored.engine.up()
    scored.wait_for_zero()
    assert check_nothing_lost(scored, flow.sent) == 0


def test_watcher_and_supervisor_are_replaced(scored: Scored) -> None:
    scored.send(range(10))
    scored.wait_for_zero()
    watcher = scored.engine.pids()["watcher"]
    os.kill(watcher, signal.SIGKILL)
    scored.send(range(10, 20))
    until(lambda: len(scored.outputs()) == 20, "scores after the watcher was killed")
    assert scored.engine.pids()["watcher"] != watcher
    until(lambda: bool(scored.workers), "a worker")
    before = scored.workers
    os.kill(scored.engine.pids()["supervisor"], signal.SIGKILL)
    until(lambda: scored.engine.running() is None, "the supervisor to be gone")
    scored.send(range(20, 30))
    until(lambda: len(scored.outputs()) == 30, "scores without a supervisor")
    scored.engine.up()
    assert scored.workers == before, "the worker is adopted"
    scored.wait_for_zero()
    assert check_nothing_lost(scored, 30) == 0


def test_a_worker_that_hangs_is_replaced(engine: Engine) -> None:
    scored = Scored(engine, EmbeddedTopics(engine.project.embedded_log), idle_s=30.0)
    scored.deploy()
    scored.send(range(10))
    until(lambda: len(scored.outputs()) == 10, "scores")
    (pid,) = scored.workers
    os.kill(pid, signal.SIGSTOP)
    scored.send(range(10, 20))
    until(lambda: scored.facts["state"] == "stalled", "the stall to be seen", 60)
    until(lambda: len(scored.outputs()) == 20, "scores by another worker", 60)
    until(lambda: scored.facts["state"] == "running", "a good state")
    assert "none was committed" in scored.facts["last_error"]["message"]
    until(lambda: pid not in scored.workers, "the hung one to be ended")
    assert check_nothing_lost(scored, 20) == 0


def test_more_lag_brings_more_workers(engine: Engine, topics: Topics) -> None:
    scored = Scored(engine, topics, max_workers=3)
    scored.create()
    scored.send(range(25_000))
    most = 0
    scored.deploy()
    while len(scored.outputs()) < 25_000:
        most = max(most, len(scored.workers))
    scored.wait_for_zero()
    assert most in (2, 3)
    assert check_nothing_lost(scored, 25_000) == 0


def test_a_removed_function_reads_no_more(scored: Scored) -> None:
    scored.send(range(10))
    until(lambda: len(scored.outputs()) == 10, "scores")
    scored.engine.remove(scored.name)
    until(lambda: "watcher" not in scored.engine.pids(), "the watcher to end with the last stream")
    scored.send(range(10, 20))
    scored.deploy()
    scored.wait_for_zero()
    assert check_nothing_lost(scored, 20) == 0


def test_one_worker_that_hangs_is_replaced_and_the_other_left_alone(engine: Engine) -> None:
    scored = Scored(engine, EmbeddedTopics(engine.project.embedded_log), max_workers=2, idle_s=90.0)
    scored.create()
    scored.send(range(30_000))
    scored.deploy()
    # One that nobody reads yet may be anybody's fault.
    until(lambda: len(scored.slots) == 2 and _shares(scored) == [2, 2], "two workers that have their shares")
    until(scored.is_read, "all of it to be read")
    hung, other = scored.slots[0], scored.slots[1]
    until(lambda: _stopped(hung, scored), "a moment at which it does not write: else it would stop the others too")
    with Flow(scored, every=0.2) as flow:
        flow.sent = scored.sent
        until(lambda: scored.facts["state"] == "stalled", f"the stall to be seen, not {scored.facts}", 60.0)
        assert "partition" in scored.facts["reason"]
        until(lambda: hung not in scored.workers, "the hung one to be ended")
        until(lambda: scored.slots.keys() == {0, 1}, "one in its slot")
        assert scored.slots[1] == other
        until(lambda: scored.facts["state"] == "running", "the stall to end")
    until(scored.is_read, "everything to be read")
    assert check_nothing_lost(scored, flow.sent) == 0


def _stopped(pid: int, scored: Scored) -> bool:
    """Stop a worker, unless it is in a transaction of the log."""
    os.kill(pid, signal.SIGSTOP)
    until(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED, "all of its threads to be stopped")
    log = sqlite3.connect(scored.engine.project.embedded_log, timeout=0.5, isolation_level=None)
    try:
        log.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError:
        os.kill(pid, signal.SIGCONT)
        return False
    finally:
        log.close()
    return True


def _shares(scored: Scored) -> list[int]:
    """How many partitions each worker says that it reads."""
    readers = Counter(one["worker"] for one in scored.facts["partitions"])
    return [readers[name] for name in readers if name is not None]
