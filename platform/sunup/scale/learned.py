"""A window that learns: how long a function's last worker is worth keeping, from the function's own silences. Pure."""

from typing import Final

from sunup.limits import IDLE_AUTO_SECONDS_MAX, IDLE_AUTO_SECONDS_MIN, SLOW_START_SECONDS
from sunup.scale.history import History
from sunup.scale.window import WindowMax

GB_PER_CPU: Final = 9.1  # GB-s for one CPU-s, as AWS Fargate sells them: $0.04048 a vCPU-hour, $0.004445 a GB-hour
_LATE_SECONDS: Final = 1.0  # a timer's call that is later than this does not find the worker that waited for it


class LearnedWindow:
    """What `WindowMax` is to a declared idle time, for `idle = "auto"`.

    Two questions are kept apart. How many workers, while there are calls: the largest need within `span` seconds, as
    ever. Whether any, in silence: as long as keeping one costs less than the cold start it may save. While too few
    silences are known that is the break-even time, which never costs more than twice what knowing the future would;
    while costs are unknown too, `span`.
    """

    def __init__(self, span: float, history: History) -> None:
        self.history = history
        self._window = WindowMax(span)
        self._busy: float | None = None  # when something last was to be done
        self._called: float | None = None  # when a call last was in progress; a deploy is none
        self._began = 0.0  # when the last call after a silence began
        self._cold_seconds = 0.0
        self._break_even: float | None = None
        self._idle = span

    @property
    def idle(self) -> float:
        """Seconds of silence after which the last worker ends."""
        return self._idle

    def facts(self) -> dict[str, float | bool]:
        """What `platform status` shows: the idle time in force, whether it is learned, and from how much."""
        known = self._break_even is not None and self.history.idle(self._break_even) is not None
        return {
            "seconds": round(self._idle, 2),
            "learned": known,
            "silences": round(self.history.weight, 1),
            **({} if self._break_even is None else {"break_even_seconds": round(self._break_even, 2)}),
            **({} if self.history.period is None else {"period_seconds": round(self.history.period, 1)}),
        }

    def price(self, cold_seconds: float, worker_bytes: float) -> None:
        """What was measured: CPU seconds of a cold start and memory of a worker, from which break-even follows."""
        self._cold_seconds = cold_seconds
        if worker_bytes > 0:
            even = cold_seconds * GB_PER_CPU / (worker_bytes / 1e9)
            self._break_even = min(IDLE_AUTO_SECONDS_MAX, max(IDLE_AUTO_SECONDS_MIN, even))
            self._learn()

    def add(self, now: float, value: float) -> None:
        """Calls are in progress at `now` (monotonic seconds) that need `value` workers."""
        if self._called is None:
            self._began = now
        elif now - self._called > IDLE_AUTO_SECONDS_MIN:
            self.history.note(now - self._called, now - self._began)
            self._began = now
            self._learn()
        self._called = now
        self.hold(now, value)

    def hold(self, now: float, value: float) -> None:
        """Keep `value` workers for the idle time from `now` on, though no call was seen: after a deploy, or found."""
        if value <= 0:
            return
        if self._busy is not None and now - self._busy >= self._idle:
            self._window = WindowMax(self._window.span)  # it was at zero: earlier needs are over
        self._busy = now
        self._window.add(now, value)

    def value(self, now: float) -> float:
        """The workers needed at `now`; 0.0 when the last one may end."""
        if self._busy is not None and now - self._busy < self._idle:
            return max(1.0, self._window.value(now))
        expected = self._expected()
        return 1.0 if expected is not None and expected[0] <= now < expected[1] else 0.0

    def wakes_at(self, now: float) -> float | None:
        """When, later than `now`, a worker is wanted though nobody called; None if that is not foreseen."""
        expected = self._expected()
        return expected[0] if expected is not None and expected[0] > now else None

    def _expected(self) -> tuple[float, float] | None:
        """From when to when a worker should wait for the next call of a timer. Only where a cold start is so long that
        a caller would notice: being there early costs a start all the same, and the memory of waiting."""
        period = self.history.period
        if period is None or self._called is None or self._cold_seconds < SLOW_START_SECONDS:
            return None
        due = self._began + period
        early = due - 2 * self._cold_seconds - _LATE_SECONDS
        return (early, due + _LATE_SECONDS) if early > self._called + self._idle else None

    def _learn(self) -> None:
        if self._break_even is not None:
            learned = self.history.idle(self._break_even)
            self._idle = self._break_even if learned is None else learned
