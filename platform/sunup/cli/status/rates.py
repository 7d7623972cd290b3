"""What went on between two looks at counters that only grow."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sunup.link.counters import stage_quantile


class _Sample(NamedTuple):
    at: float
    requests: int
    latency: Sequence[float]


class Rates:
    """Requests per second, p50 and p99 since the look before, by function."""

    def __init__(self) -> None:
        self._before: dict[str, _Sample] = {}

    def __repr__(self) -> str:
        return f"Rates({', '.join(self._before)})"

    def since(self, facts: Mapping[str, Any], now: float) -> dict[str, Any]:
        """What the engine said, asked with latency=True, with these three figures of the time since the look before;
        at the first look they stay the engine's own. `now`: monotonic seconds."""
        functions = [self._of(one, now) for one in facts["functions"]]
        self._before = {
            one["name"]: _Sample(now, one["requests"], one["latency"]) for one in facts["functions"] if "latency" in one
        }
        return {**facts, "functions": functions}

    def _of(self, one: dict[str, Any], now: float) -> dict[str, Any]:
        shown = {name: value for name, value in one.items() if name != "latency"}
        before = self._before.get(one["name"])
        if before is None or "latency" not in one or now <= before.at:
            return shown
        # A function that was removed and deployed again counts from zero.
        calls = max(0, one["requests"] - before.requests)
        spent = [max(0.0, after - was) for after, was in zip(one["latency"], before.latency, strict=True)]
        return {
            **shown,
            "rps": round(calls / (now - before.at), 1),
            "p50_ms": stage_quantile(spent, 0.50),
            "p99_ms": stage_quantile(spent, 0.99),
        }
