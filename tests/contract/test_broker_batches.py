"""How a batch is cut, by every broker: by records, by bytes, and never by waiting for more than is there."""

import time
from collections.abc import Callable

import pytest
from tests.contract.test_brokers import SLACK, SOON, Place, numbered, opened, place, polled

from sunup.limits import STREAM_BATCH_BYTES_MAX
from sunup.stream.broker import Broker, Output, Stream

__all__ = ["opened", "place"]

# kafka-python closes no socket that did not get to connect; they are closed when they are collected.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
LARGE = 900_000  # bytes


def test_a_batch_is_bounded_in_bytes(place: Place, stream: Stream, opened: Callable[[], Broker]) -> None:
    for start in range(0, 40, 10):
        place.write(stream.input, [(b"key %d" % n, bytes(LARGE), []) for n in range(start, start + 10)])
    broker = opened()
    broker.join(0, 1)
    sizes: list[int] = []
    deadline = time.monotonic() + SOON
    while sum(sizes) < 40 and time.monotonic() < deadline:
        sizes.append(len(broker.poll(0.2)))
    assert sum(sizes) == 40
    assert (max(sizes) - 1) * LARGE < STREAM_BATCH_BYTES_MAX


def test_poll_waits_for_no_more_than_is_there(place: Place, stream: Stream, opened: Callable[[], Broker]) -> None:
    broker = opened()
    broker.join(0, 1)
    place.write(stream.input, numbered(1))
    polled(broker, 1)  # it has joined
    broker.commit([])
    for start in range(1, 4):
        place.write(stream.input, numbered(1, start))
        begun = time.monotonic()
        assert len(broker.poll(SOON)) == 1
        assert time.monotonic() - begun < SLACK
        broker.commit([])


def test_outputs_alone_are_written_and_no_position_moves(
    place: Place, stream: Stream, opened: Callable[[], Broker]
) -> None:
    place.write(stream.input, numbered(20))
    broker = opened()
    broker.join(0, 1)
    polled(broker, 20)
    broker.commit([])
    broker.commit([Output(stream.output, b"checkpoint", b"1", [], 2)])  # nothing is polled: as at the end of a worker
    place.write(stream.input, numbered(5, 20))
    again = opened()
    broker.close()
    again.join(0, 1)
    assert sorted(int(record.value or b"") for record in polled(again, 5)) == list(range(20, 25))
    (written,) = place.read(stream.output)
    assert (written.key, written.value, written.partition) == (b"checkpoint", b"1", 2)


def test_outputs_may_be_the_first_thing_of_all(place: Place, stream: Stream, opened: Callable[[], Broker]) -> None:
    place.write(stream.input, numbered(3))
    broker = opened()
    broker.join(0, 1)
    broker.commit([Output(stream.output, b"checkpoint", b"1", [], 0)])
    assert len(place.read(stream.output)) == 1
    assert len(polled(broker, 3)) == 3
