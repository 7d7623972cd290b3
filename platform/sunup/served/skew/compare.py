"""Training against serving, column by column, and a verdict on each."""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import msgspec

from sunup.served.skew.profile import Column, Profile
from sunup.served.skew.psi import MAJOR, MODERATE, Psi, psi
from sunup.served.skew.totals import Batch, Served, Total

SHOWN: Final = ("ok", "moderate", "major", "few rows")


class Skew(msgspec.Struct, frozen=True):
    """How one column has moved. `verdict`: "ok", "moderate" (PSI from 0.1), "major" (from 0.25), or "few rows": as far
    as from 0.1, but rows drawn alike may be so, too. `defaulted`, `stale`: shares of rows."""

    column: Column
    served: Served
    psi: Psi
    defaulted: float
    stale: float

    @property
    def verdict(self) -> str:
        if self.psi.value < MODERATE:
            return "ok"
        if self.psi.value <= self.psi.noise_max:
            return "few rows"
        return "major" if self.psi.value >= MAJOR else "moderate"

    def beyond(self, psi_max: float) -> bool:
        """Whether the PSI is more than `psi_max`, and more than chance gives."""
        return self.psi.value > max(psi_max, self.psi.noise_max)

    def unsure(self, psi_max: float) -> bool:
        """Whether so few rows were served that chance alone may give a PSI over `psi_max`."""
        return self.psi.noise_max > psi_max

    @property
    def missing(self) -> tuple[float, float]:
        """The shares of values missing: in training, in serving."""
        return self.column.missing / self.column.count, self.served.missing / self.served.count


class Comparison(NamedTuple):
    """All columns, the most moved first. `absent`: columns of the profile that no file of the log has (as numbers, or
    as categories). `rows`: served; `times`: of the first and the last of them, Unix seconds."""

    rows: int
    times: tuple[float, float]
    skews: Sequence[Skew]
    absent: Sequence[str]


def compare(profile: Profile, batches: Iterable[Batch]) -> Comparison:
    """Count what was served over the profile's bins, and compare. Memory does not grow with the batches."""
    totals = {column.name: Total(column) for column in profile.columns}
    defaulted, stale = dict.fromkeys(totals, 0), dict.fromkeys(totals, 0)
    rows, first, last = 0, float("inf"), float("-inf")
    for batch in batches:
        rows += batch.rows
        first, last = min(first, batch.times[0]), max(last, batch.times[1])
        for name, values in batch.values.items():
            totals[name].add(values)
        for counted, found in ((defaulted, batch.defaulted), (stale, batch.stale)):
            for name in found.keys() & counted.keys():
                counted[name] += found[name]
    skews = []
    for column in profile.columns:
        served = totals[column.name].served
        if served.count:
            distance = psi((*column.counts, column.missing), (*served.counts, served.missing))
            skews.append(Skew(column, served, distance, defaulted[column.name] / rows, stale[column.name] / rows))
    skews.sort(key=lambda skew: (-skew.psi.value, skew.column.name))
    there = {skew.column.name for skew in skews}
    return Comparison(rows, (first, last), skews, [name for name in totals if name not in there])
