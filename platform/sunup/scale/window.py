"""The largest value seen within a span of time, in amortised constant time per sample. Pure."""

from collections import deque


class WindowMax:
    """Maximum over the last `span` seconds. Times given to `add` and `value` never go back."""

    __slots__ = ("_kept", "span")

    def __init__(self, span: float) -> None:
        self.span = span
        # (time, value): values fall from left to right. Made when something is added: an empty one takes 0.7 KB, and
        # most of an engine's functions are at zero.
        self._kept: deque[tuple[float, float]] | None = None

    def add(self, now: float, value: float) -> None:
        """Note `value` at `now` (monotonic seconds)."""
        kept = self._kept = deque() if self._kept is None else self._kept
        while kept and kept[-1][1] <= value:
            kept.pop()
        kept.append((now, value))

    def hold(self, now: float, value: float) -> None:
        """Keep `value` workers for the span though no call was seen: after a deploy, or found running."""
        if value > 0:
            self.add(now, value)

    def value(self, now: float) -> float:
        """The largest value added in (now - span, now], or 0.0 if there is none."""
        kept = self._kept
        while kept and kept[0][0] <= now - self.span:
            kept.popleft()
        if kept:
            return kept[0][1]
        self._kept = None
        return 0.0
