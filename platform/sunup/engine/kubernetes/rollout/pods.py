"""Why a pod does not get ready: what its status, its events and the last lines of its log come to. Pure.

Fields are those of Kubernetes' PodStatus (core/v1); reasons of waiting containers are the kubelet's
(pkg/kubelet/images and kuberuntime).
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from sunup.limits import ROLLOUT_STUCK_SECONDS

Object = Mapping[str, Any]

NEVER: Final = float("inf")


class Reason(NamedTuple):
    """Why something is not ready. `patience_s`: how long it may last before it is given up: 0 where it stays so."""

    code: str
    sentence: str
    patience_s: float = 0.0


_PULL: Final = (
    "ErrImagePull",
    "ImagePullBackOff",
    "ImageInspectError",
    "RegistryUnavailable",
    "SignatureValidationFailed",
)
_CONFIG: Final = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError", "StartError")
# What the registry answered that will not change while we wait.
_ABSENT: Final = (
    "not found",
    "NotFound",
    "manifest unknown",
    "name unknown",
    "unauthorized",
    "denied",
    "401",
    "403",
    "404",
)
_EXITS: Final = {
    2: ("settings", "was given settings it cannot use"),
    3: ("bundle", "found another bundle than it was given, or a damaged one"),
    4: ("proof_failed", "failed its self-proof"),
}


def trouble(pod: Object, events: Sequence[Object] = (), log: Sequence[str] = ()) -> Reason | None:
    """Why this pod is not ready, or None while nothing is wrong. `log`: last lines of the container that ended."""
    status = pod.get("status", {})
    if status.get("reason") == "Evicted":
        return Reason(
            "evicted", f"its pod was evicted: {status.get('message', 'the node is short of something')}", 30.0
        )
    for one in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        found = _waiting(one) or _ended(one, log)
        if found is not None:
            return found
    return _placed(status) or _mounted(events) or _unready(events, log)


def is_ready(pod: Object) -> bool:
    """Whether it is there to answer."""
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod.get("status", {}).get("conditions", ()))


def is_leaving(pod: Object) -> bool:
    """Whether it was told to end."""
    return "deletionTimestamp" in pod.get("metadata", {})


def state(pod: Object) -> str:
    """ready, draining, failed or starting: the local engine's words."""
    if is_leaving(pod):
        return "draining"
    if is_ready(pod):
        return "ready"
    return "failed" if trouble(pod) is not None else "starting"


def ended(pod: Object) -> tuple[str, bool] | None:
    """The container that ended badly, and whether its words are those of one before the present one."""
    for one in pod.get("status", {}).get("containerStatuses", ()):
        if _failed(one.get("state", {}).get("terminated")):
            return one["name"], False
        if _failed(one.get("lastState", {}).get("terminated")):
            return one["name"], True
    return None


def silent(pod: Object) -> str:
    """The container that runs and is not ready, or ""."""
    for one in pod.get("status", {}).get("containerStatuses", ()):
        if "running" in one.get("state", {}) and not one.get("ready") and one["name"] != "queue-proxy":
            return str(one["name"])
    return ""


def last_words(message: str) -> dict[str, str]:
    """The {"code", "message"} a worker leaves as its last line, or {}."""
    for line in reversed(message.strip().splitlines()):
        try:
            said = json.loads(line)
        except ValueError:
            continue
        if isinstance(said, dict) and isinstance(said.get("message"), str) and "code" in said:
            return {"code": str(said["code"]), "message": said["message"]}
    return {}


def _waiting(one: Object) -> Reason | None:
    waiting = one.get("state", {}).get("waiting") or {}
    why, message = waiting.get("reason", ""), waiting.get("message", "")
    if why == "InvalidImageName":
        return Reason("image_name", f"{one['image']} is no name of an image: {message}")
    if why in _PULL or why == "ErrImageNeverPull":
        gone = any(word in message for word in _ABSENT)
        return Reason(
            "image_pull",
            f"the node cannot fetch the image {one['image']}: {message or why}. Look whether it was pushed, whether "
            "nodes reach the registry by that name, and whether they may (imagePullSecrets of the ServiceAccount)",
            2.0 if gone else 2 * ROLLOUT_STUCK_SECONDS,
        )
    if why in _CONFIG:
        return _configured(one, why, message)
    return None


