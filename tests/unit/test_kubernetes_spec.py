"""[kubernetes] of function.toml and of the manifest, and quantities as Kubernetes writes them."""

import json
from pathlib import Path

import msgspec
import pytest
from tests.kubernetes_objects import manifest

from sunup.bundle.declare.file import parse
from sunup.bundle.declare.kubernetes.quantity import parse_quantity
from sunup.bundle.declare.write import write
from sunup.bundle.manifest import Kubernetes, Manifest
from sunup.errors import UsageError


def test_the_table_is_read_and_written() -> None:
    text = '[kubernetes]\ncpu = "500m"\nmemory = "512Mi"\nvisibility = "cluster"\ngpu = 1\n'
    spec = parse(text, source="x", name="fraud")
    assert spec.kubernetes == Kubernetes("500m", "512Mi", "cluster", 1)
    assert parse(write(spec), source="x", name="other") == spec


def test_every_key_has_a_default_and_a_table_left_out_is_none() -> None:
    spec = parse("[kubernetes]\n", source="x", name="fraud")
    assert spec.kubernetes == Kubernetes("", "", "public", 0)
    assert parse(write(spec), source="x", name="other") == spec
    assert parse("", source="x", name="fraud").kubernetes is None
    assert "kubernetes" not in write(parse("", source="x", name="fraud"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('cpu = "half"', '[kubernetes] cpu: \'half\' is no quantity of Kubernetes, such as "500m" or "2"'),
        ('cpu = "1m"', "[kubernetes] cpu: 1m of a core is less than 10m"),
        ('cpu = "-1"', "[kubernetes] cpu: -1 of a core is less than 10m"),
        ("cpu = 2", "[kubernetes] cpu: expected `str | null`, got `int`"),
        ('memory = "512MB"', '[kubernetes] memory: \'512MB\' is no quantity of Kubernetes, such as "512Mi" or "2Gi"'),
        ('memory = "512m"', "[kubernetes] memory: 512m is less than 128Mi"),
        ('memory = "64Mi"', "[kubernetes] memory: 64Mi is less than 128Mi"),
        ('visibility = "private"', "[kubernetes] visibility: invalid enum value 'private'"),
        ("gpu = 17", "[kubernetes] gpu: expected `int` <= 16"),
        ("gpu = 0.5", "[kubernetes] gpu: expected `int`, got `float`"),
        ('cpus = "2"', "unknown key `cpus` in [kubernetes]. Did you mean `cpu`?"),
    ],
)
def test_what_is_wrong_says_where_and_why(line: str, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse(f"[kubernetes]\n{line}\n", source="f.toml", name="fraud")
    assert refused.value.message.startswith(f"f.toml, line 2: {message}")


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("500m", 0.5), ("2", 2.0), ("0.5", 0.5), (".5", 0.5), ("1e3", 1000.0), ("12E2", 1200.0), ("1E", 1e18),
        ("512Mi", 512 * 1024**2), ("2Gi", 2 * 1024**3), ("1k", 1000.0), ("100n", 1e-7), ("-1", -1.0), ("+1", 1.0),
    ],
)  # fmt: skip
def test_quantities_of_kubernetes(text: str, amount: float) -> None:
    assert parse_quantity(text) == pytest.approx(amount)


@pytest.mark.parametrize("text", ["", "512MB", "1 Gi", "Mi", "0x10", "1e", "1e1.5", "1_000", "K", "1K"])
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match="is no quantity of Kubernetes"):
        parse_quantity(text)


def test_a_manifest_made_before_there_was_such_a_table_is_read() -> None:
    kept = Path(__file__).parent.parent / "data" / "bundle-format-1"
    (path,) = kept.rglob("manifest.json")
    assert "kubernetes" not in json.loads(path.read_bytes())
    assert msgspec.json.decode(path.read_bytes(), type=Manifest).kubernetes is None


def test_a_manifest_without_the_table_says_so_at_its_end() -> None:
    made = msgspec.json.decode(msgspec.json.encode(manifest()))
    assert list(made)[-1] == "kubernetes"
    assert made["kubernetes"] is None
    told = msgspec.json.decode(msgspec.json.encode(manifest(kubernetes=Kubernetes(gpu=1))))
    assert told["kubernetes"] == {"cpu": "", "memory": "", "visibility": "public", "gpu": 1}
