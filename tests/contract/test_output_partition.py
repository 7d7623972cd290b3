"""Outputs that say which partition they are for, on every broker and with each client."""

from collections.abc import Callable

import pytest
from tests.contract.test_brokers import Place, numbered, opened, place, polled

from sunup.stream.broker import Broker, Output, Stream

__all__ = ["opened", "place"]  # fixtures
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


def test_an_output_goes_where_it_says(place: Place, stream: Stream, opened: Callable[[], Broker]) -> None:
    """Whatever its key is."""
    place.write(stream.input, numbered(1))
    broker = opened()
    broker.join(0, 1)
    polled(broker, 1)
    to = [0, 3, 1, 1, 2, 3, 0]
    broker.commit([Output(stream.output, b"one key", b"%d" % number, [], number) for number in to])
    broker.commit([Output(stream.output, None, b"3", [], 3)])
    found = place.read(stream.output)
    assert sorted(one.partition for one in found) == sorted([*to, 3])
    assert all(one.value == b"%d" % one.partition for one in found)
