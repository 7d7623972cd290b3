"""`platform inspect` of a bundle with a [kubernetes] table, as it is typed."""

import hashlib
import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from tests.small_bundle import logistic, make_bundle

from sunup.bundle.manifest import Kubernetes
from sunup.bundle.store import MANIFEST, read_manifest
from sunup.cli.main import run


def inspected(tmp_path: Path, kubernetes: Kubernetes | None, capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    """What is printed of a bundle that says `kubernetes`."""
    (tmp_path / "functions").mkdir()
    folder = tmp_path / make_bundle(tmp_path, logistic(3), np.zeros((2, 3)))
    made = msgspec.json.encode(msgspec.structs.replace(read_manifest(folder), kubernetes=kubernetes))
    (folder / MANIFEST).write_bytes(made)
    folder = folder.rename(tmp_path / hashlib.sha256(made).hexdigest())
    assert run(["inspect", str(folder), "--project", str(tmp_path), *flags]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("kubernetes", "said"),
    [
        (Kubernetes("500m", "2Gi", "cluster", 1), "cpu 500m, memory 2Gi, gpu 1, visibility cluster"),
        (Kubernetes(), "cpu 100m, memory 512Mi, visibility public"),
        (Kubernetes(memory="1Gi"), "cpu 100m, memory 1Gi, visibility public"),
    ],
)
def test_what_a_pod_asks_for_is_a_line_with_defaults_filled_in(
    kubernetes: Kubernetes, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = inspected(tmp_path, kubernetes, capsys).splitlines()
    assert [line.split(maxsplit=1)[1] for line in shown if line.startswith("kubernetes ")] == [said]


def test_a_bundle_without_the_table_has_no_such_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "kubernetes" not in inspected(tmp_path, None, capsys)


def test_json_has_the_table_as_the_manifest_says_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = json.loads(inspected(tmp_path, Kubernetes(cpu="500m", gpu=2), capsys, "--json"))
    assert facts["manifest"]["kubernetes"] == {"cpu": "500m", "memory": "", "visibility": "public", "gpu": 2}
