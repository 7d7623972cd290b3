"""The pod of a worker: one container that may do nothing beyond what a worker needs. The same for calls and streams."""

from typing import Any, Final

from sunup.bundle.manifest import Kubernetes, Manifest
from sunup.engine.kubernetes.render.names import WORKER
from sunup.engine.kubernetes.render.settings import FILE, FOLDER
from sunup.engine.kubernetes.render.target import Target
from sunup.limits import (
    KUBERNETES_CPU_MILLIS_DEFAULT,
    KUBERNETES_LIVE_SECONDS,
    KUBERNETES_MEMORY_MIB_DEFAULT,
    KUBERNETES_TMP_GIB,
)

CONTAINER: Final = "worker"
BUNDLE: Final = "/bundle"
STATE: Final = "/tmp/sunup"
KEYS: Final = "/etc/sunup-keys"
KEYS_FILE: Final = "keys.jsonl"
PORT: Final = 8080  # of predictions; Knative sets the variable PORT to it
METRICS_PORT: Final = 9464  # of metrics and, for streams, readiness
USER: Final = 65532  # "nonroot" of distroless images, and of the runtime image
GPU: Final = "nvidia.com/gpu"


def pod(manifest: Manifest, digest: str, target: Target, *, role: str, settings: str | None) -> dict[str, Any]:
    """The pod's spec, without what only one of the two roles has. `role`: calls or stream; `settings`: the name of the
    Secret with them, if there is one."""
    volumes, mounts = _volumes(target, settings)
    return {
        "serviceAccountName": WORKER,
        "enableServiceLinks": False,
        "containers": [
            {
                "name": CONTAINER,
                "image": (target.images.flat if target.way == "flat" else target.images.runtime) or "",
                "imagePullPolicy": "IfNotPresent",
                "env": _environment(digest, target, role, settings),
                "resources": resources(manifest.kubernetes or Kubernetes()),
                "securityContext": _security(),
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "volumeMounts": mounts,
            }
        ],
        "volumes": volumes,
    }


def resources(asked: Kubernetes) -> dict[str, Any]:
    """What the container asks for. No limit of cores: a cold start uses what is free, and throttling would only delay
    it. Memory is asked for in full, so that nothing is evicted for want of it."""
    cpu = asked.cpu or f"{KUBERNETES_CPU_MILLIS_DEFAULT}m"
    memory = asked.memory or f"{KUBERNETES_MEMORY_MIB_DEFAULT}Mi"
    limits = {"memory": memory, **({GPU: str(asked.gpu)} if asked.gpu else {})}
    return {"requests": {"cpu": cpu, "memory": memory}, "limits": limits}


def probe(path: str, port: int | None = None) -> dict[str, Any]:
    """Asked once a second: with Knative's default a third of the starts took 10 s longer."""
    return {"httpGet": _get(path, port), "periodSeconds": 1}


def liveness(path: str, port: int | None = None) -> dict[str, Any]:
    """A worker that answers nothing for a while is replaced; one that starts is left alone."""
    patience = {"timeoutSeconds": 5, "failureThreshold": 3}
    return {
        "httpGet": _get(path, port),
        "initialDelaySeconds": KUBERNETES_LIVE_SECONDS,
        "periodSeconds": 10,
        **patience,
    }


def _get(path: str, port: int | None) -> dict[str, Any]:
    # Knative fills in the port of calls, and takes no other one.
    return {"path": path} if port is None else {"path": path, "port": port}


def _environment(digest: str, target: Target, role: str, settings: str | None) -> list[dict[str, str]]:
    said = {"SUNUP_ROLE": role, "SUNUP_BUNDLE": BUNDLE, "SUNUP_DIGEST": digest, "SUNUP_STATE": STATE}
    if settings is not None:
        said["SUNUP_SETTINGS"] = f"{FOLDER}/{FILE}"
    if target.api_keys and role == "calls":
        said["SUNUP_API_KEYS"] = f"{KEYS}/{KEYS_FILE}"
    if target.revision is not None and role == "stream":
        said["SUNUP_REVISION"] = str(target.revision)
    return [{"name": name, "value": value} for name, value in said.items()]


def _volumes(target: Target, settings: str | None) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    volumes: list[dict[str, Any]] = [{"name": "tmp", "emptyDir": {"sizeLimit": f"{KUBERNETES_TMP_GIB}Gi"}}]
    mounts: list[dict[str, Any]] = [{"name": "tmp", "mountPath": "/tmp"}]
    read_only: list[tuple[str, dict[str, Any], str, bool]] = [
        ("settings", {"secret": {"secretName": settings}}, FOLDER, settings is not None),
        ("keys", {"secret": {"secretName": target.api_keys}}, KEYS, bool(target.api_keys)),
        (
            "bundle",
            {"image": {"reference": target.images.bundle or "", "pullPolicy": "IfNotPresent"}},
            BUNDLE,
            target.way == "volume",
        ),
    ]
    for name, source, path, wanted in read_only:
        if wanted:
            volumes.append({"name": name, **source})
            mounts.append({"name": name, "mountPath": path, "readOnly": True})
    return volumes, mounts


def _security() -> dict[str, Any]:
    return {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
