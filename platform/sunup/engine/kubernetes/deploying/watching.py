"""Looking at a rollout until it is ready, or until it is clear that it will not be, and why."""

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from sunup.engine.kubernetes.cluster.cluster import Cluster, Object
from sunup.engine.kubernetes.deploying.turn import Turn
from sunup.engine.kubernetes.rollout.objects import made_of
from sunup.engine.kubernetes.rollout.pods import Reason, ended, is_leaving, is_ready, silent
from sunup.engine.kubernetes.rollout.reasons import Observed, explain, ready, waits_for
from sunup.engine.kubernetes.rollout.traffic import Traffic, in_effect, number, was_ready
from sunup.errors import ClusterError
from sunup.limits import (
    ROLLOUT_LOG_LINES,
    ROLLOUT_LOOK_SECONDS,
    ROLLOUT_ROUTE_SECONDS_MAX,
)

Tell = Callable[[str], None]  # is told what is waited for, whenever that is something else
_CODES_OF_TIME: Final = "not_ready_in_time"


class Patience:
    """How long which trouble has lasted, and the whole wait. `wait_s`: seconds it may take."""

    def __init__(self, wait_s: float) -> None:
        self._until = time.monotonic() + wait_s
        self._wait_s = wait_s
        self._since: tuple[str, float] = ("", 0.0)

    def judge(self, reason: Reason | None, waits: str, now: float) -> None:
        """Raise ClusterError with the reason when it has lasted too long. `now`: monotonic seconds."""
        code = "" if reason is None else reason.code
        if code != self._since[0]:
            self._since = code, now
        if reason is not None and now - self._since[1] >= reason.patience_s:
            raise failure(reason.code, reason.sentence)
        if now > self._until:
            if reason is not None:
                raise failure(reason.code, reason.sentence)
            raise failure(_CODES_OF_TIME, f"after {self._wait_s:.0f} s it still waits for {waits}")


class Watch:
    """`tell`: see above; `wait_s`: how long a revision may take to get ready."""

    def __init__(self, cluster: Cluster, function: str, tell: Tell, wait_s: float) -> None:
        self._cluster = cluster
        self._function = function
        self._tell = tell
        self._wait_s = wait_s

    def until_ready(self, turn: Turn, template: Object) -> Object:
        """The revision made of `template`, when it is ready. Raises ClusterError with the real reason."""
        patience, said = Patience(self._wait_s), ""
        while True:
            service = turn.look()
            revision = self.revision(service, template)
            if revision is not None and was_ready(revision):
                return revision
            seen = self._revision_seen(service, revision)
            waits = waits_for(seen)
            if waits != said:
                self._tell(waits)
                said = waits
            patience.judge(explain(seen), waits, time.monotonic())
            time.sleep(ROLLOUT_LOOK_SECONDS)  # the period of looking

    def until_routed(self, turn: Turn, traffic: Traffic) -> Object:
        """The Service, when the gateway sends calls where `traffic` says."""
        patience = Patience(ROLLOUT_ROUTE_SECONDS_MAX)
        self._tell("the gateway")
        while True:
            service = turn.look()
            if in_effect(service, traffic):
                return service
            seen = Observed(service=service)
            reason = explain(seen)
            routes = reason if reason is not None and reason.code in ("route", "ingress") else None
            patience.judge(routes, "the gateway to take the route", time.monotonic())
            time.sleep(ROLLOUT_LOOK_SECONDS)  # as above

    def until_scaled(self, name: str) -> None:
        """Return when KEDA scales the stream and none of its pods is in trouble."""
        patience = Patience(self._wait_s)
        self._tell("KEDA")
        while True:
            seen = self._stream_seen(name)
            living = [pod for pod in seen.pods if not is_leaving(pod)]
            if ready(seen.scaled) and all(map(is_ready, living)) and _rolled_out(seen.deployment):
                return
            patience.judge(explain(seen), waits_for(seen), time.monotonic())
            time.sleep(ROLLOUT_LOOK_SECONDS)  # as above

    def revision(self, service: Object, template: Object) -> Object | None:
        """The revision Knative has made of `template`, or None while it has not."""
        name = service.get("status", {}).get("latestCreatedRevisionName")
        if not name or service["status"].get("observedGeneration") != service["metadata"]["generation"]:
            return None
        found = self._cluster.get("Revision", name)
        return found if found is not None and made_of(found, template) else None

    def _revision_seen(self, service: Object, revision: Object | None) -> Observed:
        if revision is None:
            return Observed(service=service)
        name = revision["metadata"]["name"]
        pods = self._cluster.select("Pod", {"serving.knative.dev/revision": name})
        deployment = self._cluster.get("Deployment", f"{name}-deployment")
        return self._seen(name, pods, Observed(service=service, revision=revision, deployment=deployment))

    def _stream_seen(self, name: str) -> Observed:
        deployment = self._cluster.get("Deployment", name)
        labels = (deployment or {}).get("spec", {}).get("selector", {}).get("matchLabels")
        pods = self._cluster.select("Pod", labels) if labels else []
        return self._seen(name, pods, Observed(deployment=deployment, scaled=self._cluster.get("ScaledObject", name)))

    def _seen(self, prefix: str, pods: list[Object], seen: Observed) -> Observed:
        """With events and last words, where not all is well."""
        living = [pod for pod in pods if not is_leaving(pod)]
        if living and all(map(is_ready, living)):
            return Observed(seen.service, seen.revision, seen.deployment, pods, scaled=seen.scaled)
        warnings = self._cluster.select("Event", fields="type=Warning")
        about = [one for one in warnings if one.get("involvedObject", {}).get("name", "").startswith(prefix)]
        about.sort(key=lambda one: one.get("lastTimestamp") or one.get("eventTime") or "")
        unhealthy = {one["involvedObject"]["name"] for one in about if one.get("reason") == "Unhealthy"}
        logs = {name: self._last_words(pod, name in unhealthy) for pod in living if (name := pod["metadata"]["name"])}
        return Observed(seen.service, seen.revision, seen.deployment, pods, about, logs, seen.scaled)

    def _last_words(self, pod: Object, unhealthy: bool) -> list[str]:
        container, before = ended(pod) or (silent(pod) if unhealthy else "", False)
        if not container:
            return []
        name = pod["metadata"]["name"]
        return list(self._cluster.logs(name, container, lines=ROLLOUT_LOG_LINES, previous=before))


def failure(code: str, sentence: str) -> ClusterError:
    """Why a rollout is given up."""
    error = ClusterError(sentence)
    error.code = code
    return error


def title(revision: Object) -> str:
    """A revision as sentences name it."""
    return f"revision {number(revision['metadata']['name'])}"


def _rolled_out(deployment: Mapping[str, Any] | None) -> bool:
    """Whether what makes a stream's pods has taken the newest template."""
    status = (deployment or {}).get("status", {})
    wanted = (deployment or {}).get("metadata", {}).get("generation")
    if status.get("observedGeneration") != wanted:
        return False
    return int(status.get("updatedReplicas", 0)) >= int(status.get("replicas", 0))
