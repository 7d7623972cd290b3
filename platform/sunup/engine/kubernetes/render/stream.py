"""The workers of a function's topic: a Deployment, and KEDA's ScaledObject that scales it by the group's lag."""

from typing import Any, Final

from sunup.bundle.manifest import Manifest, StreamSpec
from sunup.engine.kubernetes.render.names import COMPONENT, FUNCTION, labels, model, stream_name
from sunup.engine.kubernetes.render.pod import METRICS_PORT, liveness, pod, probe
from sunup.engine.kubernetes.render.scaling import idle_seconds
from sunup.engine.kubernetes.render.settings import kafka_security, keda_parameters
from sunup.engine.kubernetes.render.target import Object, Target
from sunup.limits import KUBERNETES_GRACE_SECONDS, KUBERNETES_LAG_SECONDS, STREAM_LAG_PER_WORKER
from sunup.settings import STREAM_BROKER

KEDA: Final = "keda.sh/v1alpha1"
# Brokers before it lack what exactly-once needs (KIP-447), and 4.0 took away what KEDA's own default, 1.0.0, asks for.
_KAFKA: Final = "2.5.0"
_SASL: Final = {"PLAIN": "plaintext", "SCRAM-SHA-256": "scram_sha256", "SCRAM-SHA-512": "scram_sha512"}


def stream_objects(manifest: Manifest, digest: str, target: Target, settings: str | None) -> list[Object]:
    """Deployment, TriggerAuthentication where Kafka wants TLS or a user, ScaledObject; nothing without a stream."""
    if manifest.stream is None:
        return []
    made = [_deployment(manifest, digest, target, settings)]
    parameters = keda_parameters(target.settings)
    if parameters and settings is not None:
        references = [{"parameter": name, "name": settings, "key": key} for name, key in sorted(parameters.items())]
        spec = {"secretTargetRef": references}
        made.append({"apiVersion": KEDA, "kind": "TriggerAuthentication", **_named(manifest, digest, target, spec)})
    spec = _scaled(manifest, manifest.stream, target, authenticated=len(made) > 1)
    return [*made, {"apiVersion": KEDA, "kind": "ScaledObject", **_named(manifest, digest, target, spec)}]


def _named(manifest: Manifest, digest: str, target: Target, spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "metadata": {
            "name": stream_name(manifest.function),
            "namespace": target.namespace,
            "labels": labels(manifest, digest, "stream"),
            "annotations": model(manifest),
        },
        "spec": spec,
    }


def _deployment(manifest: Manifest, digest: str, target: Target, settings: str | None) -> Object:
    """Without `replicas`: they are KEDA's, and whoever applies this again must not set them back."""
    spec = pod(manifest, digest, target, role="stream", settings=settings)
    container = spec["containers"][0]
    container["ports"] = [{"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"}]
    container["readinessProbe"] = probe("/ready", METRICS_PORT)
    container["livenessProbe"] = liveness("/live", METRICS_PORT)
    spec["terminationGracePeriodSeconds"] = KUBERNETES_GRACE_SECONDS
    # Linux keeps from process 1 what it has no handler for yet: a pod told to end as it starts would read on.
    spec["shareProcessNamespace"] = True
    found = labels(manifest, digest, "stream")
    template = {"metadata": {"labels": found, "annotations": model(manifest)}, "spec": spec}
    chosen = {"matchLabels": {key: found[key] for key in (FUNCTION, COMPONENT)}}  # what never changes
    body = {"selector": chosen, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", **_named(manifest, digest, target, body)}


def _scaled(manifest: Manifest, stream: StreamSpec, target: Target, *, authenticated: bool) -> dict[str, Any]:
    most = stream.max_workers if target.partitions is None else min(stream.max_workers, target.partitions)
    idle = idle_seconds(manifest.scale)
    trigger: dict[str, Any] = {"type": "kafka", "metadata": _trigger(stream, target)}
    if authenticated:
        trigger["authenticationRef"] = {"name": stream_name(manifest.function)}
    # Kubernetes waits five minutes before it takes a pod away: here it is the silence the function declares.
    behavior = {"scaleDown": {"stabilizationWindowSeconds": min(idle, 3600)}}
    return {
        "scaleTargetRef": {"name": stream_name(manifest.function)},
        "pollingInterval": KUBERNETES_LAG_SECONDS,
        "cooldownPeriod": idle,
        "minReplicaCount": 0,
        "maxReplicaCount": max(most, 1),
        "advanced": {"horizontalPodAutoscalerConfig": {"behavior": behavior}},
        "triggers": [trigger],
    }


def _trigger(stream: StreamSpec, target: Target) -> dict[str, str]:
    """The trigger's metadata, all strings; no secret is in it. Offsets begin where workers begin."""
    said = {
        "bootstrapServers": target.settings.get(STREAM_BROKER, ""),
        "consumerGroup": stream.group,
        "topic": stream.input,
        "lagThreshold": str(STREAM_LAG_PER_WORKER),
        "activationLagThreshold": "0",
        "offsetResetPolicy": "earliest",
        "version": _KAFKA,
    }
    security = kafka_security(target.settings)
    protocol = security.get("protocol", "")
    if protocol.endswith("SSL"):
        said["tls"] = "enable"
        if not security.get("check_hostname", True):
            said["unsafeSsl"] = "true"  # KEDA knows no less: it looks at certificates in full or not at all
    if protocol.startswith("SASL_"):
        said["sasl"] = _SASL[security["mechanism"]]
    return said
