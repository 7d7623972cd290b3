"""Images into a real registry, read again by skopeo, which knows nothing of Sunup."""

import json
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from tests.image_parts import runtime_image, written
from tests.registry_server import (
    RegistryServer,
    skopeo,
)

from sunup.engine.kubernetes.image.layer import contents
from sunup.engine.kubernetes.image.model import INDEX_TYPE, Image, held
from sunup.engine.kubernetes.image.push import pull, push_bundle, push_flat, push_image
from sunup.engine.kubernetes.image.registry.client import Registry
from sunup.errors import BundleDamaged

SENT = ("POST", "PUT", "PATCH")


@pytest.fixture
def prefix() -> str:
    """A place in the shared registry that nobody else uses."""
    return f"t{uuid.uuid4().hex[:12]}/ml"


@pytest.fixture
def registry(registry_server: RegistryServer, prefix: str) -> Registry:
    return Registry.of(f"{registry_server.host}/{prefix}", environment={})


def names(layer: Path) -> list[str]:
    with layer.open("rb") as file:
        return [member.name for member, _ in contents(file)]


def test_a_bundle_lies_at_the_root_of_its_image(
    image_bundle: Path, registry: Registry, registry_server: RegistryServer, prefix: str, tmp_path: Path
) -> None:
    reference = push_bundle(image_bundle, image_bundle.name, "Fraud_Check", registry)

    repository = f"{registry_server.host}/{prefix}/fraud_check"
    assert reference.startswith(f"{repository}@sha256:")
    manifest = json.loads(skopeo("inspect", "--tls-verify=false", "--raw", f"docker://{reference}"))
    assert manifest["annotations"]["sunup.dev/digest"] == image_bundle.name
    assert [layer["mediaType"] for layer in manifest["layers"]] == ["application/vnd.oci.image.layer.v1.tar+gzip"]
    tagged = json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{repository}:bundle-{image_bundle.name}"))
    assert tagged["Digest"] == reference.partition("@")[2]
    assert tagged["Os"] == "linux"
    assert "Created" not in tagged or tagged["Created"] in (None, "0001-01-01T00:00:00Z")
    skopeo("copy", "--src-tls-verify=false", f"docker://{reference}", f"dir:{tmp_path}/copied")
    layer = tmp_path / "copied" / manifest["layers"][0]["digest"].removeprefix("sha256:")
    with layer.open("rb") as file:
        found = {member.name: (data, member) for member, data in contents(file)}
    assert {name: data for name, (data, _) in found.items()} == {
        path.name: path.read_bytes() for path in image_bundle.iterdir()
    }
    for _, member in found.values():
        assert (member.uid, member.gid, member.mtime, member.mode) == (0, 0, 0, 0o644)


def test_what_is_there_is_not_sent_again(
    image_bundle: Path, registry: Registry, registry_server: RegistryServer
) -> None:
    told: list[str] = []
    first = push_bundle(
        image_bundle, image_bundle.name, "again", registry, on_blob=lambda digest, _: told.append(digest)
    )
    assert len(told) == 2  # layer and config
    sent, asked = registry_server.asked(*SENT), len(registry_server.requests())

    assert (
        push_bundle(image_bundle, image_bundle.name, "again", registry, on_blob=lambda digest, _: told.append(digest))
        == first
    )

    assert registry_server.asked(*SENT) == sent
    assert len(registry_server.requests()) - asked == 1  # what the tag names
    assert len(told) == 2


def test_a_tag_that_is_gone_is_written_again_and_nothing_else(
    image_bundle: Path, registry: Registry, registry_server: RegistryServer, prefix: str
) -> None:
    first = push_bundle(image_bundle, image_bundle.name, "untagged", registry)
    tags = registry_server.data / f"docker/registry/v2/repositories/{prefix}/untagged/_manifests/tags"
    (tags / f"bundle-{image_bundle.name}").rename(registry_server.folder / uuid.uuid4().hex)
    sent = registry_server.asked(*SENT)

    assert push_bundle(image_bundle, image_bundle.name, "untagged", registry) == first

    assert registry_server.asked(*SENT) - sent == 1
    assert "PUT" in registry_server.requests()[-1]
    assert "/manifests/" in registry_server.requests()[-1]


def test_another_image_under_the_bundles_tag_is_not_taken_for_it(
    image_bundle: Path, registry: Registry, tmp_path: Path
) -> None:
    tag = f"bundle-{image_bundle.name}"
    other = push_image(runtime_image(tmp_path), registry, "fraud", tag)
    reference = push_bundle(image_bundle, image_bundle.name, "fraud", registry)
    assert reference != other
    found = registry.repository("fraud").find(tag)
    assert found is not None
    assert reference.endswith(found.descriptor.digest)


