"""Manifests and targets whose objects are known: tests/data/kubernetes holds them as YAML.

`python -m tests.kubernetes_objects` writes those files, and examples/gitops, again.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from sunup.bundle.manifest import (
    Kubernetes,
    Limits,
    LogSpec,
    Manifest,
    Model,
    Scale,
    SecuritySpec,
    StreamSpec,
    Warm,
)
from sunup.engine.kubernetes.render.folder import written
from sunup.engine.kubernetes.render.objects import dump, render
from sunup.engine.kubernetes.render.settings import packed
from sunup.engine.kubernetes.render.target import Images, Object, Target
from sunup.types import Field, ImageSpec

ROOT: Final = Path(__file__).resolve().parent.parent
GOLDEN: Final = ROOT / "tests" / "data" / "kubernetes"
GITOPS: Final = ROOT / "examples" / "gitops" / "fraud"
DIGEST: Final = "c" * 64
RUNTIME: Final = f"registry.example:5000/shop/sunup-runtime@sha256:{'a' * 64}"
BUNDLE: Final = f"registry.example:5000/shop/fraud@sha256:{'b' * 64}"
FLAT: Final = f"registry.example:5000/shop/fraud-flat@sha256:{'d' * 64}"
IMAGES: Final = Images(RUNTIME, BUNDLE, FLAT)
PASSWORD: Final = "correct horse battery staple"
KEY: Final = "-----BEGIN PRIVATE KEY-----\nnobody sees this\n-----END PRIVATE KEY-----\n"
FILES: Final = {
    "/project/certs/kafka-ca.pem": b"the authorities",
    "/project/certs/fraud.pem": b"the certificate",
    "/project/certs/fraud.key": KEY.encode(),
    "/run/secrets/password": PASSWORD.encode() + b"\n",
}
OPEN: Final = {"features_url": "redis://redis.shop:6379/0", "stream_broker": "kafka.shop:9092"}


class Made(NamedTuple):
    """What is rendered, and for where."""

    manifest: Manifest
    target: Target

    @property
    def objects(self) -> list[Object]:
        return render(self.manifest, DIGEST, self.target)


def manifest(function: str = "fraud", **more: Any) -> Manifest:
    """One of a function with nothing declared; `more`: what it has beside."""
    request = (Field("amount", "float64"),)
    known: dict[str, Any] = {
        "format": 1,
        "sunup": "0.1.0",
        "function": function,
        "model": Model(function, "3", "r", "sklearn"),
        "request": request,
        "inputs": (),
        "outputs": (),
        "response": (),
        "tolerance": 1e-5,
        "scale": Scale(),
        "limits": Limits(),
        "example": {"amount": 1.0},
        "files": {},
    }
    return Manifest(**known | more)


def stream(**more: Any) -> StreamSpec:
    """fraud's own, with `more` changed."""
    made = StreamSpec("env:KAFKA_BOOTSTRAP", "transactions", "fraud-scores", "fraud-dead", "sunup-fraud", max_workers=2)
    return msgspec.structs.replace(made, **more)


def secured() -> dict[str, str]:
    """Settings of a stream over TLS with a user, as a deployer's machine has them."""
    security = {
        "protocol": "SASL_SSL",
        "mechanism": "SCRAM-SHA-512",
        "username": {"value": "fraud-scorer"},
        "password": {"file": "/run/secrets/password"},
        "ca": "/project/certs/kafka-ca.pem",
        "certificate": "/project/certs/fraud.pem",
        "key": "/project/certs/fraud.key",
        "key_password": {"value": "of the key"},
    }
    registry = {
        "url": {"value": f"https://fraud:{PASSWORD.split()[0]}@schemas.shop"},
        "ca": "/project/certs/kafka-ca.pem",
    }
    made = {"features_url": f"redis://:{PASSWORD.split()[1]}@redis.shop:6379/0", "stream_broker": "kafka.shop:9093"}
    return made | {"stream_security": json.dumps(security), "schema_registry": json.dumps(registry)}


def fraud() -> Made:
    """Calls and a stream; the bundle is mounted."""
    return Made(
        manifest(stream=stream(), scale=Scale(max=2)), Target("shop", IMAGES, "volume", OPEN, partitions=8, revision=7)
    )


def flat() -> Made:
    """fraud, with its bundle in an image of its own."""
    made = fraud()
    return Made(made.manifest, replace(made.target, way="flat"))


def secured_stream() -> Made:
    """A stream over TLS with a user; all of the bundle in the image."""
    settings, files = packed(secured(), FILES.__getitem__)
    declared = stream(max_workers=8, security=SecuritySpec("SASL_SSL", "SCRAM-SHA-512", "env:U", "file:/run/secrets/p"))
    scale = Scale(idle_s=900.0)
    return Made(manifest(stream=declared, scale=scale), Target("shop", IMAGES, "flat", settings, files, partitions=6))


def pictures() -> Made:
    """A function of images, with a time limit and workers of its own."""
    image = ImageSpec("image", (64, 64))
    scale = Scale(min=1, max=3, idle_s=45.0, target_concurrency=8, warm=(Warm("0 8 * * 1-5"),))
    limits = Limits(body_bytes=8 * 1024**2, timeout_s=75.2)
    function = manifest(
        "moderate", request=(Field("image", "bytes"),), image=image, scale=scale, limits=limits, log=LogSpec("served/")
    )
    return Made(function, Target("shop", IMAGES, "flat", {"takes": "pictures"}))


def bare() -> Made:
    """A function with nothing declared and no settings."""
    return Made(manifest("churn"), Target("default", IMAGES, "flat"))


def private() -> Made:
    """Within the cluster, on a GPU, keys checked, images pulled with a Secret, a fifth of the calls for the newest."""
    kubernetes = Kubernetes(cpu="2", memory="4Gi", visibility="cluster", gpu=1)
    shares = [
        {"revisionName": "fraud-00006", "percent": 80, "tag": "stable"},
        {"latestRevision": True, "percent": 20, "tag": "canary"},
    ]
    target = Target(
        "shop", IMAGES, "volume", traffic=shares, api_keys="shop-keys", pull_secrets=("registry-login",), revision=7
    )
    return Made(manifest(kubernetes=kubernetes), target)


ALL: Final = {
    "fraud": fraud,
    "flat": flat,
    "secured": secured_stream,
    "pictures": pictures,
    "bare": bare,
    "private": private,
}


def one(objects: list[Object], kind: str) -> Object:
    """The only one of a kind."""
    (found,) = (thing for thing in objects if thing["kind"] == kind)
    return found


def golden(name: str) -> str:
    """The YAML that is kept of one of them."""
    return (GOLDEN / f"{name}.yaml").read_text("utf-8")


def write() -> None:
    """Write all that is kept again."""
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for name, make in ALL.items():
        (GOLDEN / f"{name}.yaml").write_text(dump(make().objects), "utf-8")
    shutil.rmtree(GITOPS, ignore_errors=True)
    GITOPS.mkdir(parents=True)
    for file, text in written(fraud().objects).items():
        (GITOPS / file).write_text(text, "utf-8")


if __name__ == "__main__":
    write()
