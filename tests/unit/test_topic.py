"""What is made of the watcher's observations: lag, rate, progress, what stands still, how old what waits is."""

from sunup.scale.topic import ENDS_KEPT, RATE_SECONDS, Still, Topic


def test_lag_is_of_all_partitions_and_never_negative() -> None:
    topic = Topic()
    topic.see({0: (3, 10), 1: (5, 5), 2: (7, 6)}, 1.0)
    assert topic.lag == 7


def test_progress_is_told_once() -> None:
    topic = Topic()
    topic.see({0: (3, 10)}, 1.0)
    assert not topic.take_moved(), "what was read before it was watched is no progress"
    topic.see({0: (6, 10)}, 2.0)
    assert topic.take_moved()
    assert not topic.take_moved()


def test_a_group_that_begins_makes_progress() -> None:
    topic = Topic()
    topic.see({0: (0, 10)}, 1.0)
    topic.see({0: (10, 10)}, 2.0)
    assert topic.take_moved()


def test_a_partition_stands_still_from_its_last_progress_while_records_wait() -> None:
    topic = Topic()
    topic.see({0: (3, 3), 1: (0, 0)}, 1.0)
    topic.see({0: (3, 10), 1: (0, 0)}, 2.0)
    assert topic.still() == {0: Still(1.0, 0)}
    topic.see({0: (4, 10), 1: (0, 100)}, 5.0)
    topic.see({0: (4, 12), 1: (90, 100)}, 9.0)
    assert topic.still() == {0: Still(5.0, 90), 1: Still(9.0, 0)}
    assert topic.is_read([0], 4.0)
    assert not topic.is_read([0], 5.0)
    assert topic.is_read([0, 1], 8.0)
    topic.see({0: (12, 12), 1: (100, 100)}, 20.0)
    topic.see({0: (12, 12), 1: (100, 100)}, 30.0)
    assert topic.still() == {}, "where nothing waits nothing stands still"
    topic.see({0: (12, 13), 1: (100, 100)}, 31.0)
    assert topic.still() == {0: Still(30.0, 0)}


def test_a_position_that_was_moved_back_is_no_progress_and_no_standstill() -> None:
    topic = Topic()
    topic.see({0: (50, 50)}, 1.0)
    topic.see({0: (10, 50)}, 2.0)
    assert not topic.take_moved()
    assert topic.still() == {0: Still(2.0, 0)}
    topic.see({0: (30, 50)}, 3.0)
    assert topic.take_moved()
    assert topic.rate(3.0) == 2.0


def test_paused_partitions_are_not_waiting() -> None:
    topic = Topic()
    topic.see({0: (0, 10), 1: (0, 5), 2: (7, 7)}, 1.0)
    assert topic.waiting([0]) == 5
    assert topic.waiting([0, 1]) == 0


def test_the_rate_is_of_the_last_seconds() -> None:
    topic = Topic()
    for second in range(100):
        topic.see({0: (50 * second, 10_000)}, float(second))
    assert abs(topic.rate(99.0) - 50.0) <= 5.0
    assert topic.rate(99.0 + 2 * RATE_SECONDS) == 0.0


def test_a_burst_after_a_long_silence_has_a_rate() -> None:
    topic = Topic()
    topic.see({0: (0, 0)}, 0.0)
    topic.see({0: (500, 500)}, 1000.0)
    assert topic.rate(1001.0) == 50.0
    assert topic.rate(1000.0 + RATE_SECONDS) == 0.0


def test_the_age_of_what_waits_goes_with_the_position() -> None:
    topic = Topic()
    topic.see({0: (0, 0), 1: (0, 0)}, 0.0)
    assert topic.ages(5.0) == {}
    topic.see({0: (0, 10), 1: (0, 0)}, 10.0)
    topic.see({0: (0, 20), 1: (0, 1)}, 14.0)
    assert topic.ages(15.0) == {0: 5.0, 1: 1.0}
    topic.see({0: (10, 20), 1: (1, 1)}, 16.0)
    assert topic.ages(17.0) == {0: 3.0}
    topic.see({0: (20, 20), 1: (1, 1)}, 18.0)
    assert topic.ages(19.0) == {}


def test_a_topic_nobody_reads_is_watched_with_bounded_memory() -> None:
    topic = Topic()
    for second in range(3 * ENDS_KEPT):
        topic.see({0: (0, second + 1)}, float(second))
    assert topic.ages(3.0 * ENDS_KEPT) == {0: 3.0 * ENDS_KEPT}
