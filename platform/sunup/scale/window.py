"""The largest value seen within a span of time, in amortised constant time per sample. Pure."""

from collections import deque


class WindowMax:
    """Maximum over the last `span` seconds. Times given to `add` and `value` never go back."""

    def __init__(self, span: float) -> None:
        self.span = span
        self._kept: deque[tuple[float, float]] = deque()  # (time, value): values fall from left to right

    def add(self, now: float, value: float) -> None:
        """Note `value` at `now` (monotonic seconds)."""
        while self._kept and self._kept[-1][1] <= value:
            self._kept.pop()
        self._kept.append((now, value))

    def hold(self, now: float, value: float) -> None:
        """Keep `value` workers for the span though no call was seen: after a deploy, or found running."""
        self.add(now, value)

    def value(self, now: float) -> float:
        """The largest value added in (now - span, now], or 0.0 if there is none."""
        while self._kept and self._kept[0][0] <= now - self.span:
            self._kept.popleft()
        return self._kept[0][1] if self._kept else 0.0
