"""Which partitions stand still though they should not, and which workers are replaced for it."""

from collections.abc import Collection, Mapping

import pytest

from sunup.engine.local.streaming.readers import Readers, stuck
from sunup.limits import STREAM_PASSED_RECORDS_MAX, STREAM_STALL_SECONDS
from sunup.scale.topic import Topic

LATE = 100.0 + STREAM_STALL_SECONDS
READY = {"a": 90.0, "b": 95.0}


def topic(*seen: Mapping[int, tuple[int, int]]) -> Topic:
    """Looked at from 100.0 on, and the last time at LATE."""
    made = Topic()
    for index, partitions in enumerate(seen):
        made.see(partitions, LATE if index and index == len(seen) - 1 else 100.0 + index)
    return made


def readers(**reads: Collection[int]) -> Readers:
    made = Readers()
    for name, numbers in reads.items():
        made.heard(name, numbers, 100.0)
    return made


def found(
    topic: Topic,
    readers: Readers,
    *,
    now: float = LATE + 1,
    without: Collection[int] = (),
    troubled: Collection[str] = (),
    ready: Mapping[str, float] = READY,
) -> tuple[list[int], list[str]]:
    return stuck(topic, readers, ready, now, without=without, troubled=troubled)


def test_only_who_reads_what_stands_still_is_replaced() -> None:
    one = topic({0: (5, 9), 1: (0, 99)}, {0: (5, 9), 1: (50, 99)})
    who = readers(a=[0], b=[1])
    assert found(one, who) == ([0], ["a"])
    assert found(one, who, now=LATE) == ([], []), "not yet"


def test_whoever_might_be_at_fault_is_replaced_when_nobody_says_to_read_it() -> None:
    one = topic({0: (5, 9), 1: (0, 99)}, {0: (5, 9), 1: (50, 99)})
    assert found(one, readers(b=[1])) == ([0], ["a", "b"])
    assert found(one, readers(gone=[0], b=[1])) == ([0], ["a", "b"])


def test_what_is_paused_or_known_to_be_in_trouble_is_left_alone() -> None:
    one = topic({0: (5, 9)}, {0: (5, 9)})
    assert found(one, readers(a=[0]), without=[0]) == ([], [])
    assert found(one, readers(a=[0]), troubled=["a"]) == ([], [])
    assert found(one, readers(a=[0]), troubled=["b"]) == ([0], ["a"])
    assert found(one, readers(), troubled=["b"]) == ([], []), "it may be the one that is in trouble"
    assert found(one, readers(), ready={}) == ([], []), "nobody reads yet"


def test_time_counts_from_when_the_reader_began() -> None:
    one = topic({0: (5, 9)}, {0: (5, 9)})
    late = readers()
    late.heard("a", [0], 120.0)
    assert found(one, late) == ([], [])
    assert found(one, late, now=121.0 + STREAM_STALL_SECONDS) == ([0], ["a"])
    assert found(one, readers(), ready={"a": 100.0, "b": 120.0}) == ([], [])


@pytest.mark.parametrize(("passed", "result"), [(100, ([], [])), (STREAM_PASSED_RECORDS_MAX + 1, ([0], ["a"]))])
def test_a_partition_whose_reader_is_at_others_waits_its_turn_but_not_for_ever(
    passed: int, result: tuple[list[int], list[str]]
) -> None:
    end = 2 * STREAM_PASSED_RECORDS_MAX
    one = topic({0: (5, 9), 1: (0, end)}, {0: (5, 9), 1: (passed, end)})
    assert found(one, readers(a=[0, 1])) == result


def test_a_partition_is_read_by_the_last_who_says_so() -> None:
    who = readers(a=[0, 1])
    who.heard("b", [1], 101.0)
    assert who.of(1) == ("b", 101.0)
    assert (who.read_by("a"), who.read_by("b")) == ([0], [1])
    who.heard("b", [], 102.0)
    assert who.of(1) == ("a", 100.0)
    who.forget("a")
    assert who.of(1) is None
