"""A large model laid out for this machine: used when it is whole, never relied on, gone with its bundle."""

import logging
from pathlib import Path

import numpy as np
import pytest
from tests.unit.test_function import bundle
from tests.unit.test_kept import deep_model, large_model

from sunup.bundle.store import Store, arranged_folder
from sunup.errors import ProofFailed
from sunup.execute.arranged import GRAPH, STAMPS, WEIGHTS, make
from sunup.function import MODEL, load

KIB = 4096  # of weights: a model of 4 MiB
ROW = {"input": np.array([[1.0, 2.0]])}


def mapped(path: Path, *, prove: bool) -> tuple[float, bool]:
    """What the model answers to one row, and whether its weights are mapped from the file beside its graph."""
    function = load(path, settings={}, prove=prove, machine="here")
    answer = float(function.executor.run(ROW, ["total"])[0][0])
    weights = str(arranged_folder(path, "here") / WEIGHTS) in Path("/proc/self/maps").read_text()
    function.executor.close()
    return answer, weights


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A bundle whose model was laid out by a start that proved it."""
    made = bundle(tmp_path, model=large_sum(1))
    assert mapped(made, prove=True) == (3.0, True)
    return made


def large_sum(seed: int) -> bytes:
    """total = the sum of the row, whatever else is in the file: weights that come to nothing."""
    return large_model(seed, KIB, nothing=True)


def test_what_a_proving_start_laid_out_later_ones_map(path: Path) -> None:
    for _ in range(2):
        assert mapped(path, prove=False) == (3.0, True)
    assert not any((path.parent / ".staging").iterdir())


@pytest.mark.parametrize("name", [GRAPH, WEIGHTS, STAMPS])
@pytest.mark.parametrize("damage", ["touched", "shorter", "absent"])
def test_what_was_damaged_is_not_used_and_the_answer_is_the_same(path: Path, name: str, damage: str) -> None:
    file = arranged_folder(path, "here") / name
    data = file.read_bytes()
    file.unlink()
    if damage != "absent":
        file.write_bytes(data if damage == "touched" else data[: len(data) // 2])
    whole = (name, damage) == (STAMPS, "touched")  # it says the same as before
    assert mapped(path, prove=False) == (3.0, whole)
    assert mapped(path, prove=True) == (3.0, True), "a start that proves makes it again"


def test_another_machine_has_its_own(path: Path) -> None:
    load(path, settings={}, prove=False, machine="there").executor.close()
    assert not arranged_folder(path, "there").exists()
    load(path, settings={}, prove=True, machine="there").executor.close()
    assert arranged_folder(path, "there").exists()
    assert not arranged_folder(path, "here").exists(), "nothing is kept of a machine that was"


def test_it_goes_with_its_bundle(path: Path) -> None:
    Store(path.parent).remove(path.name)
    assert not (path.parent / ".arranged" / path.name).exists()


def test_it_is_proven_as_it_will_be_served(tmp_path: Path) -> None:
    with pytest.raises(ProofFailed):
        load(bundle(tmp_path, model=large_sum(1), off=1.0), settings={}, prove=True, machine="here")


def test_small_models_and_those_without_weights_are_left_as_they_are(tmp_path: Path) -> None:
    small = bundle(tmp_path / "small")
    load(small, settings={}, prove=True, machine="here").executor.close()
    assert not (small.parent / ".arranged").exists()
    model = tmp_path / MODEL
    model.write_bytes(deep_model())
    (tmp_path / "staged").mkdir()
    make(model, tmp_path / "staged", tmp_path / "a" / "b" / "c", layout=False)
    assert not (tmp_path / "a" / "b").exists()


def test_what_was_made_longest_ago_makes_room(tmp_path: Path) -> None:
    model, root = tmp_path / MODEL, tmp_path / "root"
    model.write_bytes(large_sum(2))
    for number in range(3):
        staged = tmp_path / f"staged{number}"
        staged.mkdir()
        make(model, staged, root / str(number) / "here", layout=False, bytes_max=9 * 1024**2)
    assert sorted(path.name for path in root.iterdir()) == ["1", "2"]


def test_where_nothing_can_be_written_the_model_is_opened_as_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = bundle(tmp_path, model=large_sum(3))
    (tmp_path / ".arranged").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        assert mapped(path, prove=True) == (3.0, False)
    assert "not laid out" in caplog.text
