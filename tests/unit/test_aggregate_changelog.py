"""What a worker leaves in the changelog when it ends: all there is, for the next one may be on another machine."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.aggregating import Reference, aggregates, drawn, turn

from sunup.clock import ManualClock
from sunup.stream.aggregate import partition
from sunup.stream.aggregate.aggregates import Aggregates
from sunup.stream.broker import Output, Reader, Stream
from sunup.stream.embedded import EmbeddedBroker, Log
from sunup.stream.embedded_admin import EmbeddedAdmin

STREAM = Stream("group", "in", "out", "dead")


class Admin(EmbeddedAdmin):
    """Of a log that has a changelog, though it never compacts it."""

    def ensure_compacted(self, topic: str, partitions: int) -> None: ...


class Place:
    """A log with two partitions and a changelog."""

    def __init__(self, folder: Path) -> None:
        self.folder, path = folder, folder / "log.db"
        self.log, self.admin, self.clock = Log(path), Admin(path), ManualClock()
        for topic in ("in", "tiles"):
            self.log.create(topic, 2)
        self.broker = EmbeddedBroker(path, STREAM, Reader("reader"))
        self.broker.join(0, 1)

    def aggregates(self, machine: str) -> Aggregates:
        folder = self.folder / machine
        return aggregates(folder, self.admin, topic="in", group="group", changelog="tiles", clock=self.clock)

    def fill(self, made: Aggregates) -> None:
        """With 60 entities; the changelog gets those of the first batch."""
        messages = drawn(2000, 60, self.clock.wall())
        for some in (messages[:50], messages[50:]):
            self.log.append("in", some)
            while turn(self.broker, made, seconds=0.0):
                pass

    def drain(self, made: Aggregates) -> list[Sequence[Output]]:
        committed: list[Sequence[Output]] = []
        while outputs := made.outputs(last=True):
            self.broker.commit(outputs)
            made.committed()
            committed.append(outputs)
        made.close()
        return committed


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def restored(place: Place) -> None:
    """Another machine finds everything, and reads nothing again."""
    reference = Reference(place.admin, "in")
    made = place.aggregates("two")
    made.share(range(2))
    ends = {number: end for number, (_, end) in place.admin.span("in").items()}
    assert {number: part.next for number, part in made._parts.items()} == ends
    assert made.facts()[0].entities == len(reference.values(place.clock.wall())) == 60
    made.close()


def test_what_was_kept_between_batches_is_in_the_changelog_in_the_end(place: Place) -> None:
    made = place.aggregates("one")
    place.fill(made)
    place.clock.advance(1.0)
    made.tick()  # a checkpoint of its own, for nothing comes
    assert not any(part.is_changed for part in made._parts.values())
    assert len(place.drain(made)) == 1
    restored(place)
    made = place.aggregates("one")
    made.share(range(2))
    made.tick()
    assert place.drain(made) == [], "it is all there"


def test_so_is_what_a_worker_before_did_not_get_into_it(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """And it goes there little by little."""
    monkeypatch.setattr(partition, "AGGREGATE_CHANGES_MAX", 8)
    made = place.aggregates("one")
    place.fill(made)
    made.close()  # its broker was away
    made = place.aggregates("one")
    made.share(range(2))
    made.tick()
    assert len(place.drain(made)) > 3
    restored(place)
