"""Training against serving: the index by hand, its noise, and planted skew, on exactly the columns it is in."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sunup.limits import SERVED_SAMPLE_ROWS
from sunup.served.skew.bins import PROBABILITIES, count_in, edges_of
from sunup.served.skew.compare import Comparison, compare
from sunup.served.skew.profile import Profile, measure
from sunup.served.skew.psi import psi
from sunup.served.skew.totals import Batch, Sample
from sunup.types import Field

Rows = dict[str, NDArray[Any]]

COLUMNS = (
    Field("amount", "float64"),
    Field("count", "int64"),
    Field("rate", "float32"),
    Field("mostly_zero", "float64"),
    Field("constant", "float64"),
    Field("gappy", "float64"),
    Field("flag", "bool"),
    Field("country", "string"),
)
COUNTRIES = np.array(["de", "fr", "it", None], dtype=object)


def rows(count: int, seed: int) -> Rows:
    rng = np.random.default_rng(seed)
    return {
        "amount": rng.lognormal(3, 1, count),
        "count": rng.poisson(4, count).astype(np.float64),
        "rate": rng.random(count),
        "mostly_zero": np.where(rng.random(count) < 0.85, 0.0, rng.exponential(5, count)),
        "constant": np.full(count, 0.1),
        "gappy": np.where(rng.random(count) < 0.2, np.nan, rng.normal(size=count)),
        "flag": (rng.random(count) < 0.3).astype(np.float64),
        "country": COUNTRIES[rng.choice(4, count, p=[0.5, 0.3, 0.15, 0.05])],
    }


def batches(served: Rows, size: int = 1000) -> list[Batch]:
    count = len(served["amount"])
    return [
        Batch(min(size, count - at), {n: v[at : at + size] for n, v in served.items()}, {}, {}, (at, at + 1))
        for at in range(0, count, size)
    ]


@pytest.fixture(scope="module")
def profile() -> Profile:
    return measure(COLUMNS, rows(20_000, 1), source="training.parquet")


def against(profile: Profile, served: Rows) -> Comparison:
    return compare(profile, batches(served))


def test_psi_by_hand() -> None:
    # (0.4 - 0.5) ln(0.4 / 0.5) + (0.6 - 0.5) ln(0.6 / 0.5) = 0.0223144 + 0.0182322
    found = psi([50, 50], [40, 60])
    assert found.value == pytest.approx(0.0405465, abs=1e-7)
    assert found.noise == pytest.approx(1 / 100 + 1 / 100)
    assert psi([50, 50], [500, 500]).value == 0.0


def test_an_empty_bin_counts_as_half_a_row() -> None:
    # (1 - 0.5) ln(1 / 0.5) + (0.005 - 0.5) ln(0.005 / 0.5): what is empty on both sides says nothing
    found = psi([50, 50, 0], [100, 0, 0])
    assert found.value == pytest.approx(0.5 * np.log(2) - 0.495 * np.log(0.01))
    assert found.noise == pytest.approx(0.02)


def test_nothing_served_has_no_psi() -> None:
    assert np.isnan(psi([1, 2], [0, 0])).all()


@pytest.mark.parametrize("bins", [2, 5, 11])
def test_the_noise_is_what_rows_drawn_alike_give(bins: int) -> None:
    rng = np.random.default_rng(bins)
    shares = np.full(bins, 1 / bins)
    drawn = [psi(rng.multinomial(2000, shares).tolist(), rng.multinomial(500, shares).tolist()) for _ in range(3000)]
    values = np.array([each.value for each in drawn])
    assert values.mean() == pytest.approx(drawn[0].noise, rel=0.1)
    assert np.mean(values > drawn[0].noise_max) < 0.004  # one in a thousand


def test_the_bound_of_chance_is_the_chi_squared_distributions() -> None:
    chi2 = pytest.importorskip("scipy.stats").chi2
    for bins in range(2, 25):
        found = psi([1000] * bins, [500] * bins)
        per_row = 1 / (1000 * bins) + 1 / (500 * bins)
        assert found.noise_max == pytest.approx(chi2.ppf(0.999, bins - 1) * per_row, rel=0.04)


def test_bins_hold_a_tenth_each() -> None:
    values = np.sort(np.random.default_rng(0).normal(size=10_000))
    assert count_in(edges_of(values, whole=False), values).tolist() == [1000] * 10


def test_a_frequent_value_has_a_bin_of_its_own() -> None:
    values = np.sort(np.concatenate([np.zeros(900), np.full(100, 7.0)]))
    edges = edges_of(values, whole=False)
    assert count_in(edges, values).tolist() == [0, 900, 100]
    assert count_in(edges, np.array([-1e-9, 0.0, -0.0, 1e-9])).tolist() == [1, 2, 1]
    assert count_in(edges_of(np.full(5, 3.0), whole=True), np.array([2.0, 3.0, 4.0])).tolist() == [1, 1, 1]
    assert len(edges_of(np.empty(0), whole=False)) == 0


def test_float32_falls_where_its_float64_does() -> None:
    values = np.sort(np.random.default_rng(0).choice([0.1, 0.2, 0.3, 0.7, 1.1], 1000))
    edges = edges_of(values, whole=False)
    rounded = values.astype(np.float32).astype(np.float64)
    assert count_in(edges, rounded).tolist() == count_in(edges, values).tolist()


def test_the_same_rows_have_no_skew(profile: Profile) -> None:
    found = against(profile, rows(20_000, 1))
    assert {skew.psi.value for skew in found.skews} == {0.0}
    amount = next(skew for skew in found.skews if skew.column.name == "amount")
    assert amount.served.quantiles[0] == amount.column.quantiles[0]
    assert amount.served.quantiles[-1] == amount.column.quantiles[-1]
    assert amount.served.quantiles[5] == pytest.approx(amount.column.quantiles[5], rel=0.05)


@pytest.mark.parametrize("count", [100, 3000])
def test_other_rows_drawn_alike_are_within_the_noise(profile: Profile, count: int) -> None:
    found = against(profile, rows(count, 2))
    for skew in found.skews:
        assert skew.psi.value <= skew.psi.noise_max, skew.column.name
        assert skew.verdict in ("ok", "few rows")
        assert not skew.beyond(0.0)
        assert skew.unsure(0.1) == (count == 100 and skew.column.name != "constant")


def shifted(served: Rows) -> None:
    served["amount"] *= 3


def lost(served: Rows) -> None:
    served["gappy"][::2] = np.nan


def unheard_of(served: Rows) -> None:
    served["country"][::4] = "atlantis"


def stuck(served: Rows) -> None:
    served["rate"][:] = 0.25


def below(served: Rows) -> None:
    served["constant"][::5] = 0.0


def defaulted(served: Rows) -> None:
    served["mostly_zero"][::3] = -1.0


def turned(served: Rows) -> None:
    served["flag"][:] = 1.0 - served["flag"]


@pytest.mark.parametrize(
    ("plant", "column"),
    [
        (shifted, "amount"),
        (lost, "gappy"),
        (unheard_of, "country"),
        (stuck, "rate"),
        (below, "constant"),
        (defaulted, "mostly_zero"),
        (turned, "flag"),
    ],
)
def test_planted_skew_is_found_where_it_is(profile: Profile, plant: Any, column: str) -> None:
    served = rows(3000, 3)
    plant(served)
    found = against(profile, served)
    assert found.skews[0].column.name == column
    assert found.skews[0].verdict == "major"
    assert [skew.column.name for skew in found.skews if skew.beyond(0.1)] == [column]
    assert {skew.verdict for skew in found.skews[1:]} == {"ok"}


def test_missing_defaulted_and_stale_are_shares_of_rows(profile: Profile) -> None:
    parts = batches(rows(2000, 4))
    parts[0] = parts[0]._replace(defaulted={"amount": 500, "not of the model": 3}, stale={"gappy": 100})
    found = {skew.column.name: skew for skew in compare(profile, parts).skews}
    assert (found["amount"].defaulted, found["amount"].stale) == (0.25, 0.0)
    assert (found["gappy"].defaulted, found["gappy"].stale) == (0.0, 0.05)
    assert found["gappy"].missing == pytest.approx((0.2, 0.2), abs=0.03)


def test_what_the_log_lacks_is_said(profile: Profile) -> None:
    served = rows(500, 5)
    del served["rate"]
    found = against(profile, served)
    assert list(found.absent) == ["rate"]
    assert len(found.skews) == len(COLUMNS) - 1


def test_a_sample_is_bounded_fair_and_the_same_again() -> None:
    values = np.random.default_rng(0).permutation(100_000).astype(np.float64)
    samples = [Sample(), Sample()]
    for sample in samples:
        for at in range(0, len(values), 7001):
            sample.add(values[at : at + 7001])
    assert len(samples[0].values) == SERVED_SAMPLE_ROWS
    assert np.array_equal(samples[0].values, samples[1].values)
    # Within four standard errors of a quantile's rank.
    error = 4 * np.sqrt(0.25 / SERVED_SAMPLE_ROWS)
    assert np.abs(np.quantile(samples[0].values, PROBABILITIES) / 1e5 - PROBABILITIES).max() < error
