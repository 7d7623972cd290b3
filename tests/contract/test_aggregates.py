"""Stream feature views over a real broker: killed at any moment, moved to another machine, fenced."""

import random
import signal
import time
from contextlib import closing

import pytest
from tests.aggregate_place import PARTITIONS, Place, on_kafka, place, read
from tests.aggregating import VIEW, Reference, Store, Told, drawn, events, killed, message, turn

from sunup.stream.aggregate.rebuild import Wanted, rebuild
from sunup.stream.broker import BrokerError, Output, Reader, Trouble
from sunup.stream.open import open_broker

__all__ = ["on_kafka", "place"]  # fixtures
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
RECOVERY_SECONDS_MAX = 5.0  # s for 100,000 entities: the goal of `make bench BENCH=streaming-features`
SLACK = 3  # other tests run meanwhile


def test_killed_at_any_moment_it_gives_what_an_undisturbed_run_gives(place: Place) -> None:
    draw = random.Random(4)
    place.send(drawn(6000, 300, time.time()))
    for _ in range(5):
        program = place.program(records_max=draw.choice((50, 200)))
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        time.sleep(draw.uniform(0.2, 1.2))  # the moment is what is tried
        program.send_signal(signal.SIGKILL)
        program.communicate()
    program = place.program()
    program.communicate(timeout=60)
    assert program.returncode == 0
    with closing(place.admin()) as admin:
        reference = Reference(admin, place.stream.input)
    expected = {f"{number}:{offset}": list(before) for (number, offset), before in reference.before.items()}
    assert place.outputs() == expected
    store = Store()
    with closing(place.aggregates(store=store)) as made:  # a store that has nothing gets all there is
        made.share(range(PARTITIONS))
        while made.facts()[0].behind or made.tick() == 0.0:
            made.tick()
        values = reference.values(time.time())
    assert {key: one for key, one in store.values().items() if one[0]} == {k: v for k, v in values.items() if v[0]}


@pytest.mark.parametrize("is_down", [True, False])
def test_what_nothing_is_left_of_at_once_gets_into_the_store_all_the_same(place: Place, *, is_down: bool) -> None:
    """Old records, read together with newer ones: their tiles have left every window before they are kept."""
    now = time.time()
    place.send([message("old", now - 10_000, 1.0, 1)] * 2 + [message(f"card {n}", now, 1.0, n) for n in range(20)])
    lost = Store()
    lost.is_down = is_down
    broker, made = place.broker(), place.aggregates(store=lost)
    read(broker, made, 22)
    broker.close()
    if is_down:
        made.close()  # a checkpoint, and the store does not take it
    killed(made)
    store = Store()
    with closing(place.aggregates(store=store)) as made:
        made.share(range(PARTITIONS))
        until = time.monotonic() + 30
        while len(store.rows) < 21:
            made.tick()
            assert time.monotonic() < until, f"{len(store.rows)} of 21 are there"
        assert store.values()[b"old"] == (0, 0.0, None)


def test_another_machine_goes_on_with_the_changelog(on_kafka: Place) -> None:
    place = on_kafka
    messages = drawn(3000, 200, time.time())
    place.send(messages)
    told = Told()
    broker, made = place.broker(), place.aggregates(told=told)
    read(broker, made, len(messages))
    broker.close()
    killed(made)  # what was kept is in the changelog
    more = drawn(1000, 200, time.time(), seed=2)
    place.send(more)
    broker, made = place.broker(), place.aggregates("two", told=told)
    seen: dict[tuple[int, int], object] = {}
    until = time.monotonic() + 30
    while len(seen) < len(more):
        seen |= {(record.partition, record.offset): before for record, before in turn(broker, made)}
        assert time.monotonic() < until
    with closing(place.admin()) as admin:
        reference = Reference(admin, place.stream.input)
    assert {at: before for at, before in reference.before.items() if at in seen} == seen
    assert told.notes == []
    made.close()
    broker.close()


def test_what_was_kept_without_the_changelog_gets_into_it_later(on_kafka: Place) -> None:
    place = on_kafka
    first = [message(f"card {n}", time.time(), 1.0, n) for n in range(500)]
    place.send(first)
    broker, made = place.broker(), place.aggregates()
    read(broker, made, len(first))
    made.close()
    broker.close()
    place.send([message("other", time.time(), 1.0, n) for n in range(10)])
    broker, made = place.broker(), place.aggregates()
    read(broker, made, 10)
    made._kept_at = -1e9
    place.send([message("other", time.time(), 1.0, n) for n in range(10, 20)])
    read(broker, made, 10)
    broker.close()
    made.close()
    with closing(place.aggregates("two")) as made:
        made.share(range(PARTITIONS))
        assert made.facts()[0].entities == 501


