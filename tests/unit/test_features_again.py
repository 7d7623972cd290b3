"""From where features are made again: what a window can reach, a moment, an offset; never beyond the group."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from sunup.cli.streams.features.rebuild import Step, plan
from sunup.cli.streams.source import Source
from sunup.settings import EMBEDDED, STREAM_BROKER
from sunup.stream.broker import Record, Stream

STREAM = Stream("group", "in", "out", "dead")
SOURCE = Source("fraud", STREAM, {STREAM_BROKER: EMBEDDED}, Path("log.db"), Path("bundle"))


class Topic:
    """An Admin of three partitions: one read in part, one that lost its oldest records, one never read."""

    def span(self, topic: str) -> Mapping[int, tuple[int, int]]:
        assert topic == STREAM.input
        return {0: (0, 100), 1: (40, 90), 2: (5, 10)}

    def at(self, topic: str, wall: float) -> Mapping[int, int]:
        assert (topic, wall) == (STREAM.input, 1000.0)
        return {0: 30, 1: 85, 2: 10}

    def origin(self, topic: str) -> str:
        raise NotImplementedError

    def positions(self, group: str, topic: str) -> Mapping[int, int]:
        assert (group, topic) == (STREAM.group, STREAM.input)
        return {0: 60, 1: 80}

    def read(self, topic: str, partition: int, offset: int, records_max: int) -> Sequence[Record]:
        raise NotImplementedError

    def move(self, group: str, topic: str, positions: Mapping[int, int]) -> None:
        raise NotImplementedError

    def ensure_compacted(self, topic: str, partitions: int) -> None:
        raise NotImplementedError

    def close(self) -> None:
        return


@pytest.mark.parametrize(
    ("offset", "starts"),
    [(None, [30, 80, 5]), (0, [0, 40, 5]), (50, [50, 50, 5]), (10_000, [60, 80, 5])],
)
def test_each_partition_begins_within_what_is_kept_and_ends_where_the_group_stands(
    offset: int | None, starts: list[int]
) -> None:
    steps = plan(SOURCE, Topic(), offset, 1000.0)
    assert [step.start for step in steps] == starts
    assert [step.position for step in steps] == [60, 80, 5]
    assert [(step.first, step.end) for step in steps] == [(0, 100), (40, 90), (5, 10)]
    assert [step.records for step in steps] == [60 - starts[0], 80 - starts[1], 0]


def test_a_step_counts_what_is_read() -> None:
    assert Step(0, 3, 10, 0, 20).records == 7
