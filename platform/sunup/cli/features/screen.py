"""How a comparison is shown: a table for people, facts for programs."""

from collections.abc import Sequence
from typing import Any, Final

from sunup.cli.terminal import show_table
from sunup.served.skew.bins import PROBABILITIES
from sunup.served.skew.compare import Comparison, Skew

_COLUMNS: Final = (
    "feature",
    "verdict",
    "PSI ",
    "by chance ",
    "missing ",
    "as served ",
    "defaulted ",
    "stale ",
    "5 %, median, 95 % in training",
    "as served",
)
_SHOWN: Final = tuple(PROBABILITIES.index(share) for share in (0.05, 0.5, 0.95))
_CATEGORIES: Final = 2  # of a column, in the table; the others together


def show(found: Comparison) -> None:
    """The table of features, the most moved first."""
    show_table(_COLUMNS, [_row(skew) for skew in found.skews])


def facts_of(skew: Skew) -> dict[str, Any]:
    """One feature for programs. `noise`: the PSI that rows drawn alike give on average, `noise_max` in 999 of 1,000."""
    column, served, (trained_gone, served_gone) = skew.column, skew.served, skew.missing
    bins: dict[str, Any] = (
        {"categories": [*column.categories, None]} if column.kind == "category" else {"edges": column.edges}
    )
    quantiles = [_quantiles(column.quantiles), _quantiles(served.quantiles)]
    return {
        "name": column.name,
        "kind": column.kind,
        "verdict": skew.verdict,
        "psi": skew.psi.value,
        "noise": skew.psi.noise,
        "noise_max": skew.psi.noise_max,
        "values": {"training": column.count, "served": served.count},
        "missing": {"training": trained_gone, "served": served_gone, "difference": served_gone - trained_gone},
        "defaulted": skew.defaulted,
        "stale": skew.stale,
        "bins": {**bins, "training": column.counts, "served": served.counts},
        **({"quantiles": dict(zip(("training", "served"), quantiles, strict=True))} if column.kind == "number" else {}),
    }


def _quantiles(values: Sequence[float]) -> dict[str, float]:
    return {f"{share:g}": value for share, value in zip(PROBABILITIES, values, strict=False)}


def _row(skew: Skew) -> list[str]:
    trained, served = skew.missing
    return [
        skew.column.name,
        skew.verdict,
        f"{skew.psi.value:.3f}",
        f"{skew.psi.noise:.3f}",
        _share(trained),
        _share(served),
        _share(skew.defaulted),
        _share(skew.stale),
        *_middles(skew),
    ]


def _middles(skew: Skew) -> tuple[str, str]:
    """Three quantiles of a number, the most frequent values of a category: in training, and as served."""
    column, served = skew.column, skew.served
    if column.kind == "number":
        return _numbers(column.quantiles), _numbers(served.quantiles)
    names = [*column.categories, "others"]
    known, counted = column.count - column.missing, served.count - served.missing
    return _shares(names, column.counts, known), _shares(names, served.counts, counted)


def _shares(names: Sequence[str], counts: Sequence[int], total: int) -> str:
    named = [f"{name} {_share(count / max(1, total))}" for name, count in zip(names, counts, strict=True)]
    return ", ".join([*named[:-1][:_CATEGORIES], named[-1]])


def _numbers(quantiles: Sequence[float]) -> str:
    return ", ".join(f"{quantiles[at]:.4g}" for at in _SHOWN) if quantiles else "-"


def _share(share: float) -> str:
    return "-" if not share else f"{share:.1%}"
