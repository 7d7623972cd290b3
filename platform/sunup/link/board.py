"""A counter segment whose series come and go: kept as a dictionary, written to its file soon after a change.

For what happens rarely (a refusal, a cold start), where one write per burst is cheaper than a fixed layout. The file is
made anew only when a series came or went: with hundreds of functions it is long.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sunup.link.counters import Segment, Series, key

FLUSH_SECONDS = 0.25


class Board:
    """Counters, gauges and histograms of one process. `later(seconds, call)` schedules the write (an event loop's
    `call_later`). Values found in the file are taken up again, so a restart does not set counters back."""

    def __init__(self, path: Path, later: Callable[[float, Callable[[], None]], Any]) -> None:
        self._path = path
        self._later = later
        self._pending = False
        self.muted = False  # another process writes the file now
        self._series: dict[str, tuple[Series, list[float]]] = {}
        self._segment: Segment | None = None  # the file, while it holds just these series
        if path.exists():
            segment = Segment.open(path)
            for index, series in enumerate(segment.series):
                if series.kind != "gauge":
                    self._series[key(series.name, series.labels)] = (series, segment.read(index))
            segment.close()

    def add(self, name: str, amount: float = 1.0, **labels: str) -> None:
        """Add to a counter."""
        self._slots(Series(name, "counter", labels))[0] += amount

    def put(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        self._slots(Series(name, "gauge", labels))[0] = value

    def put_change(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge, but do not begin one with zero: thousands of functions at zero have nothing to show."""
        if value or key(name, labels) in self._series:
            self.put(name, value, **labels)

    def observe(self, name: str, buckets: tuple[float, ...], value: float, **labels: str) -> None:
        """Add one observation to a histogram."""
        slots = self._slots(Series(name, "histogram", labels, buckets))
        index = next((i for i, bound in enumerate(buckets) if value <= bound), len(buckets))
        slots[index] += 1.0
        slots[-1] += value

    def forget(self, **labels: str) -> None:
        """Drop every series that carries all of `labels`."""
        gone = [k for k, (s, _) in self._series.items() if labels.items() <= s.labels.items()]
        for one in gone:
            del self._series[one]
        if gone:
            self._outdated()
        self._soon()

    def flush(self) -> None:
        """Write the file now."""
        self._pending = False
        if self.muted:
            return
        if self._segment is None:
            self._path.unlink(missing_ok=True)
            self._segment = Segment.create(self._path, [series for series, _ in self._series.values()])
        written, at = self._segment.values, 0
        for _, values in self._series.values():
            for value in values:
                written[at] = value
                at += 1

    def _slots(self, series: Series) -> list[float]:
        self._soon()
        name = key(series.name, series.labels)
        if name not in self._series:
            self._series[name] = (series, [0.0] * series.slots)
            self._outdated()
        return self._series[name][1]

    def _outdated(self) -> None:
        if self._segment is not None:
            self._segment.close()
            self._segment = None

    def _soon(self) -> None:
        if not self._pending:
            self._pending = True
            self._later(FLUSH_SECONDS, self.flush)
