# Longer than 300 lines because it is one table.
"""Objects with one mistake each, the sentence that is said of it, and who else would notice.

`refuses`: the kind of object that a real API server with Knative's and KEDA's webhooks refuses for it, "" where they
take it all the same: those are why there is a check of our own. tests/cluster/test_admission.py asks one.
"""

import copy
from base64 import b64encode
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from tests.kubernetes_objects import ALL

from sunup.engine.kubernetes.check.facts import ClusterFacts
from sunup.engine.kubernetes.render.target import Object

GONE: Final = object()  # in the place of a value: take the key away
SCALE: Final = ("spec", "template", "metadata", "annotations")
POD: Final = ("spec", "template", "spec")
WORKER: Final = (*POD, "containers", 0)
TRIGGER: Final = ("spec", "triggers", 0)
KNATIVE: Final = "autoscaling.knative.dev"
ANNOTATIONS: Final = "spec.template.metadata.annotations"
CONTAINER: Final = "spec.template.spec.containers[0]"
STOCK: Final = ClusterFacts(kubernetes=(1, 36))  # a cluster as Knative's manifests make it

Path = tuple[str | int, ...]


class Case(NamedTuple):
    """One mistake: in `kind`, what is at `path` becomes `value`. `base`: the objects it is made in."""

    name: str
    kind: str
    path: Path
    value: Any
    sentence: str
    refuses: str = ""
    base: str = "flat"

    @property
    def objects(self) -> list[Object]:
        return edited(ALL[self.base]().objects, self.kind, self.path, self.value)


def edited(objects: Sequence[Object], kind: str, path: Path, value: Any) -> list[Object]:
    """A copy of `objects` where `value` is at `path` of the one of that kind."""
    made = copy.deepcopy(list(objects))
    place: Any = next(thing for thing in made if thing["kind"] == kind)
    for key in path[:-1]:
        place = place[key]
    last: Any = path[-1]
    if value is GONE:
        del place[last]
    elif isinstance(place, list) and last == len(place):
        place.append(value)
    else:
        place[last] = value
    return made


def _annotation(name: str, key: str, value: Any, said: str, refuses: str = "Service") -> Case:
    path = f'{ANNOTATIONS}["{KNATIVE}/{key}"]'
    return Case(name, "Service", (*SCALE, f"{KNATIVE}/{key}"), value, f"Service fraud, {path}: {said}", refuses)


def _service(name: str, path: Path, value: Any, said: str, refuses: str = "Service") -> Case:
    return Case(name, "Service", path, value, f"Service fraud, {said}", refuses)


def _trigger(name: str, key: str, value: Any, said: str) -> Case:
    sentence = f"ScaledObject fraud-stream, spec.triggers[0].metadata.{key}: {said}"
    return Case(name, "ScaledObject", (*TRIGGER, "metadata", key), value, sentence)


_NAME: Final = "is no name for it: up to 63 small letters, digits and -, a letter first, no - at the end."
_QUANTITY: Final = 'is no quantity of Kubernetes, such as "500m" or "512Mi".'
_SET: Final = "=enabled in config-features, namespace knative-serving; set it there, or leave it out."

