"""How the facts about functions on a cluster are laid out for a person."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from sunup.cli.terminal import table, when

if TYPE_CHECKING:
    from rich.table import Table

_COLUMNS: Final = ("function", "rev ", "model", "state", "pods ", "traffic", "url")
_STREAMS: Final = ("stream of", "topic", "group", "broker", "state", "workers ", "lag ")

Parts = list["str | Table"]


def cluster_overview(facts: Mapping[str, Any], *, fold: bool = True, rows_max: int | None = None) -> Parts:
    """The cluster and its functions."""
    engine, functions = facts["engine"], facts["functions"][:rows_max]
    title = f"{engine['context']}   namespace {engine['namespace']}   Kubernetes {engine['kubernetes']}"
    parts: Parts = [title, "", table(_COLUMNS, [_row(one) for one in functions], fold=fold)]
    if len(functions) < len(facts["functions"]):
        parts.append(f"and {len(facts['functions']) - len(functions):,} more")
    if rows := stream_rows(functions):
        parts += ["", table(_STREAMS, rows, fold=fold)]
    parts += [f"{one['name']}: {one['reason']}" for one in functions if one.get("reason")]
    return parts + stream_reasons(functions)


def cluster_detail(one: Mapping[str, Any], *, fold: bool = True) -> Parts:
    """More of one function: its pods and revisions."""
    pods = [
        [w["id"], w["role"], str(w["revision"] or ""), w["state"], str(w["restarts"]), w["node"]]
        for w in one["workers"]
    ]
    shares = {share["revision"]: f"{share['percent']} %" for share in one["traffic"]}
    revisions = [
        [str(r["revision"]), r["model"], r["digest"][:12], when(r["at"]), shares.get(r["revision"], ""), _ready(r)]
        for r in reversed(one["revisions"])
    ]
    parts: Parts = ["", table(["pod", "role", "rev ", "state", "restarts ", "node"], pods, fold=fold), ""]
    return [*parts, table(["revision ", "model", "bundle", "deployed", "calls ", ""], revisions, fold=fold)]


def stream_table(functions: Sequence[Mapping[str, Any]]) -> "Table":
    """The streams among functions."""
    return table(_STREAMS, stream_rows(functions))


def stream_rows(functions: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """A row for each function with a stream."""
    return [_stream_row(one["name"], one["stream"]) for one in functions if "stream" in one]


def stream_reasons(functions: Sequence[Mapping[str, Any]]) -> list[str]:
    """Why streams are not well, a line each."""
    return [f"{one['name']}: {one['stream']['reason']}" for one in functions if "reason" in one.get("stream", {})]


def _row(one: Mapping[str, Any]) -> list[str]:
    states = Counter(worker["state"] for worker in one["workers"] if worker["role"] == "calls")
    pods = str(sum(states.values())) if len(states) < 2 else ", ".join(f"{n} {name}" for name, n in states.items())
    shares = ", ".join(f"{share['percent']} % rev {share['revision']}" for share in one["traffic"] if share["percent"])
    return [one["name"], str(one["revision"]), one["model"], one["state"], pods, shares, one["url"]]


def _stream_row(name: str, facts: Mapping[str, Any]) -> list[str]:
    lag = "-" if facts["lag"] is None else f"{facts['lag']:,}"
    workers = f"{facts['workers']} of {facts['max_workers']}"
    return [name, facts["input"], facts["group"], facts["broker"], facts["state"], workers, lag]


def _ready(revision: Mapping[str, Any]) -> str:
    return "" if revision["ready"] else "never ready"
