"""What the past says about each card, customer and merchant: daily snapshots of rolling aggregates.

A snapshot of day d (event_timestamp = d 00:00 UTC) uses only what happened before it, and of frauds only what was
reported by then: a dispute arrives REPORT_DAYS after the purchase. So a point-in-time join leaks nothing.

All windows are sums over a matrix [entities, days], not over transactions, so a snapshot of every day costs the same as
one. An empty window gives 0, never NaN: a count beside it says that it was empty.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from functions.fraud.simulate import Simulation
from functions.fraud.world import Floats, Ints

REPORT_DAYS: Final = 4
FIRST_DAY: Final = 14  # no snapshots before: their windows would be mostly empty

CARD: Final = {
    "card_tx_count_1d": "int64",
    "card_tx_count_7d": "int64",
    "card_tx_count_30d": "int64",
    "card_amount_mean_7d": "float64",
    "card_amount_mean_30d": "float64",
    "card_amount_std_30d": "float64",
    "card_amount_max_30d": "float64",
    "card_night_share_30d": "float64",
    "card_age_days": "int64",
}
CUSTOMER: Final = {
    "customer_tx_count_7d": "int64",
    "customer_tx_count_30d": "int64",
    "customer_amount_mean_30d": "float64",
    "customer_amount_std_30d": "float64",
    "customer_km_mean_30d": "float64",
    "customer_km_max_7d": "float64",
    "customer_online_share_30d": "float64",
    "customer_cards": "int64",
    "customer_disputes_60d": "int64",
}
MERCHANT: Final = {
    "merchant_tx_count_1d": "int64",
    "merchant_tx_count_7d": "int64",
    "merchant_tx_count_30d": "int64",
    "merchant_amount_mean_30d": "float64",
    "merchant_amount_std_30d": "float64",
    "merchant_km_mean_30d": "float64",
    "merchant_night_share_30d": "float64",
    "merchant_online": "int64",
    "merchant_risk_7d": "float64",
    "merchant_risk_30d": "float64",
}
VIEWS: Final = {"card_stats": CARD, "customer_stats": CUSTOMER, "merchant_stats": MERCHANT}
"""Feature view -> its features with their dtypes."""


@dataclass(frozen=True, slots=True)
class Days:
    """Daily totals per entity, each [entities, days]: how many, and sums and maxima of what was bought."""

    count: Floats
    amount: Floats
    squares: Floats
    dearest: Floats
    km: Floats
    farthest: Floats
    night: Floats
    online: Floats
    frauds: Floats  # on the day they are reported


def snapshots(simulation: Simulation) -> dict[str, pd.DataFrame]:
    """View name -> table of (entity key, event_timestamp, features as in VIEWS): one row per entity and day from
    FIRST_DAY to the last day's midnight, inclusive. A card has rows from the day after it was issued."""
    world = simulation.world
    days = (simulation.end - simulation.start).days
    card = _card(_days(simulation, "card_id", len(world.cards.customer), days))
    age = np.arange(days + 1)[None, :] - world.cards.issued[:, None]
    card["card_age_days"] = np.maximum(age, 0)
    customer = _customer(_days(simulation, "customer_id", len(world.customers.rate), days))
    customer["customer_cards"] = _wide(world.cards.count, days)
    merchant = _merchant(_days(simulation, "merchant_id", len(world.merchants.town), days))
    merchant["merchant_online"] = _wide(world.merchants.online.astype(np.int64), days)
    return {
        "card_stats": _table(simulation, "card_id", CARD, card, age > 0),
        "customer_stats": _table(simulation, "customer_id", CUSTOMER, customer, None),
        "merchant_stats": _table(simulation, "merchant_id", MERCHANT, merchant, None),
    }


def _card(d: Days) -> dict[str, Floats]:
    mean_7, _ = _mean_std(d, 7)
    mean_30, std_30 = _mean_std(d, 30)
    return {
        "card_tx_count_1d": _total(d.count, 1),
        "card_tx_count_7d": _total(d.count, 7),
        "card_tx_count_30d": _total(d.count, 30),
        "card_amount_mean_7d": mean_7,
        "card_amount_mean_30d": mean_30,
        "card_amount_std_30d": std_30,
        "card_amount_max_30d": _maximum(d.dearest, 30),
        "card_night_share_30d": _share(d.night, d.count, 30),
    }


def _customer(d: Days) -> dict[str, Floats]:
    mean_30, std_30 = _mean_std(d, 30)
    return {
        "customer_tx_count_7d": _total(d.count, 7),
        "customer_tx_count_30d": _total(d.count, 30),
        "customer_amount_mean_30d": mean_30,
        "customer_amount_std_30d": std_30,
        "customer_km_mean_30d": _share(d.km, d.count, 30),
        "customer_km_max_7d": _maximum(d.farthest, 7),
        "customer_online_share_30d": _share(d.online, d.count, 30),
        "customer_disputes_60d": _total(d.frauds, 60),
    }


