"""What a cluster allows, as it says itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from sunup.engine.kubernetes.render.target import Way

IMAGE_VOLUMES: Final = "kubernetes.podspec-volumes-image"
# Image volumes are in Kubernetes since 1.31, switched on without being asked since 1.35.
IMAGE_VOLUMES_SINCE: Final = (1, 35)


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """`features`, `autoscaler`, `defaults`: the data of config-features, config-autoscaler and config-defaults in the
    namespace knative-serving, as written there. `kubernetes`: major and minor version. `secrets`: the names of those in
    the namespace, None where they may not be listed."""

    features: Mapping[str, str] = field(default_factory=dict)
    autoscaler: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, str] = field(default_factory=dict)
    kubernetes: tuple[int, int] = IMAGE_VOLUMES_SINCE
    has_knative: bool = True
    has_keda: bool = True
    secrets: frozenset[str] | None = None

    def enabled(self, feature: str) -> bool:
        """Whether config-features says so; pkg/apis/config/features.go has the two that need no saying."""
        default = "enabled" if feature in ("kubernetes.podspec-volumes-emptydir", "multi-container") else "disabled"
        return self.features.get(feature, default).lower() == "enabled"


def way(facts: ClusterFacts) -> Way:
    """How the bundle reaches the pod: mounted where the cluster allows it, else in an image of its own."""
    return "volume" if facts.kubernetes >= IMAGE_VOLUMES_SINCE and facts.enabled(IMAGE_VOLUMES) else "flat"


def why(facts: ClusterFacts) -> str:
    """A line about `way`: what was found."""
    if way(facts) == "volume":
        return f"the bundle is mounted as an image volume ({IMAGE_VOLUMES} is enabled)"
    if facts.kubernetes < IMAGE_VOLUMES_SINCE:
        found = f"Kubernetes {version(facts.kubernetes)} mounts no images; {version(IMAGE_VOLUMES_SINCE)} does"
    else:
        found = f"{IMAGE_VOLUMES} is not enabled in config-features"
    return f"the bundle is in an image of its own ({found})"


def version(found: tuple[int, int]) -> str:
    """As people write it: 1.35."""
    return f"{found[0]}.{found[1]}"