def test_recovery_of_many_entities_on_an_empty_machine(on_kafka: Place) -> None:
    """The goal is RECOVERY_SECONDS_MAX for 100,000 entities, two tiles each, one record each: a changelog as compaction
    leaves it."""
    place, count = on_kafka, 100_000
    now = time.time()
    place.send([message(f"card {n // 2}", now - 60 * (n % 2), 1.0 + n, n) for n in range(2 * count)])
    broker, made = place.broker(), place.aggregates()
    until = time.monotonic() + 100
    done = 0
    while done < 2 * count:
        records = broker.poll(0.2)
        made.share(broker.reads())
        if records:
            made.take(records, events(records))
            broker.commit(made.outputs())
            made.committed()
            done += len(records)
        assert time.monotonic() < until
    broker.close()
    killed(made)
    began = time.monotonic()
    again = place.aggregates("two")
    again.share(range(PARTITIONS))
    opened = time.monotonic() - began
    again._catch_up()
    took = time.monotonic() - began
    again.tick()  # what was read again goes into the files
    entities = again.facts()[0].entities
    size = sum(file.stat().st_size for file in (place.folder / "two").glob("*.db*"))
    each = f"{size / count:.0f} bytes each on disk"
    print(f"recovered {entities} entities in {took:.2f} s, {opened:.2f} s of them from the changelog; {each}")
    assert not any(part.is_behind for part in again._parts.values())
    assert entities == count
    assert took < SLACK * RECOVERY_SECONDS_MAX
    again.close()


def test_two_processes_on_one_machine(place: Place) -> None:
    place.send(drawn(1000, 50, time.time()))
    program = place.program(quiet_s=30)
    assert program.stdout is not None
    assert program.stdout.readline() == "ready\n"
    assert program.stdout.readline() == "[0, 1]\n"
    made = place.aggregates()
    with pytest.raises(BrokerError) as raised:
        made._open(0, 0.2)
    assert raised.value.trouble is Trouble.FENCED
    program.kill()
    program.communicate()
    made._open(0, 5.0)
    made.close()


def test_a_fenced_reader_writes_no_changelog_and_its_late_values_lose(on_kafka: Place) -> None:
    place, store = on_kafka, Store()
    place.send(drawn(400, 20, time.time()))
    old_broker, old = place.broker(), place.aggregates("one", store)
    records = old_broker.poll(10.0, 100)
    old.share(old_broker.reads())
    old.take(records, events(records))
    late = [list(rows) for part in old._parts.values() for rows in part.rows(time.time())]
    new_broker, new = place.broker(), place.aggregates("two", store)  # of the same name: it takes over
    read(new_broker, new, 1)
    with closing(place.admin()) as admin:
        assert place.changelog is not None
        before = {number: end for number, (_, end) in admin.span(place.changelog).items()}
    with pytest.raises(BrokerError) as raised:
        old_broker.commit([*old.outputs(), Output(place.stream.output, b"late", b"1", [])])
    assert raised.value.trouble is Trouble.FENCED
    old.forget()
    with closing(place.admin()) as admin:
        assert not [one for number, end in before.items() for one in admin.read(place.changelog, number, end, 1000)]
    values = store.values()
    for rows in late:
        store.write(VIEW.name, rows)
    assert store.values() == values
    assert store.passed_over > 0
    for one in (old, new):
        one.close()
    old_broker.close()
    new_broker.close()


def test_rebuilt_with_its_changelog(on_kafka: Place) -> None:
    place, store = on_kafka, Store()
    messages = drawn(2000, 100, time.time())
    place.send(messages)
    broker, made = place.broker(), place.aggregates(store=store)
    read(broker, made, len(messages))
    made.close()
    broker.close()
    writing = open_broker(place.settings, place.stream, place.log, Reader("rebuild", exactly_once=False))
    wanted = Wanted(
        (VIEW,), place.folder / "one", place.stream.group, place.stream.input, place.changelog, events, writing.commit
    )
    with closing(place.admin()) as admin:
        span = admin.span(place.stream.input)
        starts = {number: first for number, (first, _) in span.items()}
        done = rebuild(wanted, starts, admin=admin, writer=store, told=lambda _: None)
        reference = Reference(admin, place.stream.input)
    writing.close()
    assert done.records == len(messages)
    values = reference.values(time.time())
    assert store.values() == values
    with closing(place.aggregates("two")) as made:
        made.share(range(PARTITIONS))
        made._catch_up()
        while made.facts()[0].behind:
            made.tick()
        assert made.facts()[0].entities == 100