CASES: Final = (
    # --- annotations of Knative's autoscaler
    _annotation("window-short", "window", "3s", "'3s' is not a time of whole seconds from 6s to 3600s."),
    _annotation("window-long", "window", "2h", "'2h' is not a time of whole seconds from 6s to 3600s."),
    _annotation("window-fraction", "window", "6500ms", "'6500ms' is not a time of whole seconds from 6s to 3600s."),
    _annotation("window-unit", "window", "30", "'30' is not a time of whole seconds from 6s to 3600s."),
    _annotation(
        "retention", "scale-to-zero-pod-retention-period", "90m",
        "'90m' is not a time of whole seconds from 0s to 3600s.",
    ),
    _annotation("metric", "metric", "requests", "'requests' is none of: concurrency, rps."),
    _annotation(
        "class", "class", "kpa.autoscaling.knative.de",
        "'kpa.autoscaling.knative.de' is none of: kpa.autoscaling.knative.dev. "
        "Did you mean `kpa.autoscaling.knative.dev`?", "",
    ),
    _annotation("target-zero", "target", "0", "'0' is not a number from 0.01 on as text, such as \"1\"."),
    _annotation(
        "utilization", "target-utilization-percentage", "0",
        "'0' is not a number from 1 to 100 as text, such as \"1\".",
    ),
    _annotation(
        "min-over-max", "min-scale", "9",
        "9 is more than max-scale, 2; write [scale] min and max the other way round.",
    ),
    _annotation(
        "max-negative", "max-scale", "-1",
        "'-1' is not a whole number from 0 on as text, such as \"1\".",
    ),
    _annotation(
        "min-number", "min-scale", 0, "0 is not a whole number from 0 on as text, such as \"1\"."
    ),
    _annotation(
        "activation-scale", "activation-scale", "5", "5 is not between min-scale 0 and max-scale 2."
    ),
    _annotation(
        "annotation-typo", "windw", "30s",
        "there is no such key here. Did you mean `autoscaling.knative.dev/window`?", "",
    ),
    _annotation("annotation-missing", "target", GONE, "it is missing.", ""),
    _annotation(
        "initial-zero", "initial-scale", "0",
        "0 needs allow-zero-initial-scale=true in config-autoscaler, namespace knative-serving; write 1.",
    ),
    _service(
        "queue-quantity", (*SCALE, "queue.sidecar.serving.knative.dev/memory-resource-limit"), "256MB",
        f'{ANNOTATIONS}["queue.sidecar.serving.knative.dev/memory-resource-limit"]: \'256MB\' {_QUANTITY}',
    ),
    _service(
        "queue-typo", (*SCALE, "queue.sidecar.serving.knative.dev/memory-limit"), "256Mi",
        f'{ANNOTATIONS}["queue.sidecar.serving.knative.dev/memory-limit"]: there is no such key here. '
        "Did you mean `queue.sidecar.serving.knative.dev/memory-resource-limit`?", "",
    ),
    # --- the rest of a Knative Service
    _service(
        "timeout-max", (*POD, "timeoutSeconds"), 6000,
        "spec.template.spec.timeoutSeconds: 6000 is more than this cluster's max-revision-timeout-seconds, 600; lower "
        "[limits] timeout, or raise it in config-defaults.",
    ),
    _service(
        "timeout-short", (*POD, "timeoutSeconds"), 2,
        "spec.template.spec.timeoutSeconds: 2 is too short for a pod to start in, or to end; write 60 at least.", "",
    ),
    _service(
        "concurrency", (*POD, "containerConcurrency"), 5000,
        "spec.template.spec.containerConcurrency: 5000 is more than this cluster's container-concurrency-max-limit, "
        "1000; write 0 for no limit.",
    ),
    _service(
        "ports", (*WORKER, "ports", 1), {"containerPort": 9464, "protocol": "TCP"},
        f"{CONTAINER}.ports: Knative takes one port; leave the others out.",
    ),
    _service(
        "port-reserved", (*WORKER, "ports", 0, "containerPort"), 8012,
        f"{CONTAINER}.ports[0].containerPort: 8012 is Knative's own; name another one.",
    ),
    _service(
        "variable-reserved", (*WORKER, "env", 0, "name"), "PORT",
        f"{CONTAINER}.env[0].name: PORT is Knative's own; name another one.",
    ),
    _service(
        "container-reserved", (*WORKER, "name"), "queue-proxy",
        f"{CONTAINER}.name: queue-proxy is Knative's own; name another one.",
    ),
    _service(
        "field-unknown", (*POD, "timeoutSecond"), 60,
        "spec.template.spec.timeoutSecond: there is no such key here. Did you mean `timeoutSeconds`?",
    ),
    _service(
        "traffic-sum", ("spec", "traffic"), [{"latestRevision": True, "percent": 90}],
        "spec.traffic: the shares sum to 90; they must be 100 together.",
    ),
    _service(
        "traffic-over", ("spec", "traffic"), [{"latestRevision": True, "percent": 120}],
        "spec.traffic[0].percent: 120 is no whole number from 0 to 100.",
    ),
    _service(
        "traffic-both", ("spec", "traffic", 0, "revisionName"), "fraud-00001",
        "spec.traffic[0]: a share is of a revisionName or of the latestRevision, one of the two.",
    ),
    _service(
        "traffic-tag", ("spec", "traffic", 0, "tag"), "Canary", f"spec.traffic[0].tag: 'Canary' {_NAME}"
    ),
    Case(
        "traffic-tags", "Service", ("spec", "traffic", 1, "tag"), "stable",
        "Service fraud, spec.traffic[1].tag: stable is the tag of another share already; name another one.",
        "Service", "private",
    ),
    Case(
        "traffic-other", "Service", ("spec", "traffic", 0, "revisionName"), "froud-00006",
        "Service fraud, spec.traffic[0].revisionName: froud-00006 is no revision of fraud; name one of its own.",
        "", "private",
    ),
    _service(
        "visibility", ("metadata", "labels", "networking.knative.dev/visibility"), "cluster",
        'metadata.labels["networking.knative.dev/visibility"]: \'cluster\' means nothing to Knative; write '
        "cluster-local, or leave the label out.", "",
    ),
    _service(
        "label-value", ("metadata", "labels", "app.kubernetes.io/version"), "3 of 4",
        "metadata.labels[\"app.kubernetes.io/version\"]: '3 of 4' is no value of a label: up to 63 letters, digits, -, "
        "_ and ., a letter or digit at both ends.",
    ),
    _service("name-upper", ("metadata", "name"), "Fraud", "", "Service")._replace(
        sentence=f"Service Fraud, metadata.name: 'Fraud' {_NAME}"
    ),
    _service("name-long", ("metadata", "name"), "f" * 60, "", "")._replace(
        sentence=f"Service {'f' * 60}, metadata.name: {'f' * 60} has 60 characters, and 56 is the most: its canary's "
        "host is canary- and the name."
    ),
    _service(
        "image-tag", (*WORKER, "image"), "registry.example:5000/shop/runtime:latest",
        f"{CONTAINER}.image: 'registry.example:5000/shop/runtime:latest' is no reference with a digest, "
        "host:port/name@sha256:...; a tag may move.", "",
    ),
    _service("memory", (*WORKER, "resources", "limits", "memory"), "512MB",
             f"{CONTAINER}.resources.limits.memory: '512MB' {_QUANTITY}"),
    _service(
        "memory-over", (*WORKER, "resources", "requests", "memory"), "2Gi",
        f"{CONTAINER}.resources.requests.memory: 2Gi is more than the limit, 512Mi.",
    ),
    _service(
        "gpu-part", (*WORKER, "resources", "limits", "nvidia.com/gpu"), "500m",
        f'{CONTAINER}.resources.limits["nvidia.com/gpu"]: \'500m\' is no count such as "1".',
    ),
    _service(
        "root", (*WORKER, "securityContext", "runAsUser"), 0,
        f"{CONTAINER}.securityContext.runAsUser: 0 is no whole number from 1 to 2147483647, and 0 is root.", "",
    ),
    _service(
        "privileges", (*WORKER, "securityContext", "allowPrivilegeEscalation"), True,
        f"{CONTAINER}.securityContext.allowPrivilegeEscalation: True is none of: False.", "",
    ),
    _service(
        "probe-missing", (*WORKER, "readinessProbe"), GONE, f"{CONTAINER}.readinessProbe: it is missing.", ""
    ),
    _service(
        "mount-unknown", (*WORKER, "volumeMounts", 1, "name"), "setings",
        f"{CONTAINER}.volumeMounts[1].name: there is no volume setings.",
    ),
    _service(
        "mount-writable", (*WORKER, "volumeMounts", 1, "readOnly"), False,
        f"{CONTAINER}.volumeMounts[1].readOnly: it must be true: only an emptyDir can be written.", "",
    ),
    _service(
        "mount-reserved", (*WORKER, "volumeMounts", 1, "mountPath"), "/dev",
        f"{CONTAINER}.volumeMounts[1].mountPath: '/dev' is the system's own; mount it elsewhere.",
    ),
    _service(
        "mount-twice", (*WORKER, "volumeMounts", 1, "mountPath"), "/tmp",
        f"{CONTAINER}.volumeMounts[1].mountPath: something else is mounted at /tmp already.",
    ),
    _service(
        "volume-unmounted", (*POD, "volumes", 2), {"name": "more", "emptyDir": {}},
        "spec.template.spec.volumes[2]: nobody mounts more; Knative wants each volume mounted.",
    ),
    # --- what a stock Knative does not allow
    *(
        _service(f"feature-{key}", (*POD, key), value, f"spec.template.spec.{key}: {key} needs kubernetes.{name}{_SET}")
        for key, value, name in (
            ("nodeSelector", {"disk": "ssd"}, "podspec-nodeselector"),
            ("tolerations", [{"key": "gpu", "operator": "Exists"}], "podspec-tolerations"),
            ("affinity", {"nodeAffinity": {}}, "podspec-affinity"),
            ("runtimeClassName", "nvidia", "podspec-runtimeclassname"),
            ("priorityClassName", "high", "podspec-priorityclassname"),
            ("schedulerName", "other", "podspec-schedulername"),
            ("hostNetwork", True, "podspec-hostnetwork"),
            ("securityContext", {"fsGroup": 65532}, "podspec-securitycontext"),
            ("initContainers", [{"name": "first", "image": "registry.example/first"}], "podspec-init-containers"),
        )
    ),
    _service(
        "feature-fieldref", (*WORKER, "env", 0),
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        f"{CONTAINER}.env[0].valueFrom.fieldRef: fieldRef needs kubernetes.podspec-fieldref{_SET}",
    ),
    _service(
        "feature-pvc", (*POD, "volumes", 0), {"name": "tmp", "persistentVolumeClaim": {"claimName": "c"}},
        "spec.template.spec.volumes[0].persistentVolumeClaim: persistentVolumeClaim needs "
        f"kubernetes.podspec-persistent-volume-claim{_SET}",
    ),
    _service(
        "feature-capabilities", (*WORKER, "securityContext", "capabilities", "add"), ["NET_ADMIN"],
        f"{CONTAINER}.securityContext.capabilities.add: add needs kubernetes.containerspec-addcapabilities{_SET}",
    ),
    # --- KEDA
    Case(
        "trigger-type", "ScaledObject", (*TRIGGER, "type"), "kafak",
        "ScaledObject fraud-stream, spec.triggers[0].type: 'kafak' is none of: kafka. Did you mean `kafka`?",
    ),
    _trigger("brokers-missing", "bootstrapServers", GONE, "it is missing."),
    _trigger(
        "brokers-wrong", "bootstrapServers", "kafka",
        "'kafka' names no Kafka brokers as host:port, several with commas; set [stream] broker where you deploy.",
    ),
    _trigger("group-missing", "consumerGroup", GONE, "it is missing."),
    _trigger("topic-missing", "topic", GONE, "it is missing."),
    _trigger(
        "lag-negative", "lagThreshold", "-5",
        "'-5' is not a whole number from 1 on as text, such as \"1\".",
    ),
    _trigger("offsets", "offsetResetPolicy", "newest", "'newest' is none of: earliest, latest."),
    _trigger("trigger-key", "lagTreshold", "5", "there is no such key here. Did you mean `lagThreshold`?"),
    _trigger("unsafe-ssl", "unsafeSsl", "true", "it means nothing without tls: enable; leave it out."),
    Case(
        "trigger-number", "ScaledObject", (*TRIGGER, "metadata", "lagThreshold"), 10000,
        "ScaledObject fraud-stream, spec.triggers[0].metadata.lagThreshold: 10000 is not a whole number from 1 on "
        'as text, such as "1".', "ScaledObject",
    ),
    Case(
        "sasl-without-user", "ScaledObject", (*TRIGGER, "metadata", "sasl"), "plaintext",
        "ScaledObject fraud-stream, spec.triggers[0].authenticationRef: it is missing, and sasl plaintext needs a user "
        "and a password.",
    ),
    Case(
        "replicas", "ScaledObject", ("spec", "minReplicaCount"), 5,
        "ScaledObject fraud-stream, spec.minReplicaCount: 5 is more than maxReplicaCount, 2.", "ScaledObject",
    ),
    Case(
        "no-triggers", "ScaledObject", ("spec", "triggers"), [],
        "ScaledObject fraud-stream, spec.triggers: it must be a list of at least one.", "ScaledObject",
    ),
    Case(
        "scale-target", "ScaledObject", ("spec", "scaleTargetRef", "name"), "froud-stream",
        "ScaledObject fraud-stream, spec.scaleTargetRef.name: there is no Deployment froud-stream among the objects.",
    ),
    Case(
        "scaled-name", "ScaledObject", ("metadata", "name"), "f" * 56,
        f"ScaledObject {'f' * 56}, metadata.name: {'f' * 56} has 56 characters, and 54 is the most: its autoscaler is "
        "called keda-hpa- and the name.", "ScaledObject",
    ),
    Case(
        "authentication", "ScaledObject", (*TRIGGER, "authenticationRef", "name"), "other",
        "ScaledObject fraud-stream, spec.triggers[0].authenticationRef.name: there is no TriggerAuthentication other "
        "among the objects.", "", "secured",
    ),
    Case(
        "parameter", "TriggerAuthentication", ("spec", "secretTargetRef", 4, "key"), "kafka-pasword",
        "TriggerAuthentication fraud-stream, spec.secretTargetRef[4].key: Secret fraud-settings-{hash} holds no "
        "kafka-pasword.", "", "secured",
    ),
    Case(
        "parameter-alone", "TriggerAuthentication", ("spec", "secretTargetRef", 4), GONE,
        "TriggerAuthentication fraud-stream, spec.secretTargetRef: password is missing; it comes with username.", "",
        "secured",
    ),
    # --- Kubernetes' own
    Case(
        "selector", "Deployment", ("spec", "selector", "matchLabels", "sunup.dev/function"), "froud",
        "Deployment fraud-stream, spec.selector.matchLabels[\"sunup.dev/function\"]: pods have 'fraud' there, so the "
        "Deployment would not find its own.", "Deployment",
    ),
    Case(
        "replicas-set", "Deployment", ("spec", "replicas"), 1,
        "Deployment fraud-stream, spec.replicas: there is no such key here. Leave it out.",
    ),
    Case(
        "account", "Deployment", (*POD, "serviceAccountName"), "default",
        "Deployment fraud-stream, spec.template.spec.serviceAccountName: there is no ServiceAccount default among the "
        "objects; render it with them.",
    ),
    Case(
        "variable-twice", "Deployment", (*WORKER, "env", 1, "name"), "SUNUP_ROLE",
        "Deployment fraud-stream, spec.template.spec.containers[0].env[1].name: SUNUP_ROLE is set twice, and the last "
        "one counts.", "Deployment",
    ),
    Case(
        "namespace", "Deployment", ("metadata", "namespace"), "store",
        "Deployment fraud-stream, metadata.namespace: 'store' is not 'shop', where ServiceAccount sunup-worker is; put "
        "them together.", "Deployment",
    ),
    Case(
        "token", "ServiceAccount", ("automountServiceAccountToken",), True,
        "ServiceAccount sunup-worker, automountServiceAccountToken: True is none of: False.",
    ),
    Case(
        "secret-missing", "Service", (*POD, "volumes", 1, "secret", "secretName"), "fraud-settings-00000000",
        "Service fraud, spec.template.spec.volumes[1].secret.secretName: there is no Secret fraud-settings-00000000 in "
        "the namespace; create it first.",
    ),
    Case(
        "secret-base64", "Secret", ("data", "settings.json"), "{}?",
        'Secret fraud-settings-{hash}, data["settings.json"]: it is not base64.', "Secret",
    ),
    Case(
        "secret-large", "Secret", ("data", "kafka-ca.pem"), b64encode(bytes(1024**2)).decode(),
        "Secret fraud-settings-{hash}, data: it holds 1048654 bytes, and 1048576 is the most a Secret can; use smaller "
        "files.", "Secret",
    ),
    Case(
        "secret-json", "Secret", ("data", "settings.json"), b64encode(b"[1]").decode(),
        'Secret fraud-settings-{hash}, data["settings.json"]: it is no JSON object of texts.',
    ),
)  # fmt: skip
