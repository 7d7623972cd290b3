"""policy: when to end an idle worker, simulated over two weeks of calls shaped like the Azure Functions trace of 2019.

    python -m tests.bench policy [--functions 600] [--seeds 5] [--cold-ms MS --worker-mb MB]

What a cold start and an idle worker cost is measured first, on a real engine, unless it is given. The learning policy
is the product's own code. Ratios are per seed. A slow answer is one that took more than 0.1 s; the share of cold starts
that do is measured too, and a policy that makes more of them than the other does not hold the goal, whatever it saves.
"""

import argparse
import math
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from tests.bench import harness
from tests.bench.policy.measure import measure
from tests.bench.policy.plot import draw
from tests.bench.policy.simulate import Prices, Spent, clairvoyant, fixed, learned
from tests.bench.policy.trace import SHARES, Called, functions

from sunup.limits import IDLE_TO_ZERO_SECONDS_DEFAULT, SLOW_START_SECONDS

PACKAGES = ("msgspec", "numpy", "onnxruntime")
PACES: Final = ("hourly", "minutely", "often")
CLASSES: Final = (*SHARES, *PACES)
SLOW_MODEL: Final = Prices(0.5, 200e6)  # for the table of slow models; no goal
SWEEP: Final = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 1000.0)  # a cold start's price, times what was measured

Policy = Callable[[Called], Spent]
Totals = dict[tuple[str, str], Spent]  # by policy and class; "all" is the mix


