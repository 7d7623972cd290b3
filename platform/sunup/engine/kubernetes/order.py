"""What a deploy is to make of a bundle: its images, pushed, and its objects, rendered and checked."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NamedTuple

from sunup.bundle.manifest import Manifest
from sunup.bundle.store import read_manifest
from sunup.engine.kubernetes.check.check import check
from sunup.engine.kubernetes.check.facts import ClusterFacts, way, why
from sunup.engine.kubernetes.image.push import pull, push_bundle, push_flat
from sunup.engine.kubernetes.image.registry.client import Registry
from sunup.engine.kubernetes.render.objects import render
from sunup.engine.kubernetes.render.scaling import notes
from sunup.engine.kubernetes.render.settings import Packed, packed
from sunup.engine.kubernetes.render.target import Images, Object, Target
from sunup.engine.kubernetes.rollout.traffic import Traffic
from sunup.engine.kubernetes.steps import Steps
from sunup.errors import ClusterError, UsageError
from sunup.settings import EMBEDDED, STREAM_BROKER

STREAM_KINDS: Final = ("Deployment", "TriggerAuthentication", "ScaledObject")


@dataclass(frozen=True, slots=True)
class Delivery:
    """How bundles get to a cluster. `registry`: where images are pushed, HOST[:PORT][/PREFIX]; `runtime`: the pushed
    runtime image; `partitions`: of the function's topic, where known; `pull_secrets`: names of Secrets with which nodes
    fetch images; `api_keys`: the name of a Secret with a key file."""

    registry: str = ""
    runtime: str = ""
    partitions: int | None = None
    pull_secrets: tuple[str, ...] = ()
    api_keys: str = ""


@dataclass(frozen=True, slots=True)
class Order:
    """One bundle for one namespace. `note`: how the bundle gets into pods, and why so."""

    manifest: Manifest
    digest: str
    target: Target
    facts: ClusterFacts
    note: str

    @property
    def function(self) -> str:
        """Its name, and that of its Service."""
        return self.manifest.function

    def objects(self, traffic: Traffic, revision: int | None = None) -> list[Object]:
        """All of them, checked. `revision`: the number that pods of the stream tell. Raises CommandError with
        findings."""
        target = replace(self.target, traffic=traffic, revision=revision)
        made = render(self.manifest, self.digest, target)
        check(made, self.facts)
        return made


class Given(NamedTuple):
    """A bundle's folder in the store, its digest, and what its workers get."""

    folder: Path
    digest: str
    settings: dict[str, str]


def take_order(namespace: str, given: Given, delivery: Delivery, facts: ClusterFacts, steps: Steps) -> Order:
    """Push what pods will need, where it is not there yet, and say what is to be applied. Raises CommandError."""
    folder, digest, settings = given
    manifest = read_manifest(folder)
    _refuse(manifest, settings, facts)
    for text in notes(manifest):
        steps.note(text)
    chosen, kept = way(facts), _pack(settings)
    target = Target(
        namespace=namespace,
        images=Images(),
        way=chosen,
        settings=kept.settings,
        files=kept.files,
        partitions=delivery.partitions,
        pull_secrets=delivery.pull_secrets,
        api_keys=delivery.api_keys,
    )
    with steps.step("images", why(facts)):
        images = _push(folder, digest, manifest.function, delivery, volume=chosen == "volume", steps=steps)
    return Order(manifest, digest, replace(target, images=images), facts, why(facts))


def split_stream(objects: Sequence[Object]) -> tuple[list[Object], list[Object]]:
    """The objects of calls (the Service last), and those of the stream."""
    stream = [one for one in objects if one["kind"] in STREAM_KINDS]
    calls = sorted(
        (one for one in objects if one["kind"] not in STREAM_KINDS), key=lambda one: one["kind"] == "Service"
    )
    return calls, stream


def _pack(settings: dict[str, str]) -> Packed:
    def read(path: str) -> bytes:
        try:
            return Path(path).read_bytes()
        except OSError as error:
            raise UsageError(f"{path} cannot be read, and workers need it: {error.strerror}.") from error

    return packed(settings, read)


def _push(folder: Path, digest: str, function: str, delivery: Delivery, *, volume: bool, steps: Steps) -> Images:
    if not delivery.registry:
        raise UsageError(
            "A cluster fetches images from a registry: say which with --registry HOST[:PORT][/PREFIX] or "
            "SUNUP_REGISTRY."
        )
    if not delivery.runtime:
        raise UsageError(
            "Say which runtime image workers use, with --runtime-image or SUNUP_RUNTIME_IMAGE. `platform image build "
            "--push REGISTRY` makes one and prints its name."
        )
    registry = Registry.of(delivery.registry)

    def sent(blob: str, size: int) -> None:
        steps.tell(f"{blob[7:19]}, {size / 1e6:.1f} MB")

    if volume:
        bundle = push_bundle(folder, digest, function, registry, on_blob=sent)
        return Images(runtime=_by_digest(delivery.runtime, registry), bundle=bundle)
    return Images(flat=push_flat(folder, digest, function, delivery.runtime, registry, on_blob=sent))


def _by_digest(runtime: str, registry: Registry) -> str:
    """A runtime image's reference that never means another image: asked of its registry where it is a tag."""
    if "@sha256:" in runtime:
        return runtime.partition("://")[2] or runtime
    image = pull(runtime, registry)
    named = runtime.partition("://")[2] or runtime
    host, _, path = named.partition("/")
    return f"{host}/{path.partition(':')[0]}@{image.digest}"


def _refuse(manifest: Manifest, settings: dict[str, str], facts: ClusterFacts) -> None:
    """What cannot run on this cluster. Raises ClusterError or UsageError."""
    if not facts.has_knative:
        raise ClusterError(
            "The cluster has no Knative Serving (serving.knative.dev/v1), and functions are Knative Services. Install "
            "it, or name another --context. docs/kubernetes.md says which versions are tested."
        )
    if manifest.stream is not None and not facts.has_keda:
        raise ClusterError(
            f"{manifest.function} reads a topic, and the cluster has no KEDA (keda.sh/v1alpha1) to scale its workers. "
            "Install KEDA, or take [stream] out of function.toml."
        )
    if manifest.stream is not None and settings.get(STREAM_BROKER) == EMBEDDED:
        raise UsageError(
            "The embedded log is a file of one machine; on a cluster [stream] broker has to be Kafka's host:port, as "
            "pods reach it."
        )
