"""The transaction simulator and the daily snapshots: seeded, complete, and without a look into the future."""

import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from functions.fraud.history import FIRST_DAY, REPORT_DAYS, VIEWS, snapshots
from functions.fraud.patterns import PATTERNS
from functions.fraud.simulate import END, REQUEST, SEED, Simulation, later, simulate
from sunup.bundle.declare.file import read

FUNCTION = Path(__file__).resolve().parents[2] / "functions" / "fraud" / "function.toml"


def small(*, seed: int = 5, end: datetime = END) -> Simulation:
    return simulate(seed=seed, end=end, days=50, customers=150, merchants=150)


def as_of(table: pd.DataFrame, at: pd.Timestamp) -> pd.DataFrame:
    return table[table["event_timestamp"] == at]


@pytest.fixture(scope="module")
def whole() -> Simulation:
    return simulate()


@pytest.fixture(scope="module")
def views(whole: Simulation) -> dict[str, pd.DataFrame]:
    return snapshots(whole)


def test_the_same_seed_gives_the_same_rows_and_another_seed_gives_others() -> None:
    once, again, other = (small(seed=seed).transactions for seed in (5, 5, 6))
    pd.testing.assert_frame_equal(once, again)
    assert not once["amount"].equals(other["amount"])


def test_another_end_moves_the_times_and_nothing_else() -> None:
    moved = END + timedelta(days=123)
    here, there = small().transactions, small(end=moved).transactions
    pd.testing.assert_series_equal(here["event_timestamp"] + timedelta(days=123), there["event_timestamp"])
    times = ["event_timestamp", "transaction_id"]
    pd.testing.assert_frame_equal(here.drop(columns=times), there.drop(columns=times))


def test_a_transaction_has_an_id_of_its_own_in_later_spans_too(whole: Simulation) -> None:
    ids = [*whole.transactions["transaction_id"], *later(20_000)["transaction_id"]]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("end", [END + timedelta(hours=1), END.replace(tzinfo=None)])
def test_a_span_ends_at_midnight_in_utc(end: datetime) -> None:
    with pytest.raises(ValueError, match="midnight in UTC"):
        simulate(end=end)


def test_a_world_too_small_for_its_patterns_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 40 days"):
        simulate(days=10)


def test_later_transactions_are_the_same_every_time_and_new(whole: Simulation) -> None:
    once, again, other = later(3_000), later(3_000), later(3_000, seed=SEED + 1)
    pd.testing.assert_frame_equal(once, again)
    assert not once["amount"].equals(other["amount"])
    assert len(later(20_000)) == 20_000
    assert once.dtypes.equals(whole.transactions.dtypes)
    assert once["event_timestamp"].is_monotonic_increasing
    assert once["event_timestamp"].min() >= whole.end
    assert 0.01 < once["is_fraud"].mean() < 0.04
    # What happens is new, not the simulated span over again.
    assert not set(once["amount"].head(100)) <= set(whole.transactions["amount"].head(1_000))
    with pytest.raises(ValueError, match="at least one row"):
        later(0)


def test_later_transactions_are_of_the_same_people(whole: Simulation) -> None:
    after, before = later(20_000), whole.transactions
    assert (whole.world.cards.customer[after["card_id"]] == after["customer_id"]).all()
    assert after["card_id"].isin(before["card_id"]).mean() > 0.99
    usual, then = (table.groupby("customer_id")["amount"].median() for table in (before, after))
    assert usual.corr(then) > 0.6
    # Also where the world is another one.
    few = later(500, seed=5, days=50, customers=150, merchants=150)
    assert few["customer_id"].isin(small().transactions["customer_id"]).mean() > 0.99


def test_transactions_are_complete_and_plausible(whole: Simulation) -> None:
    table = whole.transactions
    assert 60_000 <= len(table) <= 110_000
    assert table["event_timestamp"].is_monotonic_increasing
    assert table["event_timestamp"].min() >= whole.start
    assert table["event_timestamp"].max() < whole.end
    assert not table.isna().any().any()
    assert (table["amount"] > 0).all()
    assert table["hour"].between(0, 24, inclusive="left").all()
    assert (table["km_from_home"] >= 0).all()
    cards = whole.world.cards
    assert (cards.customer[table["card_id"]] == table["customer_id"]).all()
    assert not table.duplicated(["card_id", "event_timestamp"]).any()
    assert table["merchant_id"].max() < len(whole.world.merchants.town)


def test_every_pattern_occurs_and_frauds_are_rare(whole: Simulation) -> None:
    table = whole.transactions
    assert 0.01 < table["is_fraud"].mean() < 0.04
    assert set(table["pattern"]) == {"", *PATTERNS}
    assert ((table["pattern"] != "") == (table["is_fraud"] == 1)).all()
    late = table[table["event_timestamp"] >= whole.end - timedelta(days=7)]
    assert set(late["pattern"]) == {"", *PATTERNS}, "the hold-out week must hold every pattern"
    usual = table.groupby("pattern")[["amount", "km_from_home"]].median()
    assert usual.loc["stolen", "km_from_home"] > 10 * usual.loc["", "km_from_home"]
    assert usual.loc["testing", "amount"] < 0.2 * usual.loc["", "amount"]


