"""What a function no longer needs on a cluster, and taking a function away."""

import time
from datetime import UTC, datetime
from typing import Any, Final

from sunup.engine.kubernetes.cluster.cluster import Cluster, Object
from sunup.engine.kubernetes.deploying.turn import SERVICE
from sunup.engine.kubernetes.rollout.objects import FUNCTION, of, outdated, secrets_in
from sunup.engine.kubernetes.rollout.traffic import shares
from sunup.engine.kubernetes.streams import kept_name, of_stream
from sunup.errors import ClusterError, UsageError
from sunup.limits import CLUSTER_REVISIONS_KEPT, REMOVE_SECONDS_MAX, ROLLOUT_LOOK_SECONDS, ROLLOUT_SECONDS_MAX

# In this order: what scales before what is scaled.
_REMOVED: Final = ("ScaledObject", "TriggerAuthentication", "Deployment", SERVICE, "ConfigMap", "Secret")


def tidy(cluster: Cluster, function: str, service: Object) -> None:
    """Delete revisions beyond the newest CLUSTER_REVISIONS_KEPT that get no calls, and Secrets that no revision
    uses."""
    revisions = cluster.select("Revision", of(function))
    status = service.get("status", {})
    keep = {one.revision for one in shares(service)}
    keep |= {status.get("latestCreatedRevisionName", ""), status.get("latestReadyRevisionName", "")}
    gone = set(outdated(revisions, keep, CLUSTER_REVISIONS_KEPT))
    for name in gone:
        cluster.delete("Revision", name)
    left = [one for one in revisions if one["metadata"]["name"] not in gone]
    noted = {kept_name(one["metadata"]["name"]) for one in left}
    maps = cluster.select("ConfigMap", of(function))
    for one in maps:
        if one["metadata"]["name"] not in noted:
            cluster.delete("ConfigMap", one["metadata"]["name"])
    _tidy_secrets(cluster, function, [service, *left], [one for one in maps if one["metadata"]["name"] in noted])


def remove(cluster: Cluster, function: str) -> dict[str, Any]:
    """Delete all of a function's objects, and wait until its pods are gone. Raises UsageError for an unknown one."""
    began = time.monotonic()
    found = [(kind, one) for kind in _REMOVED for one in _ours(cluster, kind, function)]
    if not found:
        raise unknown(cluster, function)
    for kind, one in found:
        cluster.delete(kind, one["metadata"]["name"])
    until = began + REMOVE_SECONDS_MAX
    while left := _left(cluster, function):
        if time.monotonic() > until:
            raise ClusterError(
                f"{function} is deleted, but after {REMOVE_SECONDS_MAX:.0f} s there is still {', '.join(left[:5])}. "
                "The cluster goes on with it; `kubectl describe` says what holds it."
            )
        time.sleep(ROLLOUT_LOOK_SECONDS)  # the period of looking
    deleted = [f"{kind} {one['metadata']['name']}" for kind, one in found]
    return {"function": function, "removed": deleted, "seconds": round(time.monotonic() - began, 4)}


def unknown(cluster: Cluster, function: str) -> UsageError:
    """The error for a function that is not there."""
    there = sorted({one["metadata"]["labels"].get(FUNCTION, "") for one in cluster.select(SERVICE, of())})
    said = f"There are: {', '.join(there)}." if there else "None is."
    return UsageError(f"No function {function!r} is deployed in namespace {cluster.namespace}. {said}")


def _left(cluster: Cluster, function: str) -> list[str]:
    kinds = (*_REMOVED, "Pod")
    return [f"{kind} {one['metadata']['name']}" for kind in kinds for one in _ours(cluster, kind, function)]


def _ours(cluster: Cluster, kind: str, function: str) -> list[Object]:
    """What Sunup made; what Knative made of it goes with it."""
    return cluster.select(kind, of_stream(function) if kind == "Deployment" else of(function))


def _tidy_secrets(cluster: Cluster, function: str, users: list[Object], maps: list[Object]) -> None:
    """Delete unused ones that are old: a young one may belong to a deploy that is only now about to use it."""
    stream = cluster.select("Deployment", of(function))
    used = secrets_in(*users, *stream, *cluster.select("TriggerAuthentication", of(function)))
    noted = " ".join(str(one.get("data", {})) for one in maps)
    for one in cluster.select("Secret", of(function)):
        name = one["metadata"]["name"]
        made = datetime.fromisoformat(one["metadata"]["creationTimestamp"])
        old = (datetime.now(UTC) - made).total_seconds() > ROLLOUT_SECONDS_MAX
        if old and name not in used and name not in noted:
            cluster.delete("Secret", name)
