"""The runtime image: made twice it is the same, and what a worker needs runs in it, as nobody and with nothing to write
to."""

import base64
import csv
import hashlib
import json
import shutil
import signal
import struct
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.image_root import ImageRoot, needed
from tests.ports import free_port
from tests.registry_server import RegistryServer, skopeo
from tests.small_bundle import logistic, make_bundle
from tests.unit.working import RECORD, ROWS, SCORE
from tests.worker_modules import WORKER_MODULES

import sunup
from sunup.engine.kubernetes.image.model import Image, architecture
from sunup.engine.kubernetes.image.push import pull, push_flat, push_image
from sunup.engine.kubernetes.image.registry.client import Registry
from sunup.engine.kubernetes.image.runtime.build import PYTHON, REPOSITORY, build, sources, tag_of
from sunup.engine.kubernetes.image.runtime.cache import Cache
from sunup.engine.kubernetes.image.runtime.debian import candidates
from sunup.errors import ImageError

START_SECONDS_MAX = 60.0
pytestmark = pytest.mark.timeout(900)  # apt and uv fetch 50 MB when nothing of it is there


def made(cache: Cache) -> Image:
    return build(sources(Path(sunup.__file__).parent), cache, on_stage=lambda *_: None)


@pytest.fixture(scope="module")
def image() -> Image:
    needed()
    return made(Cache.usual())


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    return folder / make_bundle(folder, logistic(3), ROWS)


@pytest.fixture(scope="module")
def root(
    image: Image, bundle: Path, registry_server: RegistryServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ImageRoot]:
    """The runtime image and a bundle as one flat image, through a registry, unpacked."""
    registry = Registry.of(f"{registry_server.host}/runtime-test", environment={})
    runtime = push_image(image, registry, REPOSITORY, tag_of(image))
    reference = push_flat(bundle, bundle.name, "score", runtime, registry)
    found = json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{reference}"))
    assert found["Architecture"] == architecture()
    folder = tmp_path_factory.mktemp("flat") / "root"
    yield ImageRoot(pull(reference, registry), folder)
    shutil.rmtree(folder)


def test_made_again_from_nothing_it_is_the_same(image: Image, tmp_path: Path) -> None:
    again = made(Cache(tmp_path))
    assert [layer.diff_id for layer in again.layers] == [layer.diff_id for layer in image.layers]
    assert again.digest == image.digest
    assert tag_of(again) == tag_of(image)


def test_what_is_made_already_is_not_made_again(image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cache, "_keep", None)
    assert made(Cache.usual()).digest == image.digest


def test_a_package_that_debian_has_not_is_named() -> None:
    needed()
    with pytest.raises(ImageError, match=r"\(apt-get update may help\).*no-such-package"):
        candidates(["libc6", "no-such-package"])


def test_its_config(image: Image) -> None:
    assert image.run["Entrypoint"] == [f"/usr/bin/python{PYTHON}", "-m", "sunup.serve.pod"]
    assert image.run["User"] == "65532:65532"
    assert image.manifest.descriptor.size < 4000
    assert "created" not in json.loads(image.config.data)


def test_everything_a_worker_imports_is_there(root: ImageRoot) -> None:
    optional = [
        "kafka",
        "crc32c",
        "confluent_kafka",
        "fastavro",
        "psycopg",
        "psycopg_binary",
        "PIL",
        "opentelemetry.sdk",
    ]
    optional += ["opentelemetry.exporter.otlp.proto.http.trace_exporter"]
    entries = ["sunup.serve.worker", "sunup.serve.nursery", "sunup.serve.streams.worker", "sunup.cli.main"]
    names = [*sorted(WORKER_MODULES - {"cython_runtime", "sniffio"}), *optional, *entries]
    said = root.python(f"import importlib\nfor name in {names}: importlib.import_module(name)\nprint('all')")
    assert said.splitlines()[-1] == "all"


def test_what_python_expects_of_a_system_is_there(root: ImageRoot) -> None:
    code = """
import ctypes, importlib.metadata, os, socket, sqlite3, ssl, zoneinfo
print(os.getuid(), os.getgid(), os.getgroups())
print(len(ssl.create_default_context().get_ca_certs()) > 50, os.path.getsize("/usr/lib/ssl/cert.pem") > 100_000)
print(zoneinfo.ZoneInfo("Europe/Berlin").key, "Asia/Kolkata" in zoneinfo.available_timezones())
print(socket.getservbyname("https"), socket.getprotobyname("tcp"))
print(ctypes.CDLL("libgomp.so.1") is not None, sqlite3.connect(":memory:").execute("select 1").fetchone())
print(importlib.metadata.version("sunup"), importlib.metadata.version("numpy") > "2")
print(os.path.expanduser("~"), "é".encode(os.sys.getfilesystemencoding()))
"""
    assert root.python(code).splitlines() == [
        "65532 65532 [65532]",
        "True True",
        "Europe/Berlin True",
        "443 6",
        "True (1,)",
        f"{sunup.__version__} True",
        r"/tmp b'\xc3\xa9'",
    ]


