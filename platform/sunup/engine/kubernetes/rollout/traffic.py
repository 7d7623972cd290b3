"""Who gets which share of a function's calls: what a Service says, and what it is to say next. Pure.

Revisions are always named. "The latest ready one", Knative's own default, would move calls by itself as soon as
anything gets ready: also what was given up, and what somebody else deploys meanwhile.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from sunup.errors import UsageError
from sunup.limits import CLUSTER_REVISIONS_KEPT

Object = Mapping[str, Any]
Traffic = list[dict[str, Any]]

SERVED: Final = "sunup.dev/served"  # annotation: revisions that had all calls, the latest one last
STABLE: Final = "stable"
CANARY: Final = "canary"
_GENERATION: Final = "serving.knative.dev/configurationGeneration"


class Share(NamedTuple):
    """One entry of a Service's traffic. `percent`: of calls; `tag`: the name it can be called by alone, or ""."""

    revision: str
    percent: int
    tag: str


def shares(service: Object | None) -> list[Share]:
    """Who gets calls, by name, as was asked for last; nobody while no revision was ever ready."""
    if service is None:
        return []
    ready = service.get("status", {}).get("latestReadyRevisionName", "")
    wanted = service.get("spec", {}).get("traffic") or [{"latestRevision": True, "percent": 100}]
    named = [Share(one.get("revisionName") or ready, one.get("percent") or 0, one.get("tag") or "") for one in wanted]
    return [one for one in named if one.revision]


def stable(service: Object | None) -> str:
    """The revision that gets most calls, during a canary the one it is compared with; "" for none."""
    now = [one for one in shares(service) if one.percent]
    tagged = [one for one in now if one.tag == STABLE]
    return max(tagged or now, key=lambda one: one.percent).revision if now else ""


def canary(service: Object | None) -> Share | None:
    """The share of the revision that is tried, if one is."""
    return next((one for one in shares(service) if one.tag == CANARY and one.percent), None)


def held(service: Object | None) -> Traffic:
    """The traffic while a new revision gets ready: as it is, by name. Where nobody serves, the first one ready."""
    now = shares(service)
    if not any(one.percent for one in now):
        return [{"latestRevision": True, "percent": 100}]
    return [_entry(*one) for one in now]


def steady(revision: str) -> Traffic:
    """All calls to one revision."""
    return [_entry(revision, 100, "")]


def split(service: Object | None, revision: str, percent: int) -> Traffic:
    """`percent` of calls (1 to 99) to a revision, the others to the one that serves; each has a URL of its own, too.

    Raises UsageError where no other revision serves.
    """
    serving = stable(service)
    if not serving or serving == revision:
        said = f"revision {number(revision)} serves already" if serving else "nothing of it serves yet"
        raise UsageError(f"--canary shares calls with the revision before, and {said}. Deploy without it.")
    return [_entry(serving, 100 - percent, STABLE), _entry(revision, percent, CANARY)]


def is_as(service: Object | None, wanted: Traffic) -> bool:
    """Whether the Service asks for just this."""
    found = (service or {}).get("spec", {}).get("traffic") or []
    return sorted(map(_key, found)) == sorted(map(_key, wanted))


def in_effect(service: Object, wanted: Traffic) -> bool:
    """Whether the gateway was told of it: Knative's status says so of the generation asked for last."""
    status = service.get("status", {})
    if status.get("observedGeneration") != service["metadata"].get("generation"):
        return False
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", ()))
    routed = any(c["type"] == "RoutesReady" and c["status"] == "True" for c in status.get("conditions", ()))
    there = {
        (one.get("revisionName"), one.get("percent") or 0, one.get("tag") or "") for one in status.get("traffic", ())
    }
    asked = {(one["revisionName"], one["percent"], one.get("tag", "")) for one in wanted if "revisionName" in one}
    return (ready or routed) and asked <= there


def served(service: Object | None) -> list[str]:
    """The revisions that had all calls, the latest one last, as far as is remembered."""
    return str((service or {}).get("metadata", {}).get("annotations", {}).get(SERVED, "")).split()


def serves(service: Object | None, revision: str) -> str:
    """What is remembered when a revision gets all calls: behind the one that had them, nothing that was rolled back."""
    history, now = served(service), stable(service)
    if revision in history:
        return " ".join(history)  # back, or forth again
    kept = history[: history.index(now) + 1] if now in history else [*history, *([now] if now else [])]
    return " ".join([*kept, revision][-CLUSTER_REVISIONS_KEPT:])


def before(service: Object, revisions: Sequence[Object], wanted: int | None) -> str:
    """The revision to roll back to: number `wanted`, else the stable one of a canary, else the one that had all calls
    before. Raises UsageError when there is none."""
    name = service["metadata"]["name"]
    able = sorted((one for one in revisions if was_ready(one)), key=generation)
    if wanted is not None:
        found = [one["metadata"]["name"] for one in able if number(one["metadata"]["name"]) == wanted]
        if not found:
            known = ", ".join(str(number(one["metadata"]["name"])) for one in able) or "none"
            raise UsageError(f"{name} has no revision {wanted} that was ever ready. There are: {known}.")
        return str(found[0])
    serving = stable(service)
    if canary(service) is not None:
        return serving
    history, there = served(service), {one["metadata"]["name"] for one in able}
    older = [one for one in history[: history.index(serving) if serving in history else None] if one in there]
    if not older:
        raise UsageError(
            f"{name} has no revision before the one that serves ({number(serving)}). Deploy another version."
        )
    return older[-1]


def was_ready(revision: Object) -> bool:
    """Whether it got ready; one that is at zero says so, too."""
    conditions = revision.get("status", {}).get("conditions", ())
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def generation(revision: Object) -> int:
    """How many templates its function had when it was made: the order of revisions."""
    return int(revision["metadata"].get("labels", {}).get(_GENERATION, "0"))


def number(revision: str) -> int:
    """What people call a revision: 7 for fraud-00007."""
    found = re.search(r"(\d+)$", revision)
    return int(found[1]) if found else 0


def _entry(revision: str, percent: int, tag: str) -> dict[str, Any]:
    return {"revisionName": revision, "percent": percent, **({"tag": tag} if tag else {})}


def _key(entry: Mapping[str, Any]) -> tuple[str, bool, int, str]:
    name, latest = entry.get("revisionName") or "", bool(entry.get("latestRevision"))
    return name, latest and not name, entry.get("percent") or 0, entry.get("tag") or ""
