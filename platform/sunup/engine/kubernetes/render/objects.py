"""A function's objects, whole: the one call that makes them, and their text."""

from typing import Final

import yaml

from sunup.bundle.manifest import Kubernetes, Manifest
from sunup.engine.kubernetes.render.names import WORKER, check_name, common, labels, model
from sunup.engine.kubernetes.render.pod import PORT, liveness, pod, probe
from sunup.engine.kubernetes.render.scaling import annotations, timeout_seconds
from sunup.engine.kubernetes.render.settings import secret
from sunup.engine.kubernetes.render.stream import stream_objects
from sunup.engine.kubernetes.render.target import Object, Target

_LOCAL: Final = {"networking.knative.dev/visibility": "cluster-local"}
_NEWEST: Final = ({"latestRevision": True, "percent": 100},)


def render(manifest: Manifest, digest: str, target: Target) -> list[Object]:
    """The objects of a bundle, in the order they are applied: ServiceAccount, Secret (where there are settings), the
    Knative Service, and for a stream Deployment, TriggerAuthentication (where Kafka wants one), ScaledObject.

    The same arguments give the same objects. Raises UsageError where the function's name is none for Kubernetes.
    """
    check_name(manifest)
    kept = secret(manifest, digest, target)
    settings = None if kept is None else str(kept["metadata"]["name"])
    return [
        _account(target),
        *([kept] if kept is not None else []),
        _service(manifest, digest, target, settings),
        *stream_objects(manifest, digest, target, settings),
    ]


def dump(objects: list[Object]) -> str:
    """YAML, one document for each object."""
    text = yaml.safe_dump_all(objects, sort_keys=False, explicit_start=True, width=120, allow_unicode=True)
    return str(text)


def _account(target: Target) -> Object:
    """Workers speak to no Kubernetes: they get no token."""
    metadata = {"name": WORKER, "namespace": target.namespace, "labels": common()}
    made = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata, "automountServiceAccountToken": False}
    if target.pull_secrets:
        made["imagePullSecrets"] = [{"name": name} for name in target.pull_secrets]
    return made


def _service(manifest: Manifest, digest: str, target: Target, settings: str | None) -> Object:
    spec = pod(manifest, digest, target, role="calls", settings=settings)
    container = spec["containers"][0]
    container["ports"] = [{"containerPort": PORT, "protocol": "TCP"}]
    container["readinessProbe"] = probe("/v2/health/ready")
    container["livenessProbe"] = liveness("/v2/health/live")
    # Calls a worker cannot take it refuses itself, at once and with Retry-After. With 0 Knative sees all there are; a
    # limit would have them wait in its proxies without a word.
    spec |= {"containerConcurrency": 0, "timeoutSeconds": timeout_seconds(manifest)}
    found = labels(manifest, digest, "calls")
    local = _LOCAL if (manifest.kubernetes or Kubernetes()).visibility == "cluster" else {}
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {
            "name": manifest.function,
            "namespace": target.namespace,
            "labels": {**found, **local},
            "annotations": model(manifest),
        },
        "spec": {
            "template": {
                "metadata": {"labels": found, "annotations": {**annotations(manifest.scale), **model(manifest)}},
                "spec": spec,
            },
            "traffic": [dict(share) for share in target.traffic or _NEWEST],
        },
    }
