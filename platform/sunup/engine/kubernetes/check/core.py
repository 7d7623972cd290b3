"""What Kubernetes' own objects may hold here: the pod of a worker, its Deployment, Secret and ServiceAccount.

More than is rendered stands in the schema only where a cluster may allow it (check/cluster.py).
"""

from typing import Any, Final

from sunup.engine.kubernetes.check.leaves import (
    anything,
    base64,
    boolean,
    cores_of_gpu,
    dns_label,
    dns_name,
    exactly,
    label_key,
    label_value,
    listed,
    name_1035,
    not_in,
    number,
    quantity,
    reference,
    secret_key,
    text,
)
from sunup.engine.kubernetes.check.schema import Each, Judge, Keyed, Rule, Table
from sunup.engine.kubernetes.render.names import MODEL
from sunup.engine.kubernetes.render.pod import GPU

LABELS: Final = Keyed(label_key, label_value)
_UID: Final = number(1, 2**31 - 1, "and 0 is root")
_SECONDS: Final = number(0, 2**31 - 1)
# Fields of a pod that are the cluster's to allow; what is in them Kubernetes judges.
OPTIONAL: Final = (
    "affinity", "dnsConfig", "dnsPolicy", "hostAliases", "hostIPC", "hostNetwork", "hostPID", "initContainers",
    "nodeSelector", "priorityClassName", "runtimeClassName", "schedulerName", "securityContext",
    "shareProcessNamespace", "tolerations", "topologySpreadConstraints",
)  # fmt: skip
VOLUMES: Final = ("configMap", "csi", "emptyDir", "ephemeral", "hostPath", "image", "persistentVolumeClaim", "secret")
# k8s_validation.go of Knative Serving
RESERVED_VARIABLES: Final = ("PORT", "K_SERVICE", "K_CONFIGURATION", "K_REVISION")
RESERVED_PORTS: Final = (8008, 8012, 8013, 8022, 9090, 9091)


def metadata(
    name: Judge = name_1035, *, annotations: Rule | None = None, needed: tuple[str, ...] = ("name", "namespace")
) -> Table:
    """Of an object; its annotations are the one that says its model, unless others are given."""
    known: Rule = annotations or Table({MODEL: text})
    return Table({"name": name, "namespace": dns_label, "labels": LABELS, "annotations": known}, needed)


def _container(*, knative: bool) -> Table:
    why = "is Knative's own; name another one"
    variable = not_in(RESERVED_VARIABLES if knative else (), why)
    port = not_in(RESERVED_PORTS if knative else (), why, number(1, 65535))
    names = exactly("h2c", "http1") if knative else name_1035
    ports = Table({"containerPort": port, "name": names, "protocol": exactly("TCP")}, ("containerPort",))
    sources = {"configMapKeyRef": anything, "secretKeyRef": anything}
    fields = {**sources, "fieldRef": anything, "resourceFieldRef": anything}
    env = Table({"name": variable, "value": _any_text, "valueFrom": Table(fields)}, ("name",))
    mount = Table(
        {"name": dns_label, "mountPath": _mount_path, "readOnly": boolean, "subPath": text}, ("name", "mountPath")
    )
    return Table(
        {
            "name": not_in(("queue-proxy",), why, dns_label),
            "image": reference,
            "imagePullPolicy": exactly("IfNotPresent", "Always", "Never"),
            "env": Each(env),
            "ports": Each(ports),
            "readinessProbe": _probe(knative=knative),
            "livenessProbe": _probe(knative=knative),
            "resources": _RESOURCES,
            "securityContext": _SECURITY,
            "terminationMessagePolicy": exactly("File", "FallbackToLogsOnError"),
            "volumeMounts": Each(mount),
        },
        ("name", "image", "readinessProbe", "resources", "securityContext"),
    )


def _probe(*, knative: bool) -> Table:
    port = number(1, 65535)
    get = Table({"path": _path, "port": port}, ("path",) if knative else ("path", "port"))
    times = ("initialDelaySeconds", "periodSeconds", "timeoutSeconds", "failureThreshold")
    least = {"initialDelaySeconds": 0}
    return Table(
        {"httpGet": get, **{key: number(least.get(key, 1), 3600) for key in times}}, ("httpGet", "periodSeconds")
    )


