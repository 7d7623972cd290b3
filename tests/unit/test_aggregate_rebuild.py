"""Tiles made again of what a topic holds."""

from collections.abc import Callable

import pytest
from tests import aggregating
from tests.aggregating import VIEW, Reference
from tests.unit.test_aggregate_state import Place, place

from sunup.stream.aggregate import partition
from sunup.stream.aggregate.rebuild import Progress, Wanted, rebuild
from sunup.stream.broker import BrokerError, Trouble

__all__ = ["place"]  # a fixture


def wanted(place: Place) -> Wanted:
    return Wanted((VIEW,), place.folder, "group", "in", None, aggregating.events, None)


def nothing(_: Progress) -> None: ...


def test_rebuilt_from_the_beginning(place: Place) -> None:
    place.send(2000)
    broker, made = place.open()
    place.read(broker, made)
    made.close()
    for file in place.folder.glob("*.db*"):
        file.unlink()
    told: list[Progress] = []
    done = rebuild(
        wanted(place), {0: 0, 1: 0}, admin=place.admin, writer=place.store, told=told.append, clock=place.clock
    )
    reference = Reference(place.admin, "in")
    assert place.store.values() == reference.values(place.clock.wall())
    assert (done.records, done.missing, done.unwritten) == (len(reference.before), 0, "")
    assert done.written == 20
    assert told[-1].records == told[-1].of == done.records
    place.send(500, seed=2)
    broker, made = place.open()
    seen = place.read(broker, made)
    assert seen == {at: before for at, before in Reference(place.admin, "in").before.items() if at in seen}


def test_a_rebuild_waits_for_nobody(place: Place) -> None:
    place.send(200)
    broker, made = place.open()
    place.read(broker, made)
    with pytest.raises(BrokerError) as raised:
        rebuild(wanted(place), {0: 0, 1: 0}, admin=place.admin, writer=place.store, told=nothing)
    assert raised.value.trouble is Trouble.FENCED


@pytest.mark.parametrize("calls", [1, 3, 5, 12])
def test_a_rebuild_that_was_ended_is_gone_on_with(place: Place, calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition, "AGGREGATE_CHANGES_MAX", 30)
    monkeypatch.setattr("sunup.stream.aggregate.rebuild._READ", 100)
    place.send(1000, keys=100)
    broker, made = place.open()
    place.read(broker, made)
    made.close()
    place.clock.advance(10)
    left = [calls]

    def ending(_: Progress) -> None:
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    def again(told: Callable[[Progress], None]) -> None:
        rebuild(wanted(place), {0: 0, 1: 0}, admin=place.admin, writer=place.store, told=told, clock=place.clock)

    with pytest.raises(KeyboardInterrupt):
        again(ending)
    place.end()
    broker, made = place.open()  # a worker
    made.share((0, 1))
    place.settle(made)
    assert place.store.values() == Reference(place.admin, "in").values(place.clock.wall())
    made.close()
    again(nothing)
    assert place.store.values() == Reference(place.admin, "in").values(place.clock.wall())
