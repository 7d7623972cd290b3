"""Functions for the test cluster: small bundles, the runtime image in its registry, `platform` and its environment."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from tests.cluster.running import Cluster
from tests.small_bundle import _name, logistic, make_bundle

from sunup.bundle.manifest import Kubernetes, Limits, Manifest, Scale
from sunup.bundle.store import read_manifest

ROOT: Final = Path(__file__).resolve().parents[2]
COMMAND_SECONDS_MAX: Final = 300.0
RECORD: Final = {"f0": 1.0, "f1": 2.0, "f2": 0.5}
SCORE: Final = 1 / (1 + np.exp(-3.5))


def bundle(folder: Path, version: int, *, function: str = "score", broken: bool = False, **declared: Any) -> Path:
    """A bundle of a logistic model; each `version` is another one that gives the same answers. `broken`: it fails its
    self-proof. `declared`: [kubernetes], `scale`, `stream`."""
    rows = np.random.default_rng(version).normal(size=(8, 3)) + version
    scale = declared.pop("scale", None) or Scale(max=2, idle_s=30.0)
    place = folder / f"{function}-{version}{'-broken' if broken else ''}"
    given = {
        "function": function,
        "scale": scale,
        "limits": Limits(timeout_s=10.0),
        "stream": declared.pop("stream", None),
    }
    found = place / make_bundle(place, logistic(3), rows, **given)
    return _changed(found, broken=broken, kubernetes=declared) if broken or declared else found


def _changed(found: Path, *, broken: bool, kubernetes: Mapping[str, Any]) -> Path:
    files = dict(read_manifest(found).files)
    if broken:
        kept = dict(np.load(found / "warmup.npz"))
        kept["out:probability"] = kept["out:probability"] * 0.5
        np.savez(found / "warmup.npz", **kept)
        files["warmup.npz"] = hashlib.sha256((found / "warmup.npz").read_bytes()).hexdigest()
    said = json.loads((found / "manifest.json").read_bytes())
    said["files"] = files
    if kubernetes:
        made = Kubernetes(**kubernetes)
        said["kubernetes"] = {name: getattr(made, name) for name in made.__struct_fields__}
    staged = found.parent / "staged"
    found.rename(staged)
    (staged / "manifest.json").unlink()
    return staged.parent / _name(staged, json.dumps(said).encode())


def manifest_of(found: Path) -> Manifest:
    return read_manifest(found)


@dataclass(frozen=True)
class Answer:
    """What a command came to. `facts`: its JSON, {} where it printed none."""

    status: int
    output: str
    errors: str

    @property
    def facts(self) -> Any:
        return json.loads(self.output)


@dataclass(frozen=True)
class Platform:
    """`platform` for one namespace of the test cluster, from a project folder of its own. `runtime`: the image."""

    cluster: Cluster
    namespace: str
    project: Path
    runtime: str
    more: Mapping[str, str]

    def environment(self, **more: str) -> dict[str, str]:
        said = {
            "SUNUP_ENGINE": "kubernetes",
            "SUNUP_NAMESPACE": self.namespace,
            "SUNUP_REGISTRY": f"http://{self.cluster.registry}",
            "SUNUP_RUNTIME_IMAGE": self.runtime,
            "SUNUP_GATEWAY": self.cluster.gateway,
            "KUBECONFIG": self.cluster.kubeconfig,
        }
        return {**os.environ, **said, **self.more, **more}

    def start(self, *words: str, **more: str) -> "subprocess.Popen[str]":
        """Begin a command. In this thread's network namespace, as everything that it starts."""
        command = [sys.executable, "-m", "sunup.cli.main", *words]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, cwd=self.project, env=self.environment(**more), stdout=pipe, stderr=pipe, text=True
        )

    def run(self, *words: str, **more: str) -> Answer:
        """A command to its end, however it ends."""
        process = self.start(*words, **more)
        output, errors = process.communicate(timeout=COMMAND_SECONDS_MAX)
        return Answer(process.returncode, output, errors)

    def facts(self, *words: str, **more: str) -> Any:
        """The facts of a command that has to succeed."""
        done = self.run(*words, "--json", **more)
        assert done.status == 0, done.errors
        return done.facts

    def deploy(self, found: Path, *words: str) -> Any:
        return self.facts("deploy", str(found), *words)

    def host(self, function: str = "score", tag: str = "") -> str:
        return f"{tag}{'-' if tag else ''}{function}.{self.namespace}.example.com"

    def call(self, function: str = "score", tag: str = "") -> Any:
        """One prediction through the gateway."""
        status, body = self.cluster.ask(
            self.host(function, tag), f"/functions/{function}", json.dumps(RECORD).encode(), **JSON
        )
        assert status == 200, (status, body)
        return json.loads(body)

    def traffic(self, function: str = "score") -> dict[str, int]:
        """Percent of the calls by revision, as the Service asks for it."""
        found = self.cluster.read("ksvc", function, self.namespace)
        assert found is not None
        return {one["revisionName"]: one["percent"] for one in found["spec"]["traffic"]}


JSON: Final = {"content-type": "application/json"}


@pytest.fixture(scope="session")
def runtime(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The runtime image in the cluster's registry."""
    return push_runtime(cluster, tmp_path_factory.mktemp("image"))


@pytest.fixture
def platform(cluster: Cluster, namespace: str, runtime: str, tmp_path: Path) -> Platform:
    """`platform` for a namespace of its own."""
    (project := tmp_path / "p").mkdir()
    (project / "functions").mkdir()
    return Platform(cluster, namespace, project, runtime, {})


def push_runtime(cluster: Cluster, project: Path) -> str:
    """Make the runtime image, if it is not made yet, and push it to the cluster's registry; its reference."""
    command = [
        sys.executable,
        "-m",
        "sunup.cli.main",
        "image",
        "build",
        "--push",
        f"http://{cluster.registry}",
        "--json",
    ]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return f"http://{json.loads(done.stdout)['reference']}"
