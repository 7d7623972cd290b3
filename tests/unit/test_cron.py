"""Times of day, and the workers wanted at them: given times, no clock."""

import os
import time
from collections.abc import Iterator
from datetime import datetime

import pytest

from sunup.cron import Cron
from sunup.limits import WARM_LEAD_SECONDS
from sunup.scale.needs import Needs
from sunup.scale.policy import Bounds, Sample
from sunup.scale.schedule import Schedule, Warm

NOTHING = Sample(0, 0, 0)


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A zone with summer time, as a rule and not by name: no time zone database is needed."""
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()
    assert "TZ" not in os.environ or os.environ["TZ"] != "CET-1CEST,M3.5.0,M10.5.0/3"


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize(
    ("cron", "after", "expected"),
    [
        ("0 8 * * 1-5", "2026-11-20 07:59:59", "2026-11-20 08:00"),  # a Friday
        ("0 8 * * 1-5", "2026-11-20 08:00:00", "2026-11-23 08:00"),
        ("0 8 * * mon-fri", "2026-11-21 12:00", "2026-11-23 08:00"),
        ("*/15 * * * *", "2026-11-21 12:44:59.9", "2026-11-21 12:45"),
        ("5/20 9-10 * * *", "2026-11-21 09:45", "2026-11-21 10:05"),
        ("0,30 0 1 jan *", "2026-11-21 00:00", "2027-01-01 00:00"),
        ("0 0 13 * 5", "2026-11-21 00:00", "2026-11-27 00:00"),  # either day is enough
        ("0 0 29 2 *", "2026-11-21 00:00", "2028-02-29 00:00"),
        ("0 12 * * 7", "2026-11-21 00:00", "2026-11-22 12:00"),
        ("30 2 * * *", "2027-03-27 12:00", "2027-03-29 02:30"),  # 28 March has no half past two
        ("30 2 * * *", "2026-10-24 12:00", "2026-10-25 02:30"),  # this one has two
    ],
)
def test_the_next_time(cron: str, after: str, expected: str) -> None:
    assert Cron.parse(cron).next(at(after)) == at(expected)


def test_a_time_the_clocks_repeat_comes_once() -> None:
    cron = Cron.parse("30 2 * * *")
    first = cron.next(at("2026-10-24 12:00"))
    assert cron.next(first) == at("2026-10-26 02:30")


@pytest.mark.parametrize(
    ("cron", "message"),
    [
        ("0 8 * *", "4 fields"),
        ("60 8 * * *", "no minute: from 0 to 59"),
        ("0 8 * * 5-1", "no day of week"),
        ("0 8 * * monday", "no day of week"),
        ("*/0 * * * *", "no minute"),
        ("-1 * * * *", "no minute"),
        ("0 0 31 2,4 *", "never comes"),
        ("0 8 * * ١", "no day of week"),
    ],
)
def test_what_is_no_expression_says_why(cron: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Cron.parse(cron)


def test_workers_are_there_before_the_time_and_for_as_long_as_said() -> None:
    schedule = Schedule([Warm(Cron.parse("0 8 * * 1-5"), 2, 600.0)])
    eight = at("2026-11-20 08:00")
    marks = (-WARM_LEAD_SECONDS - 0.1, -WARM_LEAD_SECONDS, 0.0, 599.9, 600.0)
    assert [schedule.least(eight + t) for t in marks] == [0, 2, 2, 2, 0]
    assert schedule.next(eight - 3600) == eight - WARM_LEAD_SECONDS
    assert schedule.next(eight) is None, "on: the scaler looks again while it has workers"
    assert schedule.next(eight + 600) == at("2026-11-23 08:00") - WARM_LEAD_SECONDS


def test_the_wall_clock_may_jump() -> None:
    schedule = Schedule([Warm(Cron.parse("0 8 * * *"), 1, 600.0), Warm(Cron.parse("5 8 * * *"), 3, 60.0)])
    seen = [schedule.least(at(f"2026-11-{t}")) for t in ("20 08:05", "20 07:00", "20 08:07", "25 08:01", "01 08:05:30")]
    assert seen == [3, 0, 1, 1, 3]
    assert schedule.next(at("2026-11-20 08:01")) == at("2026-11-20 08:05") - WARM_LEAD_SECONDS


def test_set_times_raise_the_least_and_never_above_the_most() -> None:
    needs = Needs(b"")
    needs.declare(Bounds(0, 2, 1), 10.0, auto=False, warm=[Warm(Cron.parse("0 8 * * *"), 4, 60.0)])
    eight = at("2026-11-20 08:00")
    assert [needs.workers(NOTHING, now, eight + now) for now in (-10.0, -5.0, 0.0, 59.0, 60.0)] == [0, 2, 2, 2, 0]
    assert needs.wakes_in(-10.0, eight - 10.0) == pytest.approx(5.0)


def test_nothing_is_searched_again_while_the_answer_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[float] = []
    search = Cron.next

    def counted(self: Cron, after: float) -> float:
        searched.append(after)
        return search(self, after)

    monkeypatch.setattr(Cron, "next", counted)
    schedule = Schedule([Warm(Cron.parse("0 8 * * *"), 1, 60.0)])
    for second in range(0, 36_000, 60):
        schedule.least(at("2026-11-20 08:01:30") + second)
    assert len(searched) == 1
