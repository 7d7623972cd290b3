"""From zero workers to some and back, every time, on the embedded log and on a real Kafka broker."""

import itertools
import os
import random
import signal
import statistics
import time
from collections import defaultdict

import pytest
from kafka import KafkaProducer
from tests.engine_fixture import Engine, until
from tests.service.test_stream import Flow, check_nothing_lost
from tests.topics import KafkaTopics, Scored, Topics, sources

from sunup.stream.broker import Record

CYCLES = 10
WAKES = 20
pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def scored(engine: Engine, topics: Topics) -> Scored:
    """A function that is deployed, whose workers end soon."""
    scored = Scored(engine, topics, idle_s=0.3, max_workers=3)
    scored.create()
    scored.deploy()
    until(lambda: len(scored.facts["partitions"]) == 4, "the partitions")
    return scored


def test_lag_and_workers_return_to_zero_after_every_load(scored: Scored) -> None:
    draw = random.Random(3)
    for cycle in range(CYCLES):
        each = draw.choice([1, 100, 3000])
        scored.send(range(scored.sent, scored.sent + each))
        scored.wait_for_zero()
        outputs = sources(scored.outputs())
        assert len(outputs) == len(set(outputs)) == scored.sent, f"cycle {cycle}"
        facts = scored.facts
        assert (facts["state"], facts["lag"], facts["workers"], facts["last_error"]) == ("idle", 0, 0, None)


def test_a_record_wakes_a_function_at_zero_soon(scored: Scored) -> None:
    taken = []
    with scored.topics.counting(scored.stream.output) as count:
        for number in range(WAKES):
            begun = time.monotonic()
            scored.send([number])
            sent = time.monotonic()
            until(lambda wanted=number + 1: count() == wanted, "the score")  # type: ignore[misc]
            taken.append(time.monotonic() - sent + min(0.05, sent - begun))
            scored.wait_for_zero()
    taken.sort()
    p50, slowest = statistics.median(taken), taken[-1]
    print(f"from zero on {scored.topics.broker}: p50 {p50 * 1000:.0f} ms, slowest of {WAKES} {slowest * 1000:.0f} ms")
    assert p50 < 2.0  # on a machine with other work; the stream bench asks for 1 s


def test_whoever_replaces_a_killed_worker_has_its_slot_at_once(scored: Scored) -> None:
    with Flow(scored):
        for _ in range(5):
            until(lambda: 0 in scored.slots, "a worker")
            killed = scored.slots[0]
            before = scored.facts["scored"]
            until(lambda before=before: scored.facts["scored"] > before, "records scored by it")  # type: ignore[misc]
            os.kill(killed, signal.SIGKILL)
            took = until(lambda killed=killed: scored.slots.get(0) not in (None, killed), "another one")  # type: ignore[misc]
            assert took < 2.0, "no pause, for it had committed something"
    scored.wait_for_zero()


@pytest.mark.parametrize("topics", ["kafka"], indirect=True)
def test_zero_is_reached_behind_transactions_markers_and_aborted_records(scored: Scored, topics: KafkaTopics) -> None:
    producer = KafkaProducer(bootstrap_servers=topics.broker, transactional_id=scored.name, retry_backoff_ms=10)
    producer.init_transactions()
    sent = 0
    for commits in (True, False, True, False, False):
        producer.begin_transaction()
        for number in range(40):
            producer.send(scored.stream.input, b'{"x": 1}', str(number).encode())
        producer.flush()
        if commits:
            producer.commit_transaction()
            sent += 40
        else:
            producer.abort_transaction()
        until(lambda: scored.facts["lag"] > 0, "the lag")
        until(lambda: scored.facts["lag"] == 0 and not scored.workers, f"zero, not {scored.facts}")
    producer.close()
    ends = [one["end"] for one in scored.facts["partitions"]]
    assert sum(ends) > 5 * 40 + 4, "markers take offsets"
    time.sleep(2.0)  # several looks of the watcher
    assert (scored.facts["workers"], scored.facts["lag"]) == (0, 0), "nothing wakes it again"
    assert len(scored.outputs()) == len(set(sources(scored.outputs()))) == sent


def test_deploys_in_a_row_under_load_keep_order_and_leave_no_gap(engine: Engine, topics: Topics) -> None:
    scored = Scored(engine, topics, max_workers=4, idle_s=2.0)
    scored.create()
    scored.deploy(1.0)
    with Flow(scored, every=0.02, each=200) as flow:
        for number in range(2, 7):
            before = scored.facts["scored"]
            until(lambda before=before: scored.facts["scored"] > before, "records scored")  # type: ignore[misc]
            scored.deploy(float(number))
        before = scored.facts["scored"]
        until(lambda: scored.facts["scored"] > before, "records scored by the last")
    scored.wait_for_zero()
    doubled = check_nothing_lost(scored, flow.sent)
    assert doubled == 0
    gaps = _gaps(scored)
    print(f"{topics.broker}: {flow.sent} records, pauses at deploys {[round(1000 * gap) for gap in gaps]} ms")
    assert max(gaps) < 5.0
    for records in _by_partition(scored).values():
        places = [int(source.rpartition("-")[2]) for source in sources(records)]
        assert places == sorted(places), "in the order of the input"


def _by_partition(scored: Scored) -> dict[bytes, list[Record]]:
    """The outputs of each partition of the input, where the output's are the same."""
    found = defaultdict[bytes, list[Record]](list)
    for record in scored.outputs():
        source = dict(record.headers)["ce_id"].rpartition(b"-")[0]
        found[source].append(record)
    return found


def _gaps(scored: Scored) -> list[float]:
    """Seconds between the last output of each revision and the first of the next."""
    times = defaultdict(list)
    for record in scored.outputs():
        times[int(dict(record.headers)["ce_revision"])].append(record.timestamp)
    ordered = [times[revision] for revision in sorted(times)]
    return [min(later) - max(earlier) for earlier, later in itertools.pairwise(ordered)]
