"""A real API server with Knative's and KEDA's definitions, without a node: objects are kept and judged, nothing runs.

Programs and definitions are the test cluster's (infra/cluster/build.sh). What Knative's controllers would do, tests do
themselves, by writing the status that they want to see.
"""

import json
import os
import shutil
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import yaml
from tests.ports import free_port

BUILD: Final = Path(__file__).resolve().parents[2] / "infra" / "cluster" / "build.sh"
GROUPS: Final = ("serving.knative.dev", "keda.sh")
ADMIN: Final = "admin-token"
START_SECONDS_MAX: Final = 120.0  # on a busy machine; five are usual


def parts() -> dict[str, Path]:
    """The built parts of the test cluster by name, {} where it is not built."""
    if shutil.which("etcd") is None:
        return {}
    found = subprocess.run([BUILD, "--cached"], capture_output=True, text=True, check=False)
    return {} if found.returncode else {k: Path(v) for k, v in (line.split("=", 1) for line in found.stdout.split())}


@contextmanager
def api_server(folder: Path, program: Path, definitions: Path) -> Iterator[Path]:
    """The kubeconfig of an API server that runs meanwhile. `program`: the one of many names; `definitions`: a YAML file
    with definitions of kinds, of which those of GROUPS are made."""
    store, peer, port = free_port(), free_port(), free_port()
    (folder / "tokens.csv").write_text(f"{ADMIN},admin,admin,system:masters\n")
    key = folder / "accounts.key"
    subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
    url = f"http://127.0.0.1:{store}"
    ours = [
        "--listen-client-urls",
        url,
        "--advertise-client-urls",
        url,
        "--listen-peer-urls",
        f"http://127.0.0.1:{peer}",
    ]
    etcd = ["etcd", "--data-dir", str(folder / "etcd"), *ours]
    server = [
        str(program), "kube-apiserver", f"--etcd-servers={url}", "--bind-address=127.0.0.1", f"--secure-port={port}",
        f"--cert-dir={folder / 'pki'}", "--service-cluster-ip-range=10.96.0.0/16", "--authorization-mode=RBAC",
        f"--token-auth-file={folder / 'tokens.csv'}", "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}",
        "--disable-admission-plugins=ServiceAccount",
        # Where there is no route to anywhere it finds no address of its own to tell others; nobody asks for it.
        "--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none",
    ]  # fmt: skip
    with _running(etcd, folder / "etcd.log"), _running(server, folder / "apiserver.log"):
        _until_ready(port)
        config = kubeconfig(folder / "kubeconfig", port, ADMIN)
        _define(port, definitions)
        yield config


def kubeconfig(path: Path, port: int, token: str, namespace: str = "default") -> Path:
    """Write one for a token."""
    authority = str(path.parent / "pki" / "apiserver.crt")  # it signs for itself
    server = {"server": f"https://127.0.0.1:{port}", "certificate-authority": authority}
    context = {"cluster": "test", "user": "test", "namespace": namespace}
    said = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": server}],
        "contexts": [{"name": "test", "context": context}],
        "users": [{"name": "test", "user": {"token": token}}],
    }
    path.write_text(yaml.safe_dump(said))
    return path


def ask(port: int, method: str, path: str, body: Any = None, content: str = "application/yaml") -> bytes:
    """One request as the administrator."""
    request = urllib.request.Request(f"https://127.0.0.1:{port}{path}", method=method)
    request.add_header("Authorization", f"Bearer {ADMIN}")
    if body is not None:
        request.add_header("Content-Type", content)
        request.data = json.dumps(body, default=str).encode()  # JSON is YAML
    context = ssl._create_unverified_context()
    with urllib.request.urlopen(request, context=context, timeout=30) as answer:
        read: bytes = answer.read()
    return read


def port_of(config: Path) -> int:
    """The port of the API server of a kubeconfig."""
    server: str = yaml.safe_load(config.read_text())["clusters"][0]["cluster"]["server"]
    return int(server.rpartition(":")[2])


def _define(port: int, definitions: Path) -> None:
    for one in yaml.safe_load_all(definitions.read_text()):
        if one and one["kind"] == "CustomResourceDefinition" and one["spec"]["group"] in GROUPS:
            one["spec"].pop("conversion", None)  # it is Knative's webhook that converts, and none runs
            ask(port, "POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", one)
    until = time.monotonic() + START_SECONDS_MAX
    for path, kind in (("/apis/serving.knative.dev/v1", "services"), ("/apis/keda.sh/v1alpha1", "scaledobjects")):
        # Served first, and listed a moment later: who looks whether the cluster has KEDA reads the list.
        while not (_answers(port, f"{path}/{kind}") and _lists(port, path, kind)):
            assert time.monotonic() < until, f"{path}/{kind} is not served"
            time.sleep(0.1)  # the API server tells nobody


def _until_ready(port: int) -> None:
    until = time.monotonic() + START_SECONDS_MAX
    while not _answers(port, "/readyz"):
        assert time.monotonic() < until, "the API server does not start"
        time.sleep(0.1)  # as above


def _lists(port: int, path: str, kind: str) -> bool:
    return kind in [one["name"] for one in json.loads(ask(port, "GET", path))["resources"]]


def _answers(port: int, path: str) -> bool:
    try:
        ask(port, "GET", path)
    except OSError:
        return False
    return True


@contextmanager
def _running(command: Sequence[str], log: Path) -> Iterator[None]:
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, "GOMAXPROCS": "2"})
    try:
        yield
    finally:
        process.kill()
        process.wait()
