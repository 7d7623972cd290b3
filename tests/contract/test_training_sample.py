"""Where a profile comes from: the sample that was logged with a model, or else its input example."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression
from tests.models import fields_of, save

from sunup.bundle.convert.examples import training_profile
from sunup.served.skew.profile import Profile
from sunup.settings import TRAINING_SAMPLE

FRAME = pd.DataFrame({"a": np.arange(1000.0), "b": np.arange(1000.0) ** 2})


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with an input example of some of FRAME's rows."""
    folder = tmp_path_factory.mktemp("model") / "m"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save(LinearRegression().fit(FRAME, FRAME["b"]), FRAME, folder)
    return folder


@pytest.fixture
def model(saved: Path) -> Path:
    (saved / TRAINING_SAMPLE).unlink(missing_ok=True)
    return saved


def profile(model: Path) -> Profile:
    return training_profile(model, fields_of(FRAME))


def test_the_sample_is_what_is_profiled(model: Path) -> None:
    FRAME.assign(label=1, b=None).to_parquet(model / TRAINING_SAMPLE)
    found = profile(model)
    assert (found.source, found.rows, found.problem, found.sampled) == (TRAINING_SAMPLE, 1000, "", 1)
    a, b = found.columns
    assert (a.name, a.quantiles[5], a.counts) == ("a", 499.5, (100,) * 10)
    assert (b.name, b.missing) == ("b", 1000)


def test_a_large_sample_is_thinned_out(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sunup.bundle.convert.examples.TRAINING_ROWS_MAX", 300)
    FRAME.to_parquet(model / TRAINING_SAMPLE, row_group_size=7)
    found = profile(model)
    assert (found.rows, found.sampled) == (250, 4)
    assert found.columns[0].quantiles[-1] == 996.0


def test_without_a_sample_the_example_is_profiled(model: Path) -> None:
    found = profile(model)
    assert (found.source, found.rows, found.columns) == ("input example", 20, ())
    assert "20 rows are too few" in found.problem


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (FRAME[["a"]], "lacks the columns b"),
        (FRAME.head(0), "no rows"),
        (FRAME.head(10), "too few"),
        (FRAME.assign(a="text"), "cannot be read"),
    ],
)
def test_a_sample_that_does_not_fit_says_why(model: Path, frame: pd.DataFrame, says: str) -> None:
    frame.to_parquet(model / TRAINING_SAMPLE)
    found = profile(model)
    assert says in found.problem
    assert found.columns == ()


@pytest.mark.parametrize("data", [b"", b"no Parquet", b"PAR1" * 100])
def test_a_damaged_sample_is_a_problem_and_no_failure(model: Path, data: bytes) -> None:
    (model / TRAINING_SAMPLE).write_bytes(data)
    assert "cannot be read" in profile(model).problem