def test_nothing_but_tmp_can_be_written_to(root: ImageRoot) -> None:
    code = """
import os
for path in ("/x", "/usr/lib/x", "/var/x", "/home/x", "/etc/x", "/bundle/x", "/tmp/x"):
    try:
        open(path, "w").close()
    except OSError:
        pass
    else:
        print(path)
"""
    assert root.python(code).split() == ["/tmp/x"]


def test_every_library_finds_those_it_needs(root: ImageRoot) -> None:
    code = """
import ctypes, os
found = []
for top, _, files in os.walk("/"):
    if top.startswith(("/proc", "/sys", "/dev", "/tmp")):
        continue
    found += [os.path.join(top, name) for name in files if name.endswith(".so") or ".so." in name]
failed = []
pid = 0
for path in sorted(set(map(os.path.realpath, found))):
    pid = os.fork()  # what a library does when it is loaded concerns none of the others
    if not pid:
        try:
            ctypes.CDLL(path)
        except OSError as error:
            print(path, error, flush=True)
            os._exit(1)
        os._exit(0)
    failed += [path] if os.waitpid(pid, 0)[1] else []
print(len(found) > 150, failed)
"""
    assert root.python(code).splitlines()[-1] == "True []"


def test_it_is_compiled_and_says_nothing_of_where(root: ImageRoot) -> None:
    compiled = set(root.root.rglob("*.pyc"))
    sources_ = [path for path in root.root.rglob("*.py") if "/usr/share/" not in str(path)]
    without = [
        path for path in sources_ if not list((path.parent / "__pycache__").glob(f"{path.stem}.cpython-311.pyc"))
    ]
    assert len(compiled) > 2000
    assert without == []
    for path in compiled:
        head = path.read_bytes()
        assert struct.unpack("<I", head[4:8])[0] == 1, path  # checked by nobody: PEP 552
    here = [b"/content/root", b"/content/wheels", b"/content/sunup", str(Path(sunup.__file__).parents[2]).encode()]
    for path in (*compiled, *root.root.rglob("*.dist-info/*")):
        data = path.read_bytes() if path.is_file() else b""
        assert not any(place in data for place in here), path


def test_its_packages_are_those_that_were_published(root: ImageRoot) -> None:
    packages = root.root / f"usr/local/lib/python{PYTHON}/dist-packages"
    checked = 0
    for record in packages.glob("*.dist-info/RECORD"):
        for name, digest, _ in csv.reader(record.read_text("utf-8").splitlines()):
            if digest:
                kind, _, wanted = digest.partition("=")
                found = hashlib.new(kind, (packages / name).read_bytes()).digest()
                assert base64.urlsafe_b64encode(found).rstrip(b"=").decode() == wanted, name
                checked += 1
    assert checked > 1500
    assert not [path for path in packages.rglob("*") if path.is_dir() and path.name in ("bin", "tests")]


def test_a_scanner_finds_out_what_is_in_it(root: ImageRoot) -> None:
    status = root.root / "var/lib/dpkg/status.d"
    assert (status / "libssl3").read_text().startswith("Package: libssl3\n")
    assert "VERSION_CODENAME=bookworm" in (root.root / "etc/os-release").read_text()
    licences = {path.parent.name for path in (root.root / "usr/share/doc").glob("*/copyright")}
    assert {"libc6", "libssl3"} <= licences
    assert not list(root.root.rglob("*.deb"))


def test_a_bundle_is_proven_in_it(root: ImageRoot) -> None:
    code = "from pathlib import Path; from sunup.function import load\n"
    code += "print(load(Path('/bundle'), settings={}, prove=True))"
    assert "score" in root.python(code)


def test_a_flat_image_has_the_bundle_where_pods_look(root: ImageRoot, bundle: Path) -> None:
    code = "from pathlib import Path; from sunup.bundle.store import examine; print(examine(Path('/bundle'), None))"
    assert root.python(code).strip() == bundle.name


def test_its_entrypoint_answers(root: ImageRoot, bundle: Path, tmp_path: Path) -> None:
    port, metrics = free_port(), free_port()
    given = {"PORT": str(port), "METRICS_PORT": str(metrics), "SUNUP_DIGEST": bundle.name}
    log = tmp_path / "log"
    with root.started(log=log, environment=given) as process:
        deadline = time.monotonic() + START_SECONDS_MAX
        while not ready(f"http://127.0.0.1:{port}/v2/health/ready"):
            assert time.monotonic() < deadline, log.read_text()
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)  # the only sign that a server listens is that it does
        url = f"http://127.0.0.1:{port}/functions/score"
        request = urllib.request.Request(url, RECORD, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            (prediction,) = json.load(answer)["predictions"]
            assert prediction["score"] == pytest.approx(SCORE)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, log.read_text()


def ready(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except (urllib.error.URLError, ConnectionError):
        return False
    return True
