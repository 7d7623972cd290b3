"""What a ScaledObject and a TriggerAuthentication may hold: apis/keda/v1alpha1 and pkg/scalers/kafka_scaler.go of KEDA.

KEDA's webhook takes triggers of unknown types and without brokers; they only never become ready.
"""

from collections.abc import Iterator
from typing import Any, Final

from sunup.engine.kubernetes.check.core import metadata
from sunup.engine.kubernetes.check.findings import each, get, keys
from sunup.engine.kubernetes.check.leaves import (
    anything,
    dns_label,
    dns_name,
    exactly,
    name_1035,
    number,
    secret_key,
    shorter,
    text,
    written,
)
from sunup.engine.kubernetes.check.schema import Each, Problem, Rule, Table
from sunup.engine.kubernetes.render.names import LABEL_CHARS_MAX, MODEL
from sunup.engine.kubernetes.render.stream import KEDA
from sunup.engine.kubernetes.render.target import Object

_NAME: Final = shorter(name_1035, LABEL_CHARS_MAX - len("keda-hpa-"), "its autoscaler is called keda-hpa- and the name")
_YES_NO: Final = exactly("true", "false")
_LAG: Final = written(1)


def _brokers(value: Any) -> str | None:
    parts = value.split(",") if isinstance(value, str) else []
    if parts and all(host and port.isdigit() for host, _, port in (part.rpartition(":") for part in parts)):
        return None
    return f"{value!r} names no Kafka brokers as host:port, several with commas; set [stream] broker where you deploy"


_KAFKA: Final = Table(
    {
        "bootstrapServers": _brokers,
        "consumerGroup": text,
        "topic": text,
        "lagThreshold": _LAG,
        "activationLagThreshold": written(0),
        "offsetResetPolicy": exactly("earliest", "latest"),
        "allowIdleConsumers": _YES_NO,
        "excludePersistentLag": _YES_NO,
        "scaleToZeroOnInvalidOffset": _YES_NO,
        "limitToPartitionsWithLag": _YES_NO,
        "ensureEvenDistributionOfPartitions": _YES_NO,
        "partitionLimitation": text,
        "version": text,
        "tls": exactly("enable", "disable"),
        "unsafeSsl": _YES_NO,
        "sasl": exactly("none", "plaintext", "scram_sha256", "scram_sha512"),
    },
    ("bootstrapServers", "consumerGroup", "topic", "lagThreshold", "offsetResetPolicy"),
)
_TRIGGER: Final = Table(
    {"type": exactly("kafka"), "metadata": _KAFKA, "authenticationRef": Table({"name": dns_label}, ("name",))},
    ("type", "metadata"),
)
_BEHAVIOR: Final = Table(
    {"scaleDown": Table({"stabilizationWindowSeconds": number(0, 3600)}), "scaleUp": anything},
)
_PAUSED: Final[dict[str, Rule]] = {
    "autoscaling.keda.sh/paused": _YES_NO,
    "autoscaling.keda.sh/paused-replicas": written(0),
}
SCALED: Final = Table(
    {
        "apiVersion": exactly(KEDA),
        "kind": exactly("ScaledObject"),
        "metadata": metadata(_NAME, annotations=Table({MODEL: text, **_PAUSED})),
        "spec": Table(
            {
                "scaleTargetRef": Table({"name": dns_label}, ("name",)),
                "pollingInterval": number(1, 3600),
                "cooldownPeriod": number(0, 86_400),
                "minReplicaCount": number(0, 1000),
                "maxReplicaCount": number(1, 1000),
                "advanced": Table({"horizontalPodAutoscalerConfig": Table({"behavior": _BEHAVIOR})}),
                "triggers": Each(_TRIGGER),
            },
            ("scaleTargetRef", "minReplicaCount", "maxReplicaCount", "triggers"),
        ),
    },
    ("apiVersion", "kind", "metadata", "spec"),
)


_PARAMETER: Final = exactly("username", "password", "ca", "cert", "key", "keyPassword")
AUTHENTICATION: Final = Table(
    {
        "apiVersion": exactly(KEDA),
        "kind": exactly("TriggerAuthentication"),
        "metadata": metadata(),
        "spec": Table(
            {
                "secretTargetRef": Each(
                    Table({"parameter": _PARAMETER, "name": dns_name, "key": secret_key}, ("parameter", "name", "key"))
                )
            },
            ("secretTargetRef",),
        ),
    },
    ("apiVersion", "kind", "metadata", "spec"),
)


def scaled_problems(thing: Object) -> Iterator[Problem]:
    """What is wrong between the parts of a ScaledObject."""
    low, high = get(thing, "spec", "minReplicaCount"), get(thing, "spec", "maxReplicaCount")
    if isinstance(low, int) and isinstance(high, int) and low > high:
        yield "spec.minReplicaCount", f"{low} is more than maxReplicaCount, {high}"
    for place, trigger in enumerate(each(thing, "spec", "triggers")):
        at, said = f"spec.triggers[{place}]", keys(trigger, "metadata")
        if said.get("allowIdleConsumers") == "true" and said.get("limitToPartitionsWithLag") == "true":
            yield f"{at}.metadata.allowIdleConsumers", "it does not go with limitToPartitionsWithLag; leave one out"
        if said.get("sasl", "none") != "none" and "authenticationRef" not in trigger:
            yield f"{at}.authenticationRef", f"it is missing, and sasl {said['sasl']} needs a user and a password"
        if said.get("unsafeSsl") == "true" and said.get("tls") != "enable":
            yield f"{at}.metadata.unsafeSsl", "it means nothing without tls: enable; leave it out"
