"""What is made of the watcher's observations: lag, rate, progress, and how long the oldest record has waited."""

from sunup.scale.topic import ENDS_KEPT, RATE_SECONDS, Topic


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


def test_standing_still_counts_from_the_last_progress_while_records_wait() -> None:
    topic = Topic()
    topic.see({0: (3, 3)}, 1.0)
    topic.see({0: (3, 10)}, 2.0)
    assert topic.moved_at == 1.0
    topic.see({0: (4, 10)}, 5.0)
    topic.see({0: (4, 12)}, 9.0)
    assert topic.moved_at == 5.0
    topic.see({0: (12, 12)}, 20.0)
    topic.see({0: (12, 12)}, 30.0)
    assert topic.moved_at == 30.0, "where nothing waits nothing stands still"


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
    topic.see({0: (0, 0)}, 0.0)
    assert topic.oldest_seconds(5.0) is None
    topic.see({0: (0, 10)}, 10.0)
    topic.see({0: (0, 20)}, 14.0)
    assert topic.oldest_seconds(15.0) == 5.0
    topic.see({0: (10, 20)}, 16.0)
    assert topic.oldest_seconds(17.0) == 3.0
    topic.see({0: (20, 20)}, 18.0)
    assert topic.oldest_seconds(19.0) is None


def test_a_topic_nobody_reads_is_watched_with_bounded_memory() -> None:
    topic = Topic()
    for second in range(3 * ENDS_KEPT):
        topic.see({0: (0, second + 1)}, float(second))
    assert topic.oldest_seconds(3.0 * ENDS_KEPT) == 3.0 * ENDS_KEPT
