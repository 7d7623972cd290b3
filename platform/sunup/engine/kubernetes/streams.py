"""The workers of a function's topic on a cluster: applied behind the revision whose bundle they score with, and kept
beside it, so that a roll back or a promotion brings the stream along."""

import json
import time
from typing import Any, Final

from sunup.engine.kubernetes.cluster.cluster import Cluster, Object
from sunup.engine.kubernetes.order import STREAM_KINDS
from sunup.engine.kubernetes.rollout.objects import COMPONENT, differences, of
from sunup.engine.kubernetes.rollout.reasons import condition
from sunup.errors import ClusterError, UsageError
from sunup.limits import PAUSE_SECONDS_MAX, ROLLOUT_LOOK_SECONDS

PAUSED: Final = "autoscaling.keda.sh/paused-replicas"  # with "0" KEDA ends every pod and starts none
PAUSING: Final = "sunup-pause"  # a field manager of its own: what is deployed later leaves the pause alone
_KEY: Final = "objects.json"
_BACKWARDS: Final = ("ScaledObject", "TriggerAuthentication", "Deployment")


def keep(cluster: Cluster, function: str, revision: str, stream: list[Object]) -> None:
    """Note which stream belongs to a revision."""
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": kept_name(revision), "labels": of(function)},
            "data": {_KEY: json.dumps(stream, sort_keys=True)},
        },
        force=True,
    )


def kept(cluster: Cluster, revision: str) -> list[Object] | None:
    """The stream of a revision, [] for one without; None where nothing was noted."""
    found = cluster.get("ConfigMap", kept_name(revision))
    if found is None:
        return None
    stream = list(json.loads(found["data"][_KEY]))
    check_kinds(stream)
    return stream


def kept_name(revision: str) -> str:
    """The ConfigMap that holds a revision's stream."""
    return f"{revision}-stream"


def changes(cluster: Cluster, function: str, stream: list[Object], *, force: bool) -> list[str]:
    """What applying this stream would change, a diff for each object."""
    found = [change(cluster, one, force=force) for one in stream]
    found += [differences(one, None) for one in _surplus(cluster, function, stream)]
    return [text for text in found if text]


def apply(cluster: Cluster, function: str, stream: list[Object], *, force: bool) -> None:
    """Make the function's stream this one; [] takes it away."""
    for one in stream:
        cluster.apply(one, force=force)
    for one in _surplus(cluster, function, stream):
        cluster.delete(one["kind"], one["metadata"]["name"])


def change(cluster: Cluster, wanted: Object, *, force: bool, judged: bool = True) -> str:
    """What applying one object would change, as the API itself says, webhooks included: a diff, "" for nothing. Not
    `judged`: the API is not asked.

    Raises ClusterError where the cluster would refuse it.
    """
    live = cluster.get(wanted["kind"], wanted["metadata"]["name"])
    return differences(live, cluster.apply(wanted, dry_run=True, force=force) if judged else wanted)


def pause(cluster: Cluster, function: str, *, paused: bool) -> dict[str, Any]:
    """Have KEDA end every worker, and wait until none is left; or have it end none any more. Raises UsageError for a
    function without a stream, ClusterError where KEDA or a worker does not do it in time."""
    found = cluster.select("ScaledObject", of(function))
    if not found:
        raise UsageError(f"{function} reads no topic in namespace {cluster.namespace}, so there is nothing to pause.")
    name = found[0]["metadata"]["name"]
    cluster.annotate("ScaledObject", name, {PAUSED: "0" if paused else None}, PAUSING)
    if paused:
        _until_none_reads(cluster, function, name)
    return {"function": function, "paused": "all" if paused else [], "workers": 0}


def _until_none_reads(cluster: Cluster, function: str, name: str) -> None:
    """A worker that was told to end reads until it has; KEDA makes none any more from when it says Paused."""
    until = time.monotonic() + PAUSE_SECONDS_MAX
    while True:
        held = condition(cluster.get("ScaledObject", name), "Paused").get("status") == "True"
        left = [one["metadata"]["name"] for one in cluster.select("Pod", of_stream(function))]
        if held and not left:
            return
        if time.monotonic() > until:
            still = f"there is still {', '.join(left[:5])}" if held else "KEDA has not seen it"
            raise ClusterError(
                f"{function} is marked as paused, but after {PAUSE_SECONDS_MAX:.0f} s {still}. The mark stays. "
                "`platform status` says when nobody reads any more; `kubectl describe scaledobject` and the log of "
                "KEDA's operator say why it takes so long."
            )
        time.sleep(ROLLOUT_LOOK_SECONDS)  # the period of looking


def of_stream(function: str) -> dict[str, str]:
    """The labels of a function's stream: what Knative makes has the others."""
    return {**of(function), COMPONENT: "stream"}


def is_paused(scaled: Object) -> bool:
    """Whether somebody has paused it."""
    return PAUSED in scaled["metadata"].get("annotations", {})


def _surplus(cluster: Cluster, function: str, stream: list[Object]) -> list[Object]:
    """What there is of a stream that is not among these objects, in the order to delete it."""
    wanted = {(one["kind"], one["metadata"]["name"]) for one in stream}
    found = [one for kind in _BACKWARDS for one in cluster.select(kind, of_stream(function))]
    return [one for one in found if (one["kind"], one["metadata"]["name"]) not in wanted]


def check_kinds(stream: list[Object]) -> None:
    """Refuse a note that holds anything but a stream: it is applied with the deployer's rights."""
    strange = [one["kind"] for one in stream if one.get("kind") not in STREAM_KINDS]
    if strange:
        raise ClusterError(
            f"What was noted of the stream holds a {strange[0]}, which is none of its objects. Deploy it again."
        )