def main() -> int:
    parser = argparse.ArgumentParser(description="when to end an idle worker, simulated")
    parser.add_argument("--functions", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--starts", type=int, default=30, help="cold starts measured")
    parser.add_argument("--cold-ms", type=float, help="CPU of a cold start, instead of measuring it")
    parser.add_argument("--worker-mb", type=float, default=25.0, help="memory of a worker, with --cold-ms")
    parser.add_argument("--no-plot", action="store_true", help="leave the plot in the docs as it is")
    options = parser.parse_args()
    if options.cold_ms is None:
        cpu, held, took = measure(options.starts)
    else:
        cpu, held, took = options.cold_ms / 1e3, options.worker_mb * 1e6, [options.cold_ms / 1e3]
    prices, slow = Prices(cpu, held), sum(seconds > SLOW_START_SECONDS for seconds in took) / len(took)
    print(
        f"a cold start: {1e3 * cpu:.1f} ms of CPU, {1e3 * statistics.median(took):.1f} ms to the answer (median), "
        f"{slow:.1%} slow; a worker: {held / 1e6:.1f} MB; break-even: {prices.break_even:.1f} s"
    )
    traces = [list(functions(seed, options.functions)) for seed in range(options.seeds)]
    shape = _shape([one for trace in traces for one in trace])
    print(", ".join(f"{name} {value:.3f}" for name, value in shape.items()))
    rounds = [_totals(trace, _policies(prices)) for trace in traces]
    _print_table(rounds, prices)
    report = harness.Report("policy", goals=_goals(rounds, prices, slow))
    report.facts = {
        "cold_cpu_seconds": cpu,
        "cold_answer_seconds": took,
        "slow_share_of_cold": slow,
        "worker_bytes": held,
        "break_even_seconds": prices.break_even,
        "trace": shape,
        "slow_model": _slow_model(traces[0]),
    }
    report.rounds = {"totals": [_plain(totals, prices) for totals in rounds]}
    curve = _sweep(traces[0], prices)
    report.facts["price_of_a_cold_start"] = curve
    _print_equal_cold(curve, rounds[0], prices)
    if not options.no_plot:
        draw(
            harness.ROOT / "platform" / "docs" / "policy.svg", curve, _costs(rounds, prices), _points(rounds[0], prices)
        )
    return report.finish(PACKAGES)


def _policies(prices: Prices) -> Mapping[str, Policy]:
    return {
        "10 minutes": lambda one: fixed(one.gaps, 600.0),
        "Knative 60 s + 30 s": lambda one: fixed(one.gaps, 90.0),
        "declared 30 s": lambda one: fixed(one.gaps, IDLE_TO_ZERO_SECONDS_DEFAULT),
        "break-even": lambda one: fixed(one.gaps, prices.break_even),
        "auto": lambda one: learned(one.times, prices),
        "clairvoyant": lambda one: clairvoyant(one.gaps, prices),
    }


def _totals(trace: Sequence[Called], policies: Mapping[str, Policy]) -> Totals:
    totals: Totals = {}
    for one in trace:
        for name, policy in policies.items():
            spent = policy(one)
            for of in ("all", one.kind, one.pace):
                totals.setdefault((name, of), Spent()).add(spent, one.weight)
    return totals


def _goals(rounds: Sequence[Totals], prices: Prices, slow: float) -> list[harness.Goal]:
    def waste(name: str, of: str = "all") -> list[float]:
        return [t[name, of].waste(prices) for t in rounds]

    def against(id: str, goal: float, other: str) -> harness.Goal:
        """At an equal share of slow answers, or a better one: else nothing that was saved counts."""
        ours = [
            w
            if slow * t["auto", "all"].cold <= max(slow * t[other, "all"].cold, 1e-9 * t["auto", "all"].calls)
            else math.inf
            for w, t in zip(waste("auto"), rounds, strict=True)
        ]
        return harness.ratio_goal(id, goal, ours, waste(other), least=False)

    best = [t["clairvoyant", "all"].cost(prices) for t in rounds]
    ours = [t["auto", "all"].cost(prices) for t in rounds]
    worst = [max(t["auto", c].cost(prices) / t["clairvoyant", c].cost(prices) for c in CLASSES) for t in rounds]
    return [
        against("policy-10-minutes", 1 / 20, "10 minutes"),
        against("policy-knative", 1 / 5, "Knative 60 s + 30 s"),
        harness.ratio_goal("policy-clairvoyant", 1.5, ours, best, least=False),
        harness.ratio_goal("policy-clairvoyant-class", 2.0, worst, [1.0] * len(worst), least=False),
    ]


def _print_table(rounds: Sequence[Totals], prices: Prices) -> None:
    names = list(dict.fromkeys(name for name, _ in rounds[0]))
    print(
        f"\n{'median of the seeds':24}{'GB-s wasted':>12}{'of 10 min':>11}{'cold answers':>14}   cost / clairvoyant's"
    )
    print(f"{'':61}   {'mix':>7}" + "".join(f"{c:>10}" for c in CLASSES))
    for name in names:
        waste = statistics.median(t[name, "all"].waste(prices) for t in rounds)
        share = statistics.median(t[name, "all"].waste(prices) / t["10 minutes", "all"].waste(prices) for t in rounds)
        cold = statistics.median(t[name, "all"].cold / t[name, "all"].calls for t in rounds)
        costs = _costs(rounds, prices)[name]
        print(
            f"{name:24}{waste:12,.0f}{share:11.4f}{cold:14.5f}   {costs['all']:7.2f}"
            + "".join(f"{costs[c]:10.2f}" for c in CLASSES)
        )
    for pace in PACES:
        part = [t["auto", pace].waste(prices) / t["10 minutes", pace].waste(prices) for t in rounds]
        best = [t["clairvoyant", pace].waste(prices) / t["10 minutes", pace].waste(prices) for t in rounds]
        print(
            f"functions called {pace}: auto wastes {statistics.median(part):.4f} of 10 minutes, the clairvoyant policy "
            f"{statistics.median(best):.4f}"
        )


def _costs(rounds: Sequence[Totals], prices: Prices) -> dict[str, dict[str, float]]:
    """By policy and class: what it costs, as a multiple of the clairvoyant policy."""
    costs: dict[str, dict[str, float]] = {}
    for name, of in rounds[0]:
        ratios = [t[name, of].cost(prices) / t["clairvoyant", of].cost(prices) for t in rounds]
        costs.setdefault(name, {})[of] = statistics.median(ratios)
    return costs


def _points(totals: Totals, prices: Prices) -> dict[str, tuple[float, float]]:
    """By policy: the share of cold answers, and the waste as a share of what 10 minutes waste."""
    ten = totals["10 minutes", "all"].waste(prices)
    return {name: (s.cold / s.calls, s.waste(prices) / ten) for (name, of), s in totals.items() if of == "all"}


def _sweep(trace: Sequence[Called], prices: Prices) -> dict[str, list[list[float]]]:
    """(what was varied, share of cold answers, waste as a share of what 10 minutes waste) of "auto", deciding by other
    prices of a cold start, and of fixed times."""
    ten = _totals(trace, {"": lambda one: fixed(one.gaps, 600.0)})["", "all"].waste(prices)
    curve: dict[str, list[list[float]]] = {"auto": [], "fixed": []}
    for times in SWEEP:
        other = Prices(times * prices.cold_seconds, prices.worker_bytes)
        spent = _totals(trace, {"": lambda one, other=other: learned(one.times, other)})["", "all"]  # type: ignore[misc]
        curve["auto"].append([times, spent.cold / spent.calls, spent.waste(prices) / ten])
    for keep in (0.5, 1.0, 3.0, 10.0, 30.0, 90.0, 300.0, 600.0):
        spent = _totals(trace, {"": lambda one, keep=keep: fixed(one.gaps, keep)})["", "all"]  # type: ignore[misc]
        curve["fixed"].append([keep, spent.cold / spent.calls, spent.waste(prices) / ten])
    return curve


def _print_equal_cold(curve: Mapping[str, Sequence[Sequence[float]]], totals: Totals, prices: Prices) -> None:
    """Were every cold answer a slow one: what "auto" wastes where a cold start is priced so that it makes as few."""
    by_cold = sorted((cold, waste) for _, cold, waste in curve["auto"])
    for other in ("10 minutes", "Knative 60 s + 30 s"):
        cold, waste = _points(totals, prices)[other]
        if cold < by_cold[0][0]:
            print(f"auto makes more cold answers than {other} ({cold:.5f}) at any price up to {SWEEP[-1]:g} times")
            continue
        logs = np.interp(math.log(cold), *np.log(by_cold).T)
        print(f"with as many cold answers as {other} ({cold:.5f}), auto wastes {math.exp(logs) / waste:.2f} of that")


def _slow_model(trace: Sequence[Called]) -> dict[str, Any]:
    """A model of half a second and 200 MB: its cold answers are slow, so timers are met early."""
    totals = _totals(trace, _policies(SLOW_MODEL))
    print(f"\na model that starts in {SLOW_MODEL.cold_seconds} s and holds {SLOW_MODEL.worker_bytes / 1e6:.0f} MB:")
    for name in ("10 minutes", "Knative 60 s + 30 s", "auto", "clairvoyant"):
        timer, mix = totals[name, "timer"], totals[name, "all"]
        cost = mix.cost(SLOW_MODEL) / totals["clairvoyant", "all"].cost(SLOW_MODEL)
        cold, timers = mix.cold / mix.calls, timer.cold / timer.calls
        print(f"{name:24}cost {cost:6.2f}   cold answers {cold:.5f}   of timers {timers:.5f}")
    return {"totals": _plain(totals, SLOW_MODEL)}


def _plain(totals: Totals, prices: Prices) -> dict[str, dict[str, dict[str, float]]]:
    plain: dict[str, dict[str, dict[str, float]]] = {}
    for (name, of), s in totals.items():
        figures = {"waste_gb_s": s.waste(prices), "cost_gb_s": s.cost(prices), "starts": s.starts, "cold": s.cold}
        plain.setdefault(of, {})[name] = {key: round(value, 1) for key, value in {**figures, "calls": s.calls}.items()}
    return plain


def _shape(trace: Sequence[Called]) -> dict[str, float]:
    """The trace's figures that have published counterparts."""
    total = sum(one.per_day for one in trace)
    uneven = [one.gaps.std() / one.gaps.mean() for one in trace if len(one.gaps) > 10]
    return {
        "hourly or less": sum(one.per_day <= 24 for one in trace) / len(trace),
        "minutely or less": sum(one.per_day <= 1440 for one in trace) / len(trace),
        "every second or more": sum(one.per_day >= 86_400 for one in trace) / len(trace),
        "calls to those above minutely": sum(one.per_day for one in trace if one.per_day > 1440) / total,
        "decades of rates": math.log10(max(one.per_day for one in trace) / min(one.per_day for one in trace)),
        "CV above 1": sum(cv > 1 for cv in uneven) / len(uneven),
    }


if __name__ == "__main__":
    sys.exit(main())
