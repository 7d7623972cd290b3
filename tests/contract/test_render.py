"""`platform render` against a real registry: files that name pushed images by digest, the same every time."""

import json
import uuid
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tests.image_parts import runtime_image
from tests.registry_server import RegistryServer
from tests.small_bundle import logistic, make_bundle

from sunup.bundle.manifest import Scale, StreamSpec, Warm
from sunup.cli.main import run
from sunup.engine.kubernetes.image.push import push_image
from sunup.engine.kubernetes.image.registry.client import Registry

STREAM = StreamSpec("env:KAFKA_BOOTSTRAP or embedded", "in", "out", "dead", "scorers")
BROKER = "kafka.shop:9092"

Render = Callable[..., int]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("bundle")
    scale = Scale(idle_s=2.0, warm=(Warm("0 8 * * *"),))
    return made / make_bundle(made, logistic(2), np.ones((3, 2)), function="score", scale=scale, stream=STREAM)


@pytest.fixture
def place(registry_server: RegistryServer) -> str:
    """Where in the registry the images of one test are."""
    return f"{registry_server.host}/t{uuid.uuid4().hex[:12]}"


@pytest.fixture
def render(bundle: Path, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Render:
    """The command, for the bundle, in a project of its own, with a broker in the environment; its exit code."""
    monkeypatch.setenv("KAFKA_BOOTSTRAP", BROKER)
    (project := tmp_path / "project" / "functions").mkdir(parents=True)
    (scratch := tmp_path / "scratch").mkdir()
    runtime = push_image(runtime_image(scratch), Registry.of(place, environment={}), "runtime", "1")

    def ask(*words: str | Path, registry: str = place, runtime: str = runtime) -> int:
        known = ["--project", project.parent, "--registry", registry, "--runtime-image", runtime]
        return run(list(map(str, ["render", bundle, *known, *words])))

    return ask


def objects(folder: Path) -> dict[str, Any]:
    """What is in the files, by kind."""
    found = [yaml.safe_load(path.read_text("utf-8")) for path in sorted(folder.iterdir())]
    return {one["kind"]: one for one in found}


def test_files_are_written_and_are_the_same_again(
    render: Render, place: str, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deploy"
    assert render("--output", out, "--namespace", "shop") == 0
    said = capsys.readouterr()
    assert said.out.split() == [str(path) for path in sorted(out.iterdir())]
    assert "idle is 2 s, and Knative looks over 6 s at least" in said.err
    assert "Knative has no set times (0 8 * * *)" in said.err
    made = objects(out)
    assert list(made) == ["ServiceAccount", "Secret", "Service", "Deployment", "ScaledObject"]
    assert {one["metadata"]["namespace"] for one in made.values()} == {"shop"}
    (container,) = made["Service"]["spec"]["template"]["spec"]["containers"]
    assert container["image"].startswith(f"{place}/score@sha256:")
    assert {"name": "SUNUP_DIGEST", "value": bundle.name} in container["env"]
    assert json.loads(b64decode(made["Secret"]["data"]["settings.json"]))["stream_broker"] == BROKER
    modes = {path.name.split("-")[1]: path.stat().st_mode & 0o077 for path in out.iterdir()}
    assert modes.pop("secret") == 0, "it holds passwords"
    assert all(modes.values())
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert render("--output", out, "--namespace", "shop") == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_another_setting_is_another_secret_and_the_old_file_goes(
    render: Render, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "deploy"
    assert render("--output", out) == 0
    first = objects(out)["Secret"]["metadata"]["name"]
    (out / "kustomization.yaml").write_text("resources: []\n")
    monkeypatch.setenv("KAFKA_BOOTSTRAP", "other.shop:9092")
    assert render("--output", out) == 0
    names = sorted(path.name for path in out.iterdir())
    second = next(name for name in names if "secret" in name)
    assert first not in second
    assert len(names) == 6
    assert "kustomization.yaml" in names


def test_the_bundle_is_mounted_where_that_is_asked_for(
    render: Render, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert render("--way", "volume", "--pull-secret", "login", "--keys-secret", "keys") == 0
    account, _, service, *_ = yaml.safe_load_all(capsys.readouterr().out)
    spec = service["spec"]["template"]["spec"]
    assert spec["containers"][0]["image"].startswith(f"{place}/runtime@sha256:")
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert volumes["bundle"]["image"]["reference"].startswith(f"{place}/score@sha256:")
    assert volumes["keys"]["secret"] == {"secretName": "keys"}
    assert account["imagePullSecrets"] == [{"name": "login"}]


def test_json_and_yaml_say_the_same(render: Render, capsys: pytest.CaptureFixture[str]) -> None:
    assert render("--json") == 0
    as_json = json.loads(capsys.readouterr().out)
    assert render() == 0
    assert list(yaml.safe_load_all(capsys.readouterr().out)) == as_json


def test_secrets_may_be_left_out(render: Render, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "deploy"
    assert render("--output", out, "--without-secrets") == 0
    assert "Secret" not in objects(out)
    said = capsys.readouterr().err
    name = objects(out)["Service"]["spec"]["template"]["spec"]["volumes"][1]["secret"]["secretName"]
    assert f"Secret {name} is left out: it must be in the namespace, with the keys settings.json." in said
    assert render("--output", out) == 0
    assert objects(out)["Secret"]["metadata"]["name"] == name


def test_what_pods_cannot_use_is_refused_and_nothing_is_written(
    render: Render, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deploy"
    monkeypatch.setenv("KAFKA_BOOTSTRAP", "localhost:9092")
    assert render("--output", out) == 1
    assert "localhost is the pod itself; name brokers that pods reach." in capsys.readouterr().err
    monkeypatch.delenv("KAFKA_BOOTSTRAP")
    assert render("--output", out) == 2
    assert "The embedded log is a file of one machine" in capsys.readouterr().err
    assert not out.exists()


def test_images_need_a_registry_and_a_runtime(render: Render, capsys: pytest.CaptureFixture[str]) -> None:
    assert render(registry="") == 2
    assert "SUNUP_REGISTRY" in capsys.readouterr().err
    assert render(runtime="") == 2
    assert "SUNUP_RUNTIME_IMAGE" in capsys.readouterr().err


def test_a_folder_that_is_a_file(render: Render, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert render("--output", tmp_path / "file") == 2
    assert render("--output", tmp_path / "file" / "below") == 2
    assert "cannot be written: Not a directory. Name another --output." in capsys.readouterr().err
