"""What a function's objects depend on beside its manifest: the images, the namespace, the settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Way: TypeAlias = Literal["volume", "flat"]  # how the bundle reaches the pod: mounted, or in the pod's own image
Object: TypeAlias = dict[str, Any]  # one of Kubernetes' objects, as its JSON


@dataclass(frozen=True, slots=True)
class Images:
    """References with a digest: host:port/name@sha256:... `runtime`: Python and Sunup; `bundle`: the bundle's files at
    the image's root, for way "volume"; `flat`: both, the bundle under /bundle, for way "flat"."""

    runtime: str = ""
    bundle: str | None = None
    flat: str | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """Where and how. `settings`: what workers get, of which paths are those in the pod (see settings.packed); `files`:
    what lies beside them there, by name. `partitions`: of the topic, where they are known. `traffic`: shares of the
    revisions (see rollout/traffic.py), None for all to the newest one. `revision`: the number stream pods tell; pods of
    calls have Knative's. `api_keys`: a Secret whose key `keys.jsonl` is a key file; `pull_secrets`: Secrets that images
    are pulled with."""

    namespace: str
    images: Images
    way: Way
    settings: Mapping[str, str] = field(default_factory=dict, repr=False)
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    partitions: int | None = None
    traffic: Sequence[Mapping[str, Any]] | None = None
    revision: int | None = None
    api_keys: str = ""
    pull_secrets: tuple[str, ...] = ()
