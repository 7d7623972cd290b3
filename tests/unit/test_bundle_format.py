"""Bundles made by earlier versions of Sunup, committed as they were written, go on being served.

tests/data/bundle-format-1: `platform bundle iris`, a LogisticRegression over scikit-learn's iris data, when the format
was new. If a change makes it unreadable, FORMAT is raised and this test says what becomes of it.
"""

import json
from math import inf
from pathlib import Path
from typing import Final

import msgspec
import pytest

from sunup.bundle.evidence import read_proof
from sunup.bundle.manifest import FORMAT
from sunup.bundle.pack import inspect
from sunup.bundle.store import MANIFEST, Store, read_manifest
from sunup.errors import UsageError
from sunup.function import load
from sunup.pipeline import Pipeline

OLD: Final = Path(__file__).resolve().parents[1] / "data" / "bundle-format-1"
DIGEST: Final = "bc83b8f15795502bbc9d26a0214f39b808aceab911fb6a41e307e327bd6aff02"


def test_the_committed_bundle_is_whole_small_and_of_the_format_read_here() -> None:
    assert inspect(OLD)["digest"] == DIGEST
    assert sum(file.stat().st_size for file in OLD.iterdir()) < 60_000
    assert read_manifest(OLD).format == FORMAT == 1


def test_it_is_taken_proven_and_answers(tmp_path: Path) -> None:
    store = Store(tmp_path / "bundles")
    assert store.take(OLD) == DIGEST
    function = load(store.open(DIGEST), settings={}, prove=True)
    codec = function.record_codec(1)
    body = json.dumps(function.manifest.example).encode()
    reply = Pipeline(function).answer_now(codec.decode(body, id="a", deadline=inf))
    (prediction,) = json.loads(codec.encode(reply))["predictions"]
    assert prediction["label"] == 0
    assert prediction["probability"][0] == pytest.approx(0.98, abs=0.02)
    function.executor.close()


def test_what_it_does_not_say_has_its_meaning_then() -> None:
    assert read_manifest(OLD).accept_difference == 0.0
    proof = read_proof(OLD)
    assert proof is not None
    assert (proof.accepted, proof.label_differences) == (0.0, 0)


def test_a_format_of_the_future_is_refused_with_the_command_that_rebuilds(tmp_path: Path) -> None:
    manifest = json.loads((OLD / MANIFEST).read_bytes()) | {"format": FORMAT + 1}
    (tmp_path / MANIFEST).write_bytes(msgspec.json.encode(manifest))
    with pytest.raises(UsageError, match=f"format {FORMAT + 1}.*reads format {FORMAT}.*`platform deploy iris`"):
        read_manifest(tmp_path)