def test_a_flat_image_is_the_runtime_with_the_bundle_on_top(
    image_bundle: Path, registry: Registry, registry_server: RegistryServer, tmp_path: Path
) -> None:
    runtime = push_image(runtime_image(tmp_path), registry, "sunup-runtime", "1")
    before = registry_server.requests()

    flat = push_flat(image_bundle, image_bundle.name, "fraud", runtime, registry)

    sent = [request for request in registry_server.requests()[len(before) :] if request.startswith(SENT)]
    assert sum("mount=" in request for request in sent) == 2  # the runtime's layers go from repository to repository
    assert sum("digest=" in request for request in sent) == 2  # the bundle's layer and the config are sent
    facts = json.loads(skopeo("inspect", "--tls-verify=false", "--config", f"docker://{flat}"))
    assert facts["config"] == {"Entrypoint": ["/usr/bin/run"], "User": "65532", "Env": ["PATH=/usr/bin"]}
    skopeo("copy", "--src-tls-verify=false", f"docker://{flat}", f"oci:{tmp_path}/flat:x")
    manifest = json.loads(skopeo("inspect", "--raw", f"oci:{tmp_path}/flat:x"))
    layers = [tmp_path / "flat/blobs/sha256" / layer["digest"].removeprefix("sha256:") for layer in manifest["layers"]]
    assert [names(layer) for layer in layers[:2]] == [["etc", "etc/name", "tmp"], ["usr", "usr/bin", "usr/bin/run"]]
    assert names(layers[2]) == ["bundle", *sorted(f"bundle/{path.name}" for path in image_bundle.iterdir())]
    assert manifest["annotations"]["org.opencontainers.image.base.digest"] == runtime.partition("@")[2]
    assert push_flat(image_bundle, image_bundle.name, "fraud", runtime, registry) == flat


def test_a_runtime_of_another_registry_is_copied(image_bundle: Path, registry: Registry, tmp_path: Path) -> None:
    other = RegistryServer(tmp_path / "other").start()
    try:
        elsewhere = Registry.of(other.host, environment={})
        runtime = push_image(runtime_image(tmp_path), elsewhere, "runtime", "1")
        flat = push_flat(image_bundle, image_bundle.name, "copied", runtime, registry)
        assert [layer.diff_id for layer in pull(flat, registry).layers][:2] == [
            layer.diff_id for layer in pull(runtime, registry).layers
        ]
    finally:
        other.stop()
    skopeo("copy", "--src-tls-verify=false", f"docker://{flat}", f"dir:{tmp_path}/whole")


def test_of_an_index_the_image_for_this_machine_is_taken(
    registry: Registry, registry_server: RegistryServer, prefix: str, tmp_path: Path
) -> None:
    image = runtime_image(tmp_path)
    push_image(image, registry, "many", "one")
    platform = {"os": "linux", "architecture": image.config.data.decode().split('"')[3]}
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [
            {**image.manifest.descriptor.facts(), "digest": f"sha256:{'0' * 64}", "platform": {"os": "windows"}},
            {**image.manifest.descriptor.facts(), "platform": platform},
        ],
    }
    (tmp_path / "index.json").write_text(json.dumps(index))
    found = pull_index(registry, tmp_path / "index.json", f"{registry_server.host}/{prefix}/many")
    assert [layer.diff_id for layer in found.layers] == [layer.diff_id for layer in image.layers]


def pull_index(registry: Registry, path: Path, name: str) -> Image:
    """Push an index by hand, and pull what it means here."""
    index = json.loads(path.read_text())
    index["manifests"] = index["manifests"][1:]  # the registry wants to have everything an index names
    registry.repository("many").put_manifest(held(INDEX_TYPE, json.dumps(index).encode()), "all")
    return pull(f"{name}:all", registry)


PUSHER = """
import sys
from dataclasses import dataclass
from pathlib import Path
from tests.image_parts import runtime_image
from sunup.engine.kubernetes.image.model import Layer
from sunup.engine.kubernetes.image.push import push_image
from sunup.engine.kubernetes.image.registry.client import Registry

@dataclass
class Stalled:  # a file of which half is read, and then never more
    file: object
    left: int
    def read(self, size):
        if not self.left:
            print("half", flush=True)
            sys.stdin.read()
        size = min(size, self.left)
        self.left -= size
        return self.file.read(size)
    def __enter__(self):
        return self
    def __exit__(self, *_):
        self.file.close()

class Slow:
    def __init__(self, blob):
        self.blob, self.descriptor = blob, blob.descriptor
    def open(self):
        return Stalled(self.blob.open(), self.descriptor.size // 2)

host, scratch, stalls = sys.argv[1:]
image = runtime_image(Path(scratch))
layers = list(image.layers)
slow = layers[int(stalls)]
layers[int(stalls)] = Layer(Slow(slow.blob), slow.diff_id)
image = type(image)(tuple(layers), image.run, image.annotations)
push_image(image, Registry.of(host, environment={}), "killed", "1")
"""


@pytest.mark.parametrize("stalls", [0, 1])
def test_killed_in_the_middle_of_a_push_the_next_one_makes_it_whole(
    registry: Registry, registry_server: RegistryServer, prefix: str, tmp_path: Path, stalls: int
) -> None:
    command = [sys.executable, "-c", PUSHER, f"{registry_server.host}/{prefix}", str(tmp_path), str(stalls)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"half\n"
        process.send_signal(signal.SIGKILL)
    assert registry.repository("killed").find("1") is None  # no manifest before its layers

    image = written(tmp_path)
    sent = registry_server.asked("PUT")
    reference = push_image(image, registry, "killed", "1")

    assert registry_server.asked("PUT") - sent == 4 - stalls  # two layers, config and manifest; what was whole stays
    skopeo("copy", "--src-tls-verify=false", f"docker://{reference}", f"dir:{tmp_path}/whole")


def test_a_damaged_bundle_is_not_pushed(
    image_bundle: Path, registry: Registry, registry_server: RegistryServer
) -> None:
    asked = len(registry_server.requests())
    with pytest.raises(BundleDamaged, match="does not match the bundle's digest"):
        push_bundle(image_bundle, "0" * 64, "damaged", registry)
    assert len(registry_server.requests()) == asked
