"""What a Knative Service may hold: pkg/apis/autoscaling, pkg/apis/serving and its v1 of Knative Serving 0.50.

Knative itself takes annotations it does not know, so a slip of the pen would only show in how a function scales.
"""

from collections.abc import Iterator
from typing import Any, Final

from sunup.engine.kubernetes.check.core import LABELS, metadata, pod
from sunup.engine.kubernetes.check.findings import each, get, keys, word
from sunup.engine.kubernetes.check.leaves import (
    boolean,
    duration,
    exactly,
    name_1035,
    number,
    quantity,
    shorter,
    text,
    written,
)
from sunup.engine.kubernetes.check.schema import Each, Problem, Rule, Table
from sunup.engine.kubernetes.render.names import CALLS_CHARS_MAX, LABEL_CHARS_MAX, MODEL
from sunup.engine.kubernetes.render.scaling import AUTOSCALING, QUEUE, WINDOW_SECONDS_MAX, WINDOW_SECONDS_MIN
from sunup.engine.kubernetes.render.target import Object
from sunup.limits import KUBERNETES_TIMEOUT_SECONDS_MIN

VISIBILITY: Final = "networking.knative.dev/visibility"
_COUNT: Final = written(0)
_SCALING: Final[dict[str, Rule]] = {
    "class": exactly("kpa.autoscaling.knative.dev"),
    "metric": exactly("concurrency", "rps"),
    "target": written(0.01, whole=False),
    "target-utilization-percentage": written(1, 100, whole=False),
    "target-burst-capacity": written(-1, whole=False),
    "min-scale": _COUNT,
    "max-scale": _COUNT,
    "initial-scale": _COUNT,
    "activation-scale": written(2),
    "window": duration(WINDOW_SECONDS_MIN, WINDOW_SECONDS_MAX),
    "scale-to-zero-pod-retention-period": duration(0, WINDOW_SECONDS_MAX),
    "scale-down-delay": duration(0, WINDOW_SECONDS_MAX),
    "panic-window-percentage": written(1, 100, whole=False),
    "panic-threshold-percentage": written(110, 1000, whole=False),
}
_PROXY: Final = tuple(
    f"{what}-resource-{which}" for what in ("cpu", "memory", "ephemeral-storage") for which in ("request", "limit")
)
_ANNOTATIONS: Final[dict[str, Rule]] = {
    **{f"{AUTOSCALING}{key}": rule for key, rule in _SCALING.items()},
    **{f"{QUEUE}{key}": quantity for key in _PROXY},
    "serving.knative.dev/progress-deadline": duration(1, 86_400),
    MODEL: text,
}
# Without them the cluster's own settings would count, and another cluster would scale the same function otherwise.
_SAID: Final = (
    "class", "metric", "target", "target-utilization-percentage", "min-scale", "max-scale", "window",
    "scale-to-zero-pod-retention-period",
)  # fmt: skip
_TRAFFIC: Final = Table(
    {
        "revisionName": shorter(name_1035, LABEL_CHARS_MAX, "it is a label"),
        "latestRevision": boolean,
        "percent": number(0, 100),
        "tag": name_1035,
    },
    ("percent",),
)
SERVICE: Final = Table(
    {
        "apiVersion": exactly("serving.knative.dev/v1"),
        "kind": exactly("Service"),
        "metadata": metadata(shorter(name_1035, CALLS_CHARS_MAX, "its canary's host is canary- and the name")),
        "spec": Table(
            {
                "template": Table(
                    {
                        "metadata": Table(
                            {
                                "labels": LABELS,
                                "annotations": Table(_ANNOTATIONS, tuple(f"{AUTOSCALING}{key}" for key in _SAID)),
                            },
                            ("annotations",),
                        ),
                        "spec": Table(
                            {
                                **pod(knative=True).fields,
                                "containerConcurrency": number(0, 1_000_000),
                                "timeoutSeconds": number(1, 86_400),
                                "responseStartTimeoutSeconds": number(1, 86_400),
                                "idleTimeoutSeconds": number(0, 86_400),
                            },
                            (*pod(knative=True).needed, "containerConcurrency", "timeoutSeconds"),
                        ),
                    },
                    ("metadata", "spec"),
                ),
                "traffic": Each(_TRAFFIC),
            },
            ("template", "traffic"),
        ),
    },
    ("apiVersion", "kind", "metadata", "spec"),
)


def service_problems(thing: Object) -> Iterator[Problem]:
    """What is wrong between the parts of a Knative Service."""
    yield from _scale(keys(thing, "spec", "template", "metadata", "annotations"))
    yield from _visibility(thing)
    yield from _traffic(each(thing, "spec", "traffic"), word(thing, "metadata", "name") or "")
    spec, at = get(thing, "spec", "template", "spec"), "spec.template.spec"
    timeout = get(spec, "timeoutSeconds")
    if isinstance(timeout, int) and 1 <= timeout < KUBERNETES_TIMEOUT_SECONDS_MIN:
        least = KUBERNETES_TIMEOUT_SECONDS_MIN
        yield f"{at}.timeoutSeconds", f"{timeout} is too short for a pod to start in, or to end; write {least} at least"
    if len(each(spec, "containers", 0, "ports")) > 1:
        yield f"{at}.containers[0].ports", "Knative takes one port; leave the others out"


def _scale(said: dict[str, Any]) -> Iterator[Problem]:
    def count(key: str) -> int:
        value = said.get(f"{AUTOSCALING}{key}")
        return int(value) if isinstance(value, str) and value.isdigit() else 0

    at, low, high = "spec.template.metadata.annotations", count("min-scale"), count("max-scale")
    if high and low > high:
        path = f'{at}["{AUTOSCALING}min-scale"]'
        yield path, f"{low} is more than max-scale, {high}; write [scale] min and max the other way round"
    first = count("activation-scale")
    if first and (first < low or (high and first > high)):
        yield f'{at}["{AUTOSCALING}activation-scale"]', f"{first} is not between min-scale {low} and max-scale {high}"


def _visibility(thing: Object) -> Iterator[Problem]:
    value = get(thing, "metadata", "labels", VISIBILITY)
    if value not in (None, "cluster-local"):
        path = f'metadata.labels["{VISIBILITY}"]'
        yield path, f"{value!r} means nothing to Knative; write cluster-local, or leave the label out"
    for key in keys(thing, "spec", "template", "metadata", "labels"):
        if key.startswith(("autoscaling.knative.dev/", "networking.knative.dev/", "serving.knative.dev/")):
            yield f'spec.template.metadata.labels["{key}"]', "Knative reads it elsewhere; leave it out here"


def _traffic(shares: list[dict[str, Any]], function: str) -> Iterator[Problem]:
    percents = [share.get("percent") for share in shares]
    if shares and all(isinstance(percent, int) for percent in percents):
        total = sum(percent for percent in percents if isinstance(percent, int))
        if total != 100:
            yield "spec.traffic", f"the shares sum to {total}; they must be 100 together"
    tags: set[str] = set()
    for place, share in enumerate(shares):
        at, tag = f"spec.traffic[{place}]", share.get("tag")
        if isinstance(tag, str) and tag in tags:
            yield f"{at}.tag", f"{tag} is the tag of another share already; name another one"
        tags |= {tag} if isinstance(tag, str) else set()
        named, newest = "revisionName" in share, share.get("latestRevision") is True
        if named == newest:
            yield at, "a share is of a revisionName or of the latestRevision, one of the two"
        revision = word(share, "revisionName")
        if revision is not None and not revision.startswith(f"{function}-"):
            yield f"{at}.revisionName", f"{revision} is no revision of {function}; name one of its own"
