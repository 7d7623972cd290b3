"""[scale] and [limits] of function.toml in Knative's words, and what of them Knative has no words for."""

import math
from typing import Final

from sunup.bundle.manifest import Manifest, Scale
from sunup.limits import (
    KUBERNETES_CALLS_WINDOW_SECONDS,
    KUBERNETES_TIMEOUT_SECONDS_MIN,
)

AUTOSCALING: Final = "autoscaling.knative.dev/"
QUEUE: Final = "queue.sidecar.serving.knative.dev/"
WINDOW_SECONDS_MIN: Final = 6  # pkg/apis/autoscaling/register.go of Knative Serving
WINDOW_SECONDS_MAX: Final = 3600
# What Knative's proxy beside each worker asks for; its own defaults are 25m and 400Mi, twice a small worker.
_PROXY: Final = {
    "cpu-resource-request": "25m",
    "cpu-resource-limit": "1",
    "memory-resource-request": "64Mi",
    "memory-resource-limit": "256Mi",
}


def idle_seconds(scale: Scale) -> int:
    """Whole seconds of silence after which the last pod may end, as near to `idle` as Knative allows."""
    return min(max(math.ceil(scale.idle_s), WINDOW_SECONDS_MIN), _idle_max())


def annotations(scale: Scale) -> dict[str, str]:
    """Of a Knative Service's template.

    Knative goes to zero when its window saw no call and the last pod was kept for the retention period behind it: both
    together are `idle`. The window is also what calls in progress are averaged over, so it stays short.
    """
    idle = idle_seconds(scale)
    window = min(idle, KUBERNETES_CALLS_WINDOW_SECONDS)
    said = {
        "class": "kpa.autoscaling.knative.dev",
        "metric": "concurrency",
        "target": str(scale.target_concurrency),
        # `target` is what one worker should carry; Knative's default would start another at 70 % of it.
        "target-utilization-percentage": "100",
        "min-scale": str(scale.min),
        "max-scale": str(scale.max),
        "window": f"{window}s",
        "scale-to-zero-pod-retention-period": f"{idle - window}s",
    }
    return {f"{AUTOSCALING}{key}": value for key, value in said.items()} | {
        f"{QUEUE}{key}": value for key, value in _PROXY.items()
    }


def timeout_seconds(manifest: Manifest) -> int:
    """`timeoutSeconds`: how long Knative lets a call take, its wait for a pod included, and a pod that ends.

    The worker keeps [limits] timeout itself. Here it would be too little: Knative's proxy sleeps for 30 s of a pod's
    end, and on another machine a cold start may pull an image first.
    """
    return max(math.ceil(manifest.limits.timeout_s), KUBERNETES_TIMEOUT_SECONDS_MIN)


def notes(manifest: Manifest) -> list[str]:
    """What a person should know that runs this function on Kubernetes: a sentence for each thing that is otherwise."""
    scale, said = manifest.scale, []
    if math.ceil(scale.idle_s) < WINDOW_SECONDS_MIN:
        said.append(
            f"[scale] idle is {scale.idle_s:g} s, and Knative looks over {WINDOW_SECONDS_MIN} s at least: the last pod "
            f"ends after {WINDOW_SECONDS_MIN} s."
        )
    if math.ceil(scale.idle_s) > _idle_max():
        said.append(
            f"[scale] idle is {scale.idle_s:g} s, and Knative keeps a silent pod for an hour at most: the last pod "
            f"ends after {_idle_max()} s; min = 1 keeps one for ever."
        )
    if scale.idle_auto:
        said.append(
            f'[scale] idle = "auto" is learned by the local engine only: on Kubernetes the last pod ends after '
            f"{idle_seconds(scale)} s."
        )
    if scale.warm:
        times = ", ".join(entry.cron for entry in scale.warm)
        said.append(
            f"[scale] warm: Knative has no set times ({times}), so no pod is started before anybody calls; set min, or "
            f"let a CronJob set {AUTOSCALING}min-scale."
        )
    if manifest.log is not None:
        said.append("[features] log: pods keep none; what a model saw is logged by the local engine only.")
    if manifest.stream and manifest.aggregates:
        said.append(
            "[stream] aggregate: a pod's tiles end with it, and the next one restores them from the changelog topic "
            f"{manifest.stream.group}-tiles."
        )
    return said


def _idle_max() -> int:
    return KUBERNETES_CALLS_WINDOW_SECONDS + WINDOW_SECONDS_MAX