def _path(value: Any) -> str | None:
    return None if isinstance(value, str) and value.startswith("/") else f"{value!r} is no path; it begins with /"


def _mount_path(value: Any) -> str | None:
    if isinstance(value, str) and value.rstrip("/") in ("", "/dev", "/dev/log"):
        return f"{value!r} is the system's own; mount it elsewhere"
    return _path(value)


def _any_text(value: Any) -> str | None:
    return None if isinstance(value, str) else f"{value!r} is no text; put it in quotes"


_AMOUNTS: Final = Table({"cpu": quantity, "memory": quantity, "ephemeral-storage": quantity, GPU: cores_of_gpu})
_RESOURCES: Final = Table({"requests": _AMOUNTS, "limits": _AMOUNTS}, ("requests", "limits"))
_SECURITY: Final = Table(
    {
        "runAsNonRoot": exactly(True),
        "runAsUser": _UID,
        "runAsGroup": _UID,
        "readOnlyRootFilesystem": exactly(True),
        "allowPrivilegeEscalation": exactly(False),
        "capabilities": Table({"drop": listed(exactly("ALL")), "add": listed(text)}, ("drop",)),
        "seccompProfile": Table({"type": exactly("RuntimeDefault")}, ("type",)),
    },
    ("runAsNonRoot", "readOnlyRootFilesystem", "allowPrivilegeEscalation", "capabilities", "seccompProfile"),
)
_VOLUME: Final = Table(
    {
        "name": dns_label,
        **dict.fromkeys(VOLUMES, anything),
        "emptyDir": Table({"sizeLimit": quantity, "medium": exactly("", "Memory")}),
        "image": Table(
            {"reference": reference, "pullPolicy": exactly("IfNotPresent", "Always", "Never")}, ("reference",)
        ),
        "secret": Table({"secretName": dns_name, "defaultMode": number(0, 0o777), "items": anything}, ("secretName",)),
    },
    ("name",),
)


def pod(*, knative: bool) -> Table:
    """The spec of a worker's pod, within a Knative Service or a Deployment."""
    others: dict[str, Rule] = {"terminationGracePeriodSeconds": _SECONDS, "shareProcessNamespace": boolean}
    own = {} if knative else others
    return Table(
        {
            **dict.fromkeys(OPTIONAL, anything),
            **own,
            "serviceAccountName": dns_label,
            "automountServiceAccountToken": exactly(False),
            "enableServiceLinks": boolean,
            "imagePullSecrets": Each(Table({"name": dns_name}, ("name",))),
            "containers": Each(_container(knative=knative)),
            "volumes": Each(_VOLUME),
        },
        ("serviceAccountName", "containers"),
    )


DEPLOYMENT: Final = Table(
    {
        "apiVersion": exactly("apps/v1"),
        "kind": exactly("Deployment"),
        "metadata": metadata(),
        "spec": Table(
            {
                "selector": Table({"matchLabels": LABELS}, ("matchLabels",)),
                "template": Table(
                    {
                        "metadata": Table({"labels": LABELS, "annotations": Table({MODEL: text})}, ("labels",)),
                        "spec": pod(knative=False),
                    },
                    ("metadata", "spec"),
                ),
                "strategy": anything,
            },
            ("selector", "template"),
        ),
    },
    ("apiVersion", "kind", "metadata", "spec"),
)
SECRET: Final = Table(
    {
        "apiVersion": exactly("v1"),
        "kind": exactly("Secret"),
        "metadata": metadata(dns_name),
        "type": exactly("Opaque"),
        "immutable": exactly(True),
        "data": Keyed(secret_key, base64),
    },
    ("apiVersion", "kind", "metadata", "immutable", "data"),
)
ACCOUNT: Final = Table(
    {
        "apiVersion": exactly("v1"),
        "kind": exactly("ServiceAccount"),
        "metadata": metadata(),
        "automountServiceAccountToken": exactly(False),
        "imagePullSecrets": Each(Table({"name": dns_name}, ("name",))),
    },
    ("apiVersion", "kind", "metadata", "automountServiceAccountToken"),
)
