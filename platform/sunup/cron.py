"""Times of day as crontab(5) writes them: "0 8 * * 1-5" is eight o'clock from Monday to Friday. Pure.

Five fields: minute, hour, day of month, month, day of week (0 and 7 are Sunday; jan-dec and mon-sun by name), each
`*`, a number, a range, either with a step, or several with commas. Where both days are restricted, one of them is
enough, as cron has it. The time is the machine's local time; one that the clocks skip in spring does not happen, one
that they repeat in autumn happens once. Written here because importing croniter 7 takes 66 ms, and the supervisor
would pay.
"""

import calendar
from datetime import datetime, timedelta
from typing import Final, NamedTuple

_NAMES: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTHS: Final = {name: number for number, name in enumerate(_NAMES, start=1)}
_WEEKDAYS: Final = {"sun": 0, "mon": 1, "tue": 2, "wed": 3, "thu": 4, "fri": 5, "sat": 6}
_DAYS_MAX: Final = 366 * 8 + 1  # the longest from one 29 February to the next, around a year like 2100


class Cron(NamedTuple):
    """An expression. `weekdays`: 0 is Sunday. `either`: a day need only be in one of `days` and `weekdays`."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either: bool

    @classmethod
    def parse(cls, text: str) -> "Cron":
        """Raises ValueError with what is wrong."""
        fields = text.lower().split()
        if len(fields) != 5:
            raise ValueError(
                f"{text!r} has {len(fields)} fields; it takes five: minute, hour, day of month, month, day of week"
            )
        minute, hour, day, month, weekday = fields
        cron = cls(
            _field(minute, "minute", 0, 59, {}),
            _field(hour, "hour", 0, 23, {}),
            _field(day, "day of month", 1, 31, {}),
            _field(month, "month", 1, 12, _MONTHS),
            frozenset(d % 7 for d in _field(weekday, "day of week", 0, 7, _WEEKDAYS)),
            not day.startswith("*") and not weekday.startswith("*"),
        )
        longest = max(calendar.monthrange(2000, month)[1] for month in cron.months)  # 2000: a leap year
        if min(cron.days) > longest and not cron.either:
            raise ValueError(f"{text!r} never comes: no such day in these months")
        return cron

    def next(self, after: float) -> float:
        """The first time later than `after`, both in Unix seconds."""
        start = datetime.fromtimestamp(after).replace(second=0, microsecond=0) + timedelta(minutes=1)
        for number in range(_DAYS_MAX):
            day = start if number == 0 else (start + timedelta(days=number)).replace(hour=0, minute=0)
            if not self._on(day):
                continue
            for hour in sorted(h for h in self.hours if h >= day.hour):
                first = day.minute if hour == day.hour else 0
                for minute in sorted(m for m in self.minutes if m >= first):
                    found = day.replace(hour=hour, minute=minute)
                    stamp = found.timestamp()
                    if stamp > after and datetime.fromtimestamp(stamp) == found:
                        return stamp
        raise ValueError("this expression never comes")

    def _on(self, day: datetime) -> bool:
        if day.month not in self.months:
            return False
        by_date, by_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return by_date or by_week if self.either else by_date and by_week


def _field(text: str, name: str, low: int, high: int, names: dict[str, int]) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        span, slash, step = part.partition("/")
        first, dash, last = span.partition("-")
        try:
            begin, end = (low, high) if span == "*" else (_number(first, names), _number(last or first, names))
            every = int(step) if slash else 1
        except ValueError:
            raise ValueError(f"{part!r} is no {name}") from None
        if slash and span != "*" and not dash:
            end = high  # "5/15": from five on, as most crons take it
        if not low <= begin <= end <= high or every < 1:
            raise ValueError(f"{part!r} is no {name}: from {low} to {high}, the smaller one first")
        found.update(range(begin, end + 1, every))
    return frozenset(found)


def _number(text: str, names: dict[str, int]) -> int:
    if text in names:
        return names[text]
    if not (text.isascii() and text.isdecimal()):
        raise ValueError(text)
    return int(text)
