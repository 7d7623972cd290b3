"""What is remembered of a function's silences: a decayed histogram of their lengths and the last few periods. Pure.

A few hundred bytes per function, whatever its age. Bins are a third of an octave wide, so a silence is known to 13 %.
"""

import math
import struct
from array import array
from typing import Final

from sunup.limits import IDLE_AUTO_SECONDS_MAX, IDLE_AUTO_SECONDS_MIN

_PER_OCTAVE: Final = 3
_OCTAVES: Final = 20  # from half a second to six days; the last bin takes what is longer
BINS: Final = _PER_OCTAVE * _OCTAVES
_EDGES: Final = tuple(IDLE_AUTO_SECONDS_MIN * 2 ** (i / _PER_OCTAVE) for i in range(BINS + 1))
_MIDDLES: Final = tuple(IDLE_AUTO_SECONDS_MIN * 2 ** ((i + 0.5) / _PER_OCTAVE) for i in range(BINS))
_DECAY: Final = 0.97  # per silence: what was seen 23 silences ago counts half
_PERIODS: Final = 6
_PERIODS_NEEDED: Final = 4
_PERIOD_SPREAD: Final = 0.02  # of the period; timers start their calls within a second or so
_PACKED: Final = struct.Struct(f"<{BINS}f{_PERIODS}f")
GAPS_NEEDED: Final = 8  # silences before the histogram is believed


class History:
    """The silences of one function, in seconds."""

    def __init__(self) -> None:
        self._counts = array("f", bytes(4 * BINS))
        self._periods: list[float] = []

    def __repr__(self) -> str:
        return f"History({self.weight:.1f} silences, period={self.period})"

    @property
    def weight(self) -> float:
        """Silences remembered, each counted by what is left of it; at most 33."""
        return sum(self._counts)

    @property
    def period(self) -> float | None:
        """Seconds from call to call when the last calls came like clockwork, else None."""
        if len(self._periods) < _PERIODS_NEEDED:
            return None
        last = sorted(self._periods)
        middle = last[len(last) // 2]
        return middle if last[-1] - last[0] <= max(1.0, _PERIOD_SPREAD * middle) else None

    def note(self, silence: float, period: float | None) -> None:
        """A silence ended. `period`: from the call before it to the one after it, begin to begin, if both were seen."""
        if silence <= IDLE_AUTO_SECONDS_MIN:
            return
        for i, count in enumerate(self._counts):
            if count:
                self._counts[i] = count * _DECAY
        octaves = math.log2(silence / IDLE_AUTO_SECONDS_MIN)
        self._counts[min(BINS - 1, int(octaves * _PER_OCTAVE))] += 1.0
        if period is not None:
            self._periods = [*self._periods[1 - _PERIODS :], period]

    def idle(self, break_even: float) -> float | None:
        """The silence after which ending the last worker costs least, in seconds; None while too little is known.

        `break_even`: the silence that costs as much memory as one cold start costs. Waiting w costs, for each silence
        remembered, its own length where that is at most w, else w + break_even.
        """
        weight = self.weight
        if weight < (_PERIODS_NEEDED - 0.5 if self.period else GAPS_NEEDED - 1):
            return None
        best, least = IDLE_AUTO_SECONDS_MIN, weight * (IDLE_AUTO_SECONDS_MIN + break_even)
        kept, longer = 0.0, weight
        for i, count in enumerate(self._counts):
            if not count:
                continue
            kept += count * _MIDDLES[i]
            longer -= count
            cost = kept + longer * (_EDGES[i + 1] + break_even)
            if cost < least:
                best, least = _EDGES[i + 1], cost
        return min(best, IDLE_AUTO_SECONDS_MAX)

    def pack(self) -> bytes:
        """The whole of it, to be kept."""
        periods = [*self._periods, *[0.0] * _PERIODS][:_PERIODS]
        return _PACKED.pack(*self._counts, *periods)

    @classmethod
    def unpack(cls, data: bytes) -> "History":
        """What `pack` kept; an empty history when `data` is something else."""
        history = cls()
        if len(data) == _PACKED.size:
            values = _PACKED.unpack(data)
            if all(math.isfinite(value) and value >= 0 for value in values):
                history._counts = array("f", values[:BINS])
                history._periods.extend(value for value in values[BINS:] if value)
        return history