def test_honest_purchases_use_only_cards_that_were_issued(whole: Simulation) -> None:
    table = whole.transactions[whole.transactions["is_fraud"] == 0]
    day = (table["event_timestamp"] - pd.Timestamp(whole.start)).dt.days
    assert (whole.world.cards.issued[table["card_id"]] <= day).all()


def test_snapshots_have_a_row_per_entity_and_midnight(whole: Simulation, views: dict[str, pd.DataFrame]) -> None:
    midnights = 100 - FIRST_DAY + 1
    assert {name: list(table.columns[2:]) for name, table in views.items()} == {n: list(v) for n, v in VIEWS.items()}
    assert len(views["customer_stats"]) == midnights * len(whole.world.customers.rate)
    assert len(views["merchant_stats"]) == midnights * len(whole.world.merchants.town)
    card = views["card_stats"]
    assert not card.duplicated(["card_id", "event_timestamp"]).any()
    assert (card["card_age_days"] > 0).all()
    assert len(card) < midnights * len(whole.world.cards.customer), "cards issued later have no earlier rows"
    for name, table in views.items():
        assert dict(table.dtypes.iloc[2:].astype(str)) == VIEWS[name]
        assert np.isfinite(table[list(VIEWS[name])].to_numpy(np.float64)).all()
        assert table["event_timestamp"].max() == pd.Timestamp(whole.end)


def test_a_snapshot_is_what_the_days_before_it_say(whole: Simulation, views: dict[str, pd.DataFrame]) -> None:
    table, at = whole.transactions, pd.Timestamp(whole.end - timedelta(days=7))
    card = as_of(views["card_stats"], at).set_index("card_id")
    busiest = card["card_tx_count_30d"].idxmax()
    past = table[(table["card_id"] == busiest) & (table["event_timestamp"] < at)]
    month = past[past["event_timestamp"] >= at - timedelta(days=30)]
    week = past[past["event_timestamp"] >= at - timedelta(days=7)]
    row = card.loc[busiest]
    assert (row["card_tx_count_30d"], row["card_tx_count_7d"]) == (len(month), len(week))
    assert row["card_amount_mean_30d"] == pytest.approx(month["amount"].mean())
    assert row["card_amount_std_30d"] == pytest.approx(month["amount"].std(ddof=0))
    assert row["card_amount_max_30d"] == month["amount"].max()
    assert row["card_night_share_30d"] == pytest.approx((month["hour"] < 6).mean())


def test_frauds_count_only_once_they_are_reported(whole: Simulation, views: dict[str, pd.DataFrame]) -> None:
    table, at = whole.transactions, pd.Timestamp(whole.end - timedelta(days=7))
    risks = as_of(views["merchant_stats"], at).set_index("merchant_id")
    worst = risks["merchant_risk_30d"].idxmax()
    here = table[table["merchant_id"] == worst]
    month = here[here["event_timestamp"].between(at - timedelta(days=30), at, inclusive="left")]
    told = here[
        here["event_timestamp"].between(
            at - timedelta(days=30 + REPORT_DAYS), at - timedelta(days=REPORT_DAYS), inclusive="left"
        )
    ]
    assert risks.loc[worst, "merchant_risk_30d"] == pytest.approx(told["is_fraud"].sum() / (len(month) + 20))


def test_the_future_changes_no_snapshot(whole: Simulation, views: dict[str, pd.DataFrame]) -> None:
    at = pd.Timestamp(whole.end - timedelta(days=20))
    table = whole.transactions.copy()
    table.loc[table["event_timestamp"] >= at, "amount"] = 9_999.0
    table.loc[table["event_timestamp"] >= at, "is_fraud"] = 1
    changed = snapshots(Simulation(whole.world, table, whole.start, whole.end))
    for name, before in views.items():
        after = changed[name]
        assert not before.equals(after)
        past = before["event_timestamp"] <= at
        pd.testing.assert_frame_equal(before[past], after[past])


def test_the_function_declares_every_request_field_and_a_default_for_every_feature() -> None:
    spec = read(FUNCTION)
    assert [field.name for field in spec.request or ()] == list(REQUEST)
    assert spec.features is not None
    raw = tomllib.loads(FUNCTION.read_text())["features"]["defaults"]
    for features in VIEWS.values():
        for name, dtype in features.items():
            assert type(raw[name]).__name__ == dtype.rstrip("64"), name


def test_the_span_may_end_on_any_day() -> None:
    for end in (datetime(1999, 3, 1, tzinfo=UTC), datetime(2040, 2, 29, tzinfo=UTC)):
        assert small(end=end).end == end
