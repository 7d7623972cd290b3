"""A registry that goes away, loses answers, takes nothing, or nothing large: a push goes on, or says what to do."""

import os
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.image_parts import runtime_image
from tests.ports import free_port
from tests.proxy import Proxy
from tests.registry_server import RegistryServer, skopeo

from sunup.engine.kubernetes.image.layer import Entry, write_layer
from sunup.engine.kubernetes.image.model import Image
from sunup.engine.kubernetes.image.push import pull, push_bundle, push_image
from sunup.engine.kubernetes.image.registry.client import Registry
from sunup.engine.kubernetes.image.registry.reference import parse_address
from sunup.engine.kubernetes.image.registry.wire import Wire
from sunup.errors import ImageError
from sunup.limits import IMAGE_CHUNK_BYTES, IMAGE_PAUSE_SECONDS_MAX, IMAGE_TRIES_MAX


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RegistryServer]:
    """A registry of the test's own, running."""
    server = RegistryServer(tmp_path / "images")
    server.start()
    yield server
    server.stop()


def test_a_registry_that_comes_back_is_waited_for(server: RegistryServer, tmp_path: Path) -> None:
    image = runtime_image(tmp_path)
    waited: list[float] = []

    def pause(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 2:
            server.start()

    server.stop()
    registry = Registry(Wire(parse_address(server.host), environment={}, pause=pause))
    reference = push_image(image, registry, "back", "1")
    assert len(waited) == 2
    assert waited[0] < waited[1] <= IMAGE_PAUSE_SECONDS_MAX
    assert skopeo("inspect", "--tls-verify=false", f"docker://{reference}")


def test_a_registry_that_stays_away_is_given_up(server: RegistryServer, tmp_path: Path) -> None:
    waited: list[float] = []
    server.stop()
    registry = Registry(Wire(parse_address(server.host), environment={}, pause=waited.append))
    with pytest.raises(ImageError, match=rf"{server.host} cannot be reached: .*refused.*--registry"):
        push_image(runtime_image(tmp_path), registry, "away", "1")
    assert len(waited) == IMAGE_TRIES_MAX - 1


def test_a_host_that_there_is_not_is_said_at_once(tmp_path: Path) -> None:
    wire = Wire(parse_address("registry.invalid/x"), environment={}, pause=lambda _: pytest.fail("waited"))
    with pytest.raises(ImageError, match=r"There is no host registry\.invalid"):
        push_image(runtime_image(tmp_path), Registry(wire), "nowhere", "1")


def test_an_answer_that_is_lost_is_no_second_upload(server: RegistryServer, tmp_path: Path) -> None:
    image = runtime_image(tmp_path)
    with Proxy(server.port).running() as proxy:
        registry = Registry(Wire(parse_address(f"127.0.0.1:{proxy.port}"), environment={}, pause=lambda _: None))
        repository = registry.repository("lost")
        assert not repository.has(image.blobs[0].descriptor)

        class Cut:
            """A blob whose answer does not arrive."""

            descriptor = image.blobs[0].descriptor

            def open(self) -> object:
                proxy.cut = True
                return image.blobs[0].open()

        repository.put(Cut())  # type: ignore[arg-type]
        assert proxy.cuts == 1
        reference = push_image(image, registry, "lost", "1")
    assert sum("digest=" in request for request in server.requests()) == len(image.blobs)  # each was sent once
    assert skopeo("inspect", "--tls-verify=false", f"docker://{server.host}/{reference.partition('/')[2]}")


def test_a_registry_that_only_reads(tmp_path: Path) -> None:
    writable = RegistryServer(tmp_path / "images").start()
    writable.stop()
    storage = {"filesystem": {"rootdirectory": str(writable.data)}, "maintenance": {"readonly": {"enabled": True}}}
    server = RegistryServer(tmp_path / "images", storage=storage).start()
    try:
        with pytest.raises(ImageError, match="it takes no images, as a mirror or a cache does"):
            push_image(runtime_image(tmp_path), Registry.of(server.host, environment={}), "mirror", "1")
    finally:
        server.stop()


def test_an_image_that_there_is_not(server: RegistryServer) -> None:
    registry = Registry.of(server.host, environment={})
    with pytest.raises(ImageError, match=rf"There is no image {server.host}/runtime:1"):
        pull(f"{server.host}/runtime:1", registry)


def test_a_layer_that_was_changed_in_the_registry_is_noticed(server: RegistryServer, tmp_path: Path) -> None:
    registry = Registry.of(server.host, environment={})
    reference = push_image(runtime_image(tmp_path), registry, "changed", "1")
    layer = pull(reference, registry).layers[1].blob
    digest = layer.descriptor.digest.removeprefix("sha256:")
    data = server.data / f"docker/registry/v2/blobs/sha256/{digest[:2]}/{digest}/data"
    data.write_bytes(bytes(layer.descriptor.size))
    with pytest.raises(ImageError, match="not what its digest says"):
        layer.open()


def test_no_room_for_a_layer_is_said(
    server: RegistryServer, image_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry.of(server.host, environment={})
    runtime = push_image(runtime_image(tmp_path), registry, "runtime", "1")
    layer = pull(runtime, registry).layers[1].blob
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(ImageError, match=r"No such file or directory\. TMPDIR may name"):
        push_bundle(image_bundle, image_bundle.name, "fraud", registry)
    with pytest.raises(ImageError, match=r"No such file or directory\. TMPDIR may name"):
        layer.open()


@pytest.fixture
def narrow(server: RegistryServer, tmp_path: Path) -> Iterator[str]:
    """An nginx before the registry that takes requests of 5 MB at most, as many proxies do."""
    found = shutil.which("nginx", path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail("nginx is not installed: infra/nginx.sh gets it")
        pytest.skip("nginx is not installed: infra/nginx.sh gets it")
    port, folder = free_port(), tmp_path / "nginx"
    folder.mkdir()
    temporary = " ".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"""daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
        events {{}}
        http {{ access_log off; client_max_body_size 5m; {temporary}
        server {{ listen 127.0.0.1:{port};
        location / {{ proxy_pass http://{server.host}; proxy_set_header Host $http_host; }} }} }}"""
    )
    process = subprocess.Popen([found, "-p", folder, "-c", folder / "nginx.conf", "-e", folder / "error.log"])
    registry = Registry.of(f"127.0.0.1:{port}", environment={})
    deadline = time.monotonic() + 30
    while True:
        try:
            registry.repository("probe").find("1")
        except ImageError:
            assert time.monotonic() < deadline
        else:
            break
    yield f"127.0.0.1:{port}"
    process.terminate()
    process.wait()


def test_a_layer_too_large_for_a_proxy_goes_in_pieces(narrow: str, server: RegistryServer, tmp_path: Path) -> None:
    size = 3 * IMAGE_CHUNK_BYTES - 1000
    layer = write_layer([Entry("weights", 0o644, data=os.urandom(size))], tmp_path / "large")
    pieces = -(-layer.blob.descriptor.size // IMAGE_CHUNK_BYTES)
    image = Image((layer,))
    reference = push_image(image, Registry.of(narrow, environment={}), f"p{uuid.uuid4().hex[:8]}", "1")
    assert server.asked("PATCH") == pieces - 1  # the last one comes with the end
    skopeo("copy", "--src-tls-verify=false", f"docker://{reference}", f"dir:{tmp_path}/whole")
    assert (
        push_image(image, Registry.of(narrow, environment={}), reference.split("/")[1].split("@")[0], "1") == reference
    )