def _merchant(d: Days) -> dict[str, Floats]:
    mean_30, std_30 = _mean_std(d, 30)
    return {
        "merchant_tx_count_1d": _total(d.count, 1),
        "merchant_tx_count_7d": _total(d.count, 7),
        "merchant_tx_count_30d": _total(d.count, 30),
        "merchant_amount_mean_30d": mean_30,
        "merchant_amount_std_30d": std_30,
        "merchant_km_mean_30d": _share(d.km, d.count, 30),
        "merchant_night_share_30d": _share(d.night, d.count, 30),
        # Reported frauds over all purchases of the window; the added 20 keep one dispute from ruining a small shop.
        "merchant_risk_7d": _total(d.frauds, 7) / (_total(d.count, 7) + 20),
        "merchant_risk_30d": _total(d.frauds, 30) / (_total(d.count, 30) + 20),
    }


def _days(simulation: Simulation, key: str, entities: int, days: int) -> Days:
    """Daily totals by `key`, whose ids are 0..entities-1."""
    t = simulation.transactions
    entity = t[key].to_numpy()
    amount, km, hour = (t[name].to_numpy() for name in ("amount", "km_from_home", "hour"))
    day = (t["event_timestamp"] - pd.Timestamp(simulation.start)).dt.days.to_numpy()
    online = simulation.world.merchants.online[t["merchant_id"].to_numpy()]
    fraud = t["is_fraud"].to_numpy() == 1
    reported = np.minimum(day + REPORT_DAYS, days)  # the last column is dropped: reports after the span

    def total(values: Floats, when: Ints = day) -> Floats:
        flat: Floats = np.bincount(entity * (days + 1) + when, weights=values, minlength=entities * (days + 1)).astype(
            float
        )
        return flat.reshape(entities, days + 1)[:, :days]

    def peak(values: Floats) -> Floats:
        highest = np.zeros((entities, days))
        np.maximum.at(highest, (entity, day), values)
        return highest

    return Days(
        count=total(np.ones(len(t))),
        amount=total(amount),
        squares=total(amount**2),
        dearest=peak(amount),
        km=total(km),
        farthest=peak(km),
        night=total((hour < 6).astype(np.float64)),
        online=total(online.astype(np.float64)),
        frauds=total(fraud.astype(np.float64), reported),
    )


def _windows(daily: Floats, width: int) -> Floats:
    """[entities, days + 1, width]: for every midnight, the `width` days before it (zeros before the span)."""
    padded = np.pad(daily, ((0, 0), (width, 0)))
    return np.lib.stride_tricks.sliding_window_view(padded, width, axis=1)


def _total(daily: Floats, width: int) -> Floats:
    return np.asarray(_windows(daily, width).sum(axis=-1))


def _maximum(daily: Floats, width: int) -> Floats:
    return np.asarray(_windows(daily, width).max(axis=-1))


def _share(part: Floats, count: Floats, width: int) -> Floats:
    return _total(part, width) / np.maximum(_total(count, width), 1)


def _mean_std(d: Days, width: int) -> tuple[Floats, Floats]:
    count = np.maximum(_total(d.count, width), 1)
    mean = _total(d.amount, width) / count
    return mean, np.sqrt(np.maximum(_total(d.squares, width) / count - mean**2, 0))


def _wide(values: Ints | Floats, days: int) -> Floats:
    """A value that does not change, for every midnight."""
    return np.repeat(np.asarray(values, np.float64)[:, None], days + 1, axis=1)


def _table(
    simulation: Simulation, key: str, dtypes: dict[str, str], columns: dict[str, Floats], exists: object
) -> pd.DataFrame:
    """The matrices as rows, by entity and then day; `exists` [entities, days + 1] says which rows there are."""
    entities, midnights = columns[next(iter(dtypes))].shape
    midnight = np.arange(FIRST_DAY, midnights)
    kept = np.ones((entities, len(midnight)), np.bool_) if exists is None else np.asarray(exists)[:, FIRST_DAY:]
    stamps = pd.to_datetime(int(simulation.start.timestamp()) + midnight * 86_400, unit="s", utc=True).as_unit("us")
    entity, day = np.nonzero(kept)
    features = {name: columns[name][:, FIRST_DAY:][kept].astype(dtype) for name, dtype in dtypes.items()}
    return pd.DataFrame({key: entity, "event_timestamp": stamps[day], **features})
