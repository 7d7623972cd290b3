"""What a rollout waits for, and the real reason why it does not get further. Pure: of recorded objects.

Knative says of a revision what its pods say, late and shortened; so pods come first, then who makes pods, then Knative
and KEDA themselves. Conditions are knative.dev/pkg/apis' (Ready, ContainerHealthy, RoutesReady, ...).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sunup.engine.kubernetes.rollout.pods import NEVER, Reason, is_leaving, is_ready, trouble
from sunup.limits import ROLLOUT_STUCK_SECONDS

Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Observed:
    """What was read at one moment. `service`: Knative's; `revision`: the one that is rolled out; `deployment`: what
    makes its pods, or the stream's; `pods`: all of it; `events`: of these objects, oldest first; `logs`: last lines by
    pod."""

    service: Object | None = None
    revision: Object | None = None
    deployment: Object | None = None
    pods: Sequence[Object] = ()
    events: Sequence[Object] = ()
    logs: Mapping[str, Sequence[str]] = field(default_factory=dict)
    scaled: Object | None = None


def explain(seen: Observed) -> Reason | None:
    """The reason why it is not ready, the deepest one there is; None while nothing is wrong.

    What may pass whenever it likes stands behind what is given up some time: a worker that does not get ready because
    KEDA and it reach no broker. Of pods in trouble Knative only repeats what they say.
    """
    pods = [one for one in _pods(seen) if one is not None]
    above = [] if pods else [_revision(seen.revision), _service(seen.service)]
    reasons = [one for one in (*pods, _made(seen), *above, _scaled(seen.scaled)) if one is not None]
    return min(reasons, key=lambda one: one.patience_s == NEVER, default=None)


def waits_for(seen: Observed) -> str:
    """A few words on what it waits for now."""
    if seen.service is not None and seen.revision is None:
        return "Knative to make the revision"
    living = [pod for pod in seen.pods if not is_leaving(pod)]
    if not living and seen.scaled is None:
        return "a pod"
    starting = next((pod for pod in living if not is_ready(pod)), None)
    if starting is not None:
        return _starting(starting)
    return "the gateway" if seen.scaled is None or ready(seen.scaled) else "KEDA"


def _starting(pod: Object) -> str:
    status = pod.get("status", {})
    if not any(c["type"] == "PodScheduled" and c["status"] == "True" for c in status.get("conditions", ())):
        return "a node"
    if any("running" in one.get("state", {}) for one in status.get("containerStatuses", ())):
        return "the model to be loaded and proven"
    return "images and the container"


def _pods(seen: Observed) -> list[Reason | None]:
    found = []
    for pod in seen.pods:
        if not is_leaving(pod) and not is_ready(pod):
            name = pod["metadata"]["name"]
            about = [one for one in seen.events if one.get("involvedObject", {}).get("name") == name]
            found.append(trouble(pod, about, seen.logs.get(name, ())))
    return found


def condition(made: Object | None, kind: str) -> Object:
    """The condition of an object's status, or {}."""
    conditions = (made or {}).get("status", {}).get("conditions", ())
    return next((one for one in conditions if one["type"] == kind), {})


def ready(made: Object | None) -> bool:
    """Whether it is Ready, and says so of what was asked last."""
    seen = (made or {}).get("status", {}).get("observedGeneration")
    wanted = (made or {}).get("metadata", {}).get("generation")
    return condition(made, "Ready").get("status") == "True" and (seen is None or seen == wanted)


def _made(seen: Observed) -> Reason | None:
    """Why there is no pod: what makes them says it in a condition, else in an event."""
    failure = condition(seen.deployment, "ReplicaFailure")
    message = failure.get("message", "") if failure.get("status") == "True" else ""
    if not message:
        failed = [one for one in seen.events if one.get("reason") == "FailedCreate"]
        message = failed[-1].get("message", "") if failed and not seen.pods else ""
    if not message:
        return None
    if "exceeded quota" in message:
        what = message.partition("exceeded quota: ")[2]
        return Reason(
            "quota",
            f"the namespace's quota allows no pod of it: {what}. Ask for a larger ResourceQuota, or lower [kubernetes] "
            "cpu and memory",
            ROLLOUT_STUCK_SECONDS,
        )
    if "violates PodSecurity" in message:
        return Reason("pod_security", f"the namespace's pod security admission refuses its pods: {message}")
    if "serviceaccount" in message and "not found" in message:
        return Reason(
            "service_account", f"the ServiceAccount of its pods is not there: {message}", ROLLOUT_STUCK_SECONDS
        )
    if "limit" in message.lower() and "forbidden" in message:
        return Reason("limit_range", f"the namespace's LimitRange refuses its pods: {message}", ROLLOUT_STUCK_SECONDS)
    return Reason("no_pod", f"the cluster makes no pod of it: {message}", ROLLOUT_STUCK_SECONDS)


_KNATIVE: Final = {
    "ContainerMissing": "Knative cannot find its image",
    "ProgressDeadlineExceeded": "its pods did not get ready in the time Knative gives them",
    "HealthCheckFailed": "its container does not get healthy",
    "RevisionFailed": "its revision failed",
    "RevisionNameTaken": "the name of its revision is taken",
}


def _revision(revision: Object | None) -> Reason | None:
    for kind in ("ContainerHealthy", "ResourcesAvailable", "Ready"):
        found = condition(revision, kind)
        if found.get("status") == "False":
            why = found.get("reason", "")
            said = _KNATIVE.get(why, f"Knative says {why} of its revision")
            return Reason("revision", f"{said}: {found.get('message', '')}", 0.0 if why == "ContainerMissing" else 5.0)
    return None


def _service(service: Object | None) -> Reason | None:
    made = condition(service, "ConfigurationsReady")
    if made.get("status") == "False":
        why = made.get("reason", "")
        said = _KNATIVE.get(why, f"Knative says {why}")
        return Reason("configuration", f"{said}: {made.get('message', '')}", ROLLOUT_STUCK_SECONDS)
    routed = condition(service, "RoutesReady")
    if routed.get("status") == "False":
        return Reason(
            "route",
            f"its route cannot be made ({routed.get('reason')}): {routed.get('message')}",
            ROLLOUT_STUCK_SECONDS,
        )
    if routed.get("status") == "Unknown" and routed.get("reason") in ("IngressNotConfigured", "Uninitialized"):
        return Reason("ingress", "the cluster's gateway has not taken the route yet: look whether Kourier runs", NEVER)
    return None


def _scaled(scaled: Object | None) -> Reason | None:
    found = condition(scaled, "Ready")
    if found.get("status") == "False":
        return Reason(
            "scaled_object",
            f"KEDA cannot scale its stream ({found.get('reason')}): {found.get('message')}",
            ROLLOUT_STUCK_SECONDS,
        )
    return None
