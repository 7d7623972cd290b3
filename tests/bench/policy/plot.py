"""The picture of the comparison, for the docs. The same figures give the same file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot as plt  # after the backend is chosen: there is no display

LABELS = {"timer": "timers", "regular": "regular", "poisson": "Poisson", "bursty": "bursty"}
LABELS |= {"hourly": "hourly\nor less", "minutely": "minutely\nor less", "often": "more\noften", "all": "the mix"}
COLOURS = {"10 minutes": "#b0554b", "Knative 60 s + 30 s": "#d39b4a", "declared 30 s": "#8b8f94", "auto": "#2b6f9e"}


def draw(
    path: Path,
    curve: Mapping[str, Sequence[Sequence[float]]],
    costs: Mapping[str, Mapping[str, float]],
    points: Mapping[str, tuple[float, float]],
) -> None:
    """Left: waste over cold answers, `curve` by policy, `points` of single ones. Right: `costs` by policy and class."""
    with mpl.rc_context({"svg.hashsalt": "sunup", "font.size": 9, "svg.fonttype": "none"}):
        figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), width_ratios=(1, 1.3))
        _trade(left, curve, points)
        _bars(right, costs)
        figure.tight_layout()
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)


def _trade(
    axes: Any, curve: Mapping[str, Sequence[Sequence[float]]], points: Mapping[str, tuple[float, float]]
) -> None:
    for name, colour, label in (("fixed", "#8b8f94", "fixed times"), ("auto", COLOURS["auto"], "auto, by price")):
        axes.plot([p[1] for p in curve[name]], [p[2] for p in curve[name]], ".-", color=colour, label=label)
    for name, (cold, waste) in points.items():
        axes.plot(cold, waste, "D", color=COLOURS.get(name, "#333333"), markersize=6)
        below = name == "clairvoyant"
        axes.annotate(name, (cold, waste), textcoords="offset points", xytext=(6, -12 if below else 5))
    axes.margins(x=0.12, y=0.08)
    axes.set(xscale="log", yscale="log", xlabel="answers that met a cold start (share of calls)")
    axes.set_ylabel("GB-s wasted, of what 10 minutes waste")
    axes.legend(loc="lower left")


def _bars(axes: Any, costs: Mapping[str, Mapping[str, float]]) -> None:
    names = list(LABELS)
    for index, (policy, colour) in enumerate(COLOURS.items()):
        at = [i + 0.2 * (index - 1.5) for i in range(len(names))]
        axes.bar(at, [costs[policy][name] for name in names], 0.2, color=colour, label=policy)
    axes.axhline(1.0, color="black", linewidth=0.8)
    axes.set(yscale="log", ylabel="cost, of what the clairvoyant policy costs")
    axes.set_xticks(range(len(names)), [LABELS[name] for name in names])
    axes.legend()
