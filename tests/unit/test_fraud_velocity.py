"""What fraud's training is told of a card's last hour and day, against the purchases themselves."""

import tomllib
import warnings
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from functions.fraud.history import VIEWS
from functions.fraud.simulate import EVENT, Simulation, simulate
from sunup.bundle.declare.file import read

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of importing Feast and what it imports: theirs
    from functions.fraud.velocity import VELOCITY, spec, velocity

FUNCTION = Path(__file__).resolve().parents[2] / "functions" / "fraud" / "function.toml"
MINUTE = pd.Timedelta("1min")


@pytest.fixture(scope="module")
def world() -> Simulation:
    return simulate(seed=5, days=50, customers=150, merchants=150)


def one_by_one(past: pd.DataFrame, row: "pd.Series[object]") -> tuple[int, float]:
    """The features of one purchase by their definition: windows of whole minutes, its own up to itself."""
    earlier = past[(past["card_id"] == row["card_id"]) & (past.index < row.name)]
    ends = pd.Timestamp(str(row["event_timestamp"])).floor("min") + MINUTE
    hour = earlier[earlier["event_timestamp"] >= ends - timedelta(hours=1)]
    day = earlier[earlier["event_timestamp"] >= ends - timedelta(hours=24)]
    return len(hour), float(day["amount"].sum())


def test_every_purchase_sees_those_before_it(world: Simulation) -> None:
    table = world.transactions
    found = velocity(table)
    pd.testing.assert_frame_equal(found[table.columns], table)
    testing = np.flatnonzero(table["pattern"].isin(["testing", "stolen"]))
    rows = [*np.random.default_rng(1).integers(0, len(table), 300), *testing[:300]]
    expected = [one_by_one(table, row) for _, row in table.iloc[rows].iterrows()]
    np.testing.assert_allclose(found.iloc[rows][list(VELOCITY)].to_numpy(), expected, rtol=1e-12, atol=1e-9)
    assert found["card_tx_count_1h"].max() >= 4, "somebody tests a card"


def test_neither_the_future_nor_its_own_amount_changes_a_row(world: Simulation) -> None:
    table = world.transactions
    at = len(table) // 2
    changed = table.copy()
    changed.loc[at:, "amount"] = 9_999.0
    before, after = velocity(table), velocity(changed)
    pd.testing.assert_frame_equal(before.loc[:at, list(VELOCITY)], after.loc[:at, list(VELOCITY)])
    assert not before.loc[at:, "card_amount_sum_24h"].equals(after.loc[at:, "card_amount_sum_24h"])


def test_the_function_scores_the_topic_the_view_is_made_of_and_has_its_defaults() -> None:
    how, declared = spec(), read(FUNCTION)
    assert declared.stream is not None
    assert declared.features is not None
    assert how.topic == declared.stream.input
    assert (how.event_id, how.timestamp) == EVENT
    assert tuple(each.feature for each in how.aggregations) == VELOCITY
    raw = tomllib.loads(FUNCTION.read_text())["features"]["defaults"]
    assert set(raw) == {feature for view in VIEWS.values() for feature in view} | set(VELOCITY)
    assert [(type(raw[name]), raw[name]) for name in VELOCITY] == [(int, 0), (float, 0.0)]
