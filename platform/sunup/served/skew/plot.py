"""A picture of a comparison: on top the PSI of every feature, below histograms of those that moved most.

Drawn without a display and without pyplot's global state; the same comparison gives the same bytes.
"""

from collections.abc import Sequence
from math import floor
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sunup.limits import SKEW_BARS_MAX, SKEW_PLOTTED_MAX
from sunup.served.skew.bins import is_one
from sunup.served.skew.compare import Skew
from sunup.served.skew.psi import MAJOR, MODERATE

COLOURS: Final = {"ok": "#4c956c", "few rows": "#9a9a9a", "moderate": "#e9a23b", "major": "#c8553d"}
_TRAINING: Final = "#8d99ae"
_ACROSS: Final = 3  # histograms beside each other
_TEXT_MAX: Final = 22  # characters of a name or value in the picture
_DPI: Final = 100


def plot(skews: Sequence[Skew], title: str, path: Path) -> None:
    """Write a PNG of `skews`, the most moved first (at least one)."""
    worst = skews[:SKEW_PLOTTED_MAX]
    down = -(-len(worst) // _ACROSS)
    figure = Figure(figsize=(12, 3.6 + 2.4 * down), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11)
    grid = figure.add_gridspec(down + 1, _ACROSS, height_ratios=[1.5, *[1.0] * down])
    _bars(figure.add_subplot(grid[0, :]), skews)
    for at, skew in enumerate(worst):
        _histogram(figure.add_subplot(grid[1 + at // _ACROSS, at % _ACROSS]), skew)
    figure.savefig(path, format="png", metadata={"Software": None})


def _bars(axes: Any, skews: Sequence[Skew]) -> None:
    shown = skews[:SKEW_BARS_MAX]
    axes.bar(range(len(shown)), [s.psi.value for s in shown], color=[COLOURS[s.verdict] for s in shown])
    axes.plot(range(len(shown)), [s.psi.noise_max for s in shown], "k_", markersize=8, label="chance alone, at most")
    for limit in (MODERATE, MAJOR):
        axes.axhline(limit, color="black", linewidth=0.6, linestyle=":")
    axes.set_xticks(range(len(shown)), [_short(s.column.name) for s in shown], rotation=60, ha="right", fontsize=7)
    left = f" ({len(shown)} of {len(skews)} features)" if len(shown) < len(skews) else ""
    axes.set_ylabel(f"PSI{left}", fontsize=8)
    axes.legend(fontsize=7, frameon=False)


def _histogram(axes: Any, skew: Skew) -> None:
    """Shares of the bins, side by side: bins are deciles of training, so equal widths on the page show them fairly."""
    names = [*_names(skew), "missing"]
    trained = np.array([*skew.column.counts, skew.column.missing]) / skew.column.count
    served = np.array([*skew.served.counts, skew.served.missing]) / skew.served.count
    used = np.flatnonzero((trained > 0) | (served > 0))
    places = np.arange(len(used))
    axes.bar(places - 0.2, trained[used], 0.4, color=_TRAINING, label="training")
    axes.bar(places + 0.2, served[used], 0.4, color=COLOURS[skew.verdict], label="served")
    axes.set_xticks(places, [names[at] for at in used], rotation=40, ha="right", fontsize=6)
    axes.tick_params(axis="y", labelsize=6)
    axes.set_title(f"{_short(skew.column.name)}   PSI {skew.psi.value:.3g}, {skew.verdict}", fontsize=8)
    axes.legend(fontsize=6, frameon=False)


def _names(skew: Skew) -> list[str]:
    """What the bins are called: categories, or up to which number they go."""
    if skew.column.kind == "category":
        return [*map(_short, skew.column.categories), "others"]
    whole, edges = skew.column.dtype.startswith("int"), skew.column.edges
    shown = [floor(edge) if whole else edge for edge in edges]
    names = []
    for at, upper in enumerate(edges):
        if at and is_one(edges[at - 1], upper, whole=whole):
            names.append(f"{shown[at]:.3g}")
        elif at + 1 < len(edges) and is_one(upper, edges[at + 1], whole=whole):
            names.append(f"< {shown[at + 1]:.3g}")
        else:
            names.append(f"\u2264 {shown[at]:.3g}")
    return [*names, f"> {shown[-1]:.3g}" if edges else "any"]


def _short(text: str) -> str:
    """A text that matplotlib does not read as a formula."""
    cut = text if len(text) <= _TEXT_MAX else f"{text[: _TEXT_MAX - 1]}\u2026"
    return cut.replace("$", r"\$")
