"""`platform image` as a person uses it."""

import json
from pathlib import Path

import pytest
from tests.image_root import needed
from tests.registry_server import RegistryServer, skopeo
from tests.service.test_cli import platform
from tests.small_bundle import logistic, make_bundle
from tests.unit.working import ROWS


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "functions").mkdir()
    return tmp_path


@pytest.fixture
def bundle(project: Path) -> Path:
    """A bundle in the project's store."""
    store = project / ".sunup" / "bundles"
    store.mkdir(parents=True)
    return store / make_bundle(store, logistic(3), ROWS, function="fraud")


def test_a_bundle_is_pushed_by_its_digest(project: Path, bundle: Path, registry_server: RegistryServer) -> None:
    where = f"{registry_server.host}/cli"
    done = platform(project, "image", "push", bundle.name[:12], "--registry", where, "--json").json
    assert done["function"] == "fraud"
    assert done["bundle"] == bundle.name
    assert done["reference"].startswith(f"{where}/fraud@sha256:")
    again = platform(project, "image", "push", str(bundle), SUNUP_REGISTRY=where)
    assert again.code == 0
    assert done["reference"] in again.out
    assert "push" in again.err
    assert skopeo("inspect", "--tls-verify=false", f"docker://{done['reference']}")


def test_a_bundle_is_written(project: Path, bundle: Path) -> None:
    assert platform(project, "image", "push", str(bundle), "--output", "fraud.tar").code == 0
    found = json.loads(skopeo("inspect", f"oci-archive:{project / 'fraud.tar'}"))
    assert len(found["Layers"]) == 1
    assert "already there" in platform(project, "image", "push", str(bundle), "--output", "fraud.tar").refused(2)


def test_what_is_missing_is_said(project: Path, bundle: Path) -> None:
    assert "--registry HOST" in platform(project, "image", "push", str(bundle)).refused(2)
    assert "neither a bundle" in platform(project, "image", "push", "0000", "--registry", "localhost:1").refused(2)
    assert "docker.io/me" in platform(project, "image", "push", str(bundle), "--registry", "me").refused(2)
    refused = platform(project, "image", "push", str(bundle), "--registry", "registry.invalid/x").refused(1)
    assert "There is no host registry.invalid" in refused
    # Said before anything is made.
    assert "lower case" in platform(project, "image", "build", "--push", "x.com/Ml").refused(2)


@pytest.mark.timeout(900)
def test_the_runtime_image_is_made_and_pushed_and_bundles_go_on_top(
    project: Path, bundle: Path, registry_server: RegistryServer
) -> None:
    needed()
    where = f"{registry_server.host}/cli-runtime"
    made = platform(project, "image", "build", "--push", where, "--output", "runtime", "--json").json
    assert made["reference"] == f"{where}/sunup-runtime@{made['image']}"
    assert json.loads(skopeo("inspect", f"oci:{project / 'runtime'}"))["Digest"] == made["image"]
    sent = registry_server.asked("PUT", "POST", "PATCH")
    assert platform(project, "image", "build", "--push", where, "--json").json["reference"] == made["reference"]
    assert registry_server.asked("PUT", "POST", "PATCH") == sent
    given = ["--registry", where, "--runtime-image", made["reference"], "--json"]
    flat = platform(project, "image", "push", str(bundle), *given).json
    assert flat["reference"].startswith(f"{where}/fraud@sha256:")
    told = platform(project, "image", "push", str(bundle), "--runtime-image", made["reference"], "--output", "flat.tar")
    assert told.code == 0, told
    found = json.loads(skopeo("inspect", f"oci-archive:{project / 'flat.tar'}"))
    assert f"{where}/fraud@{found['Digest']}" == flat["reference"]
