"""Where the kinds that Sunup makes and reads are in a cluster's API.

A table instead of the API's discovery: discovery asks a request per API group, some forty on a managed cluster, and its
client keeps the answers in a file that goes stale.
"""

from typing import Any, Final, NamedTuple

from sunup.errors import ClusterError


class Kind(NamedTuple):
    """`root`: the path of its API group and version; `plural`: its name in paths, and in rules of access."""

    root: str
    plural: str


KINDS: Final = {
    "ConfigMap": Kind("/api/v1", "configmaps"),
    "Event": Kind("/api/v1", "events"),
    "Namespace": Kind("/api/v1", "namespaces"),
    "Pod": Kind("/api/v1", "pods"),
    "Secret": Kind("/api/v1", "secrets"),
    "ServiceAccount": Kind("/api/v1", "serviceaccounts"),
    "Deployment": Kind("/apis/apps/v1", "deployments"),
    "ReplicaSet": Kind("/apis/apps/v1", "replicasets"),
    "HorizontalPodAutoscaler": Kind("/apis/autoscaling/v2", "horizontalpodautoscalers"),
    "NetworkPolicy": Kind("/apis/networking.k8s.io/v1", "networkpolicies"),
    "Service": Kind("/apis/serving.knative.dev/v1", "services"),  # Knative's; Kubernetes' own is never spoken of here
    "Route": Kind("/apis/serving.knative.dev/v1", "routes"),
    "Revision": Kind("/apis/serving.knative.dev/v1", "revisions"),
    "ScaledObject": Kind("/apis/keda.sh/v1alpha1", "scaledobjects"),
    "TriggerAuthentication": Kind("/apis/keda.sh/v1alpha1", "triggerauthentications"),
}
CLUSTER_WIDE: Final = ("Namespace",)


def path_of(kind: str, namespace: str, name: str = "") -> str:
    """The path of one object, or of all of a kind in a namespace. Raises ClusterError for a kind not in the table."""
    found = KINDS.get(kind)
    if found is None:
        raise ClusterError(f"{kind} is no kind of object that Sunup makes. There are: {', '.join(sorted(KINDS))}.")
    place = "" if kind in CLUSTER_WIDE else f"/namespaces/{namespace}"
    return f"{found.root}{place}/{found.plural}" + (f"/{name}" if name else "")


def name_of(made: dict[str, Any]) -> str:
    """An object as sentences name it: Secret fraud-settings-1a2b3c4d."""
    return f"{made['kind']} {made['metadata']['name']}"
