"""What a cluster allows and runs, as far as we may read it."""

from typing import Final

from sunup.engine.kubernetes.check.facts import ClusterFacts
from sunup.engine.kubernetes.cluster.cluster import Cluster
from sunup.errors import ClusterError

KNATIVE: Final = "knative-serving"  # the namespace that holds Knative's own configuration
_CONFIGS: Final = ("config-features", "config-autoscaler", "config-defaults")


def read_facts(cluster: Cluster) -> ClusterFacts:
    """Kubernetes' version, whether Knative and KEDA are there, what Knative's configuration says.

    Configuration that we may not read counts as empty: then only what always works is used. Raises ClusterError.
    """
    version = cluster.version()
    has_knative, has_keda = cluster.serves("Service"), cluster.serves("ScaledObject")
    features, autoscaler, defaults = (_data(cluster, name) if has_knative else {} for name in _CONFIGS)
    return ClusterFacts(
        features=features,
        autoscaler=autoscaler,
        defaults=defaults,
        kubernetes=version,
        has_knative=has_knative,
        has_keda=has_keda,
        secrets=_secrets(cluster),
    )


def _data(cluster: Cluster, name: str) -> dict[str, str]:
    try:
        found = cluster.get("ConfigMap", name, KNATIVE)
    except ClusterError as error:
        if error.status == 403:
            return {}
        raise
    # Knative's own files carry an example of every key; what counts is beside it.
    return {key: value for key, value in (found or {}).get("data", {}).items() if not key.startswith("_")}


def _secrets(cluster: Cluster) -> frozenset[str] | None:
    try:
        return frozenset(one["metadata"]["name"] for one in cluster.select("Secret"))
    except ClusterError as error:
        if error.status == 403:
            return None
        raise
