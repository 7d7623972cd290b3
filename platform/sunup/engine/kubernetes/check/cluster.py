"""What is wrong on this cluster: what its settings of Knative do not allow, and what it lacks."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from sunup.engine.kubernetes.check.facts import IMAGE_VOLUMES, IMAGE_VOLUMES_SINCE, ClusterFacts, version
from sunup.engine.kubernetes.check.findings import each, get, keys, sentences, word
from sunup.engine.kubernetes.check.schema import Problem
from sunup.engine.kubernetes.render.scaling import AUTOSCALING
from sunup.engine.kubernetes.render.target import Object

# pkg/apis/config/features.go of Knative Serving: what of a pod needs which feature.
_POD: Final = {
    "affinity": "podspec-affinity",
    "dnsConfig": "podspec-dnsconfig",
    "dnsPolicy": "podspec-dnspolicy",
    "hostAliases": "podspec-hostaliases",
    "hostIPC": "podspec-hostipc",
    "hostNetwork": "podspec-hostnetwork",
    "hostPID": "podspec-hostpid",
    "initContainers": "podspec-init-containers",
    "nodeSelector": "podspec-nodeselector",
    "priorityClassName": "podspec-priorityclassname",
    "runtimeClassName": "podspec-runtimeclassname",
    "schedulerName": "podspec-schedulername",
    "securityContext": "podspec-securitycontext",
    "shareProcessNamespace": "podspec-shareprocessnamespace",
    "tolerations": "podspec-tolerations",
    "topologySpreadConstraints": "podspec-topologyspreadconstraints",
}
_VOLUMES: Final = {
    "csi": "podspec-volumes-csi",
    "emptyDir": "podspec-volumes-emptydir",
    "ephemeral": "podspec-volumes-ephemeral",
    "hostPath": "podspec-volumes-hostpath",
    "persistentVolumeClaim": "podspec-persistent-volume-claim",
}
_TEMPLATE: Final = "spec.template.spec"


def on_cluster(objects: Sequence[Object], facts: ClusterFacts) -> Iterator[str]:
    """Every sentence about these objects on this cluster."""
    kinds = {word(thing, "kind") for thing in objects}
    if "Service" in kinds and not facts.has_knative:
        yield (
            "This cluster has no Knative Serving (no serving.knative.dev/v1), which scales calls; install it, or "
            "choose another context."
        )
    if "ScaledObject" in kinds and not facts.has_keda:
        yield (
            "This cluster has no KEDA (no keda.sh/v1alpha1), which scales streams; install it, or leave [stream] "
            "out of function.toml."
        )
    for thing in objects:
        problems = list(_image_volumes(thing, facts))
        if thing.get("kind") == "Service" and facts.has_knative:
            problems += [*_features(thing, facts), *_autoscaler(thing, facts), *_defaults(thing, facts)]
        yield from sentences(thing, problems)


def _image_volumes(thing: Object, facts: ClusterFacts) -> Iterator[Problem]:
    for number, volume in enumerate(each(thing, *_TEMPLATE.split("."), "volumes")):
        if "image" not in volume:
            continue
        path = f"{_TEMPLATE}.volumes[{number}].image"
        if facts.kubernetes < IMAGE_VOLUMES_SINCE:
            since, found = version(IMAGE_VOLUMES_SINCE), version(facts.kubernetes)
            yield path, f"image volumes need Kubernetes {since}, and this is {found}; use the way flat"
        elif thing.get("kind") == "Service" and facts.has_knative and not facts.enabled(IMAGE_VOLUMES):
            yield path, f"image volumes need {_wanted(IMAGE_VOLUMES)}, or use the way flat"


def _features(thing: Object, facts: ClusterFacts) -> Iterator[Problem]:
    spec = get(thing, *_TEMPLATE.split("."))
    needed = [(f"{_TEMPLATE}.{key}", key, name) for key, name in _POD.items() if get(spec, key) is not None]
    for number, volume in enumerate(each(spec, "volumes")):
        needed += [
            (f"{_TEMPLATE}.volumes[{number}].{key}", key, name) for key, name in _VOLUMES.items() if key in volume
        ]
    for number, container in enumerate(each(spec, "containers")):
        at = f"{_TEMPLATE}.containers[{number}]"
        if get(container, "securityContext", "capabilities", "add"):
            needed.append((f"{at}.securityContext.capabilities.add", "add", "containerspec-addcapabilities"))
        for place, variable in enumerate(each(container, "env")):
            needed += [
                (f"{at}.env[{place}].valueFrom.{key}", key, "podspec-fieldref")
                for key in ("fieldRef", "resourceFieldRef")
                if get(variable, "valueFrom", key) is not None
            ]
    for path, key, name in needed:
        if not facts.enabled(f"kubernetes.{name}"):
            yield path, f"{key} needs {_wanted(f'kubernetes.{name}')}, or leave it out"
    if len(each(spec, "containers")) > 1 and not facts.enabled("multi-container"):
        yield f"{_TEMPLATE}.containers", f"a second container needs {_wanted('multi-container')}, or leave it out"


def _autoscaler(thing: Object, facts: ClusterFacts) -> Iterator[Problem]:
    said = keys(thing, "spec", "template", "metadata", "annotations")
    at = "spec.template.metadata.annotations"
    most, asked = _number(facts.autoscaler, "max-scale-limit", 0), _count(said, "max-scale")
    if most and asked is not None and not 0 < asked <= most:
        problem = (
            f"{asked or 'no limit'} is more than this cluster's max-scale-limit, {most}; write [scale] max = {most}"
        )
        yield f'{at}["{AUTOSCALING}max-scale"]', f"{problem} at most, or raise it in config-autoscaler"
    allowed = facts.autoscaler.get("allow-zero-initial-scale", "false").lower() == "true"
    if _count(said, "initial-scale") == 0 and not allowed:
        problem = "0 needs allow-zero-initial-scale=true in config-autoscaler, namespace knative-serving; write 1"
        yield f'{at}["{AUTOSCALING}initial-scale"]', problem
    if facts.autoscaler.get("enable-scale-to-zero", "true").lower() == "false" and _count(said, "min-scale") == 0:
        problem = "0 is never reached here: enable-scale-to-zero is false in config-autoscaler; set it to true"
        yield f'{at}["{AUTOSCALING}min-scale"]', f"{problem}, or write [scale] min = 1"


def _defaults(thing: Object, facts: ClusterFacts) -> Iterator[Problem]:
    spec = get(thing, *_TEMPLATE.split("."))
    most, asked = _number(facts.defaults, "max-revision-timeout-seconds", 600), get(spec, "timeoutSeconds")
    if isinstance(asked, int) and asked > most:
        problem = f"{asked} is more than this cluster's max-revision-timeout-seconds, {most}; lower [limits] timeout"
        yield f"{_TEMPLATE}.timeoutSeconds", f"{problem}, or raise it in config-defaults"
    limit, many = _number(facts.defaults, "container-concurrency-max-limit", 1000), get(spec, "containerConcurrency")
    if isinstance(many, int) and many > limit:
        problem = f"{many} is more than this cluster's container-concurrency-max-limit, {limit}"
        yield f"{_TEMPLATE}.containerConcurrency", f"{problem}; write 0 for no limit"
    zero = facts.defaults.get("allow-container-concurrency-zero", "true").lower() != "false"
    if many == 0 and not zero:
        problem = "0 needs allow-container-concurrency-zero=true in config-defaults, namespace knative-serving"
        yield f"{_TEMPLATE}.containerConcurrency", f"{problem}; set it there"


def _wanted(feature: str) -> str:
    return f"{feature}=enabled in config-features, namespace knative-serving; set it there"


def _number(found: Any, key: str, default: int) -> int:
    value = found.get(key, "")
    return int(value) if value.strip().isdigit() else default


def _count(said: dict[str, Any], key: str) -> int | None:
    value = said.get(f"{AUTOSCALING}{key}")
    return int(value) if isinstance(value, str) and value.isdigit() else None