def _configured(one: Object, why: str, message: str) -> Reason:
    if "secret" in message and "not found" in message:
        return Reason("secret_missing", f"a Secret it needs is not there: {message}", ROLLOUT_STUCK_SECONDS)
    if "configmap" in message and "not found" in message:
        return Reason("configmap_missing", f"a ConfigMap it needs is not there: {message}", ROLLOUT_STUCK_SECONDS)
    if "runAsNonRoot" in message or "non-root" in message:
        return Reason("runs_as_root", f"the cluster does not run this image: {message}. Use Sunup's runtime image")
    return Reason(
        "container", f"the node cannot start container {one['name']} ({why}): {message}", ROLLOUT_STUCK_SECONDS
    )


def _failed(terminated: Object | None) -> bool:
    return bool(terminated) and (terminated or {}).get("exitCode", 0) != 0


def _ended(one: Object, log: Sequence[str]) -> Reason | None:
    now, before = (one.get(name, {}).get("terminated") for name in ("state", "lastState"))
    terminated = now if _failed(now) else before
    running = one.get("state", {}).get("running") is not None
    if terminated is None or not _failed(terminated) or (running and one.get("ready")):
        return None
    code = terminated["exitCode"]
    if terminated.get("reason") == "OOMKilled":
        return Reason(
            "memory", "it was killed because it needs more memory than it may have: raise [kubernetes] memory"
        )
    said = last_words(terminated.get("message", "")) or last_words("\n".join(log))
    if code in _EXITS and one["name"] != "queue-proxy":
        name, what = _EXITS[code]
        return Reason(said.get("code", name), f"its worker {what}: {said.get('message') or _last(terminated, log)}")
    words = said.get("message") or _last(terminated, log)
    again = one.get("restartCount", 0)
    patience = 0.0 if again >= 1 else ROLLOUT_STUCK_SECONDS
    times = f" and was started again {again} times" if again > 1 else ""
    return Reason(
        "crash", f"container {one['name']} ended with exit code {code}{times}. It said last: {words}", patience
    )


def _last(terminated: Object, log: Sequence[str]) -> str:
    words = [line for line in log if line.strip()] or [
        line for line in terminated.get("message", "").splitlines() if line.strip()
    ]
    return " | ".join(words[-3:]) or "nothing"


def _placed(status: Object) -> Reason | None:
    for one in status.get("conditions", ()):
        if one["type"] == "PodScheduled" and one["status"] == "False" and one.get("reason") == "Unschedulable":
            return Reason(
                "unschedulable",
                f"no node takes its pod: {one.get('message')}. Lower [kubernetes] cpu, memory or gpu, or add a node",
                NEVER,  # a cluster that makes nodes takes minutes to make one
            )
        if one["type"] == "PodScheduled" and one["status"] == "False" and one.get("reason") == "SchedulingGated":
            return Reason("gated", f"its pod is held back by a scheduling gate: {one.get('message', '')}", NEVER)
    return None


def _mounted(events: Sequence[Object]) -> Reason | None:
    for one in reversed(events):
        message = one.get("message", "")
        if one.get("reason") == "FailedMount" and "secret" in message and "not found" in message:
            return Reason("secret_missing", f"a Secret it needs is not there: {message}", ROLLOUT_STUCK_SECONDS)
        if one.get("reason") == "FailedMount":
            return Reason("mount", f"the node cannot mount what it needs: {message}", 2 * ROLLOUT_STUCK_SECONDS)
        if one.get("reason") == "FailedCreatePodSandBox":
            return Reason(
                "sandbox", f"the node cannot make its network or sandbox: {message}", 3 * ROLLOUT_STUCK_SECONDS
            )
    return None


def _unready(events: Sequence[Object], log: Sequence[str]) -> Reason | None:
    for one in reversed(events):
        message = one.get("message", "")
        if one.get("reason") == "Unhealthy" and "Readiness" in message:
            last = next((f". It said last: {line}" for line in reversed(log) if line.strip()), "")
            return Reason("not_ready", f"its worker runs but does not say that it is ready: {message}{last}", NEVER)
    return None
