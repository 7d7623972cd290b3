"""What is known at a midnight of users and items: aggregates of the views before it, never of the day that begins."""

from datetime import timedelta
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from functions.recommend.simulate import CATEGORIES, DAYS, FIRST_ITEM, ITEMS, USERS, Simulation

FIRST_SNAPSHOT: Final = 28  # earlier midnights have too little history behind them
SHARES: Final = [f"user_share_{c}" for c in range(CATEGORIES)]
VIEWS: Final = {
    "user_stats": ["user_views_7d", "user_views_28d", "user_price_mean_28d", "user_price_std_28d", *SHARES],
    "item_stats": [
        "item_views_1d",
        "item_views_7d",
        "item_views_28d",
        "item_users_28d",
        "item_age_days",
        "item_price",
        "item_category",
    ],
}
"""Feature view -> its features. Counts, ages and the category are whole numbers, the others float64."""


def snapshots(simulation: Simulation) -> dict[str, pd.DataFrame]:
    """Per view a table: entity key, event_timestamp (a midnight), features. From FIRST_SNAPSHOT to the end."""
    users, items = [], []
    views = simulation.views
    known = views.assign(item=views["item_id"] - FIRST_ITEM)
    for day in range(FIRST_SNAPSHOT, DAYS + 1):
        at = pd.Timestamp(simulation.start + timedelta(days=day))
        late = known[(known["day"] < day) & (known["day"] >= day - 28)]
        users.append(_users(simulation, late, day).assign(event_timestamp=at))
        items.append(_items(simulation, late, day).assign(event_timestamp=at))
    return {"user_stats": pd.concat(users, ignore_index=True), "item_stats": pd.concat(items, ignore_index=True)}


def _users(simulation: Simulation, late: pd.DataFrame, day: int) -> pd.DataFrame:
    """Of everyone who looked at anything in the last 28 days."""
    who, item = late["user_id"].to_numpy(), late["item"].to_numpy()
    price = simulation.catalogue.price[item]
    count = np.bincount(who, minlength=USERS)
    some = np.maximum(count, 1)
    mean = np.bincount(who, price, USERS) / some
    spread = np.sqrt(np.maximum(np.bincount(who, price**2, USERS) / some - mean**2, 0.0))
    by_category = np.zeros((USERS, CATEGORIES))
    np.add.at(by_category, (who, simulation.catalogue.category[item]), 1.0)
    table = pd.DataFrame(
        {
            "user_id": np.arange(USERS),
            "user_views_7d": _count(late, day - 7, "user_id", USERS),
            "user_views_28d": count,
            "user_price_mean_28d": mean,
            "user_price_std_28d": spread,
            # One more view of everything: a user with three views has no certain taste yet.
            **dict(zip(SHARES, ((by_category + 1) / (some + CATEGORIES)[:, None]).T, strict=True)),
        }
    )
    return table[count > 0]


def _items(simulation: Simulation, late: pd.DataFrame, day: int) -> pd.DataFrame:
    """Of everything that is in the shop."""
    catalogue = simulation.catalogue
    pairs = late[["item", "user_id"]].drop_duplicates()
    table = pd.DataFrame(
        {
            "item_id": FIRST_ITEM + np.arange(ITEMS),
            "item_views_1d": _count(late, day - 1, "item", ITEMS),
            "item_views_7d": _count(late, day - 7, "item", ITEMS),
            "item_views_28d": _count(late, day - 28, "item", ITEMS),
            "item_users_28d": np.bincount(pairs["item"], minlength=ITEMS),
            "item_age_days": day - catalogue.came,
            "item_price": catalogue.price,
            "item_category": catalogue.category,
        }
    )
    return table[catalogue.came < day]


def _count(late: pd.DataFrame, first: int, key: str, size: int) -> NDArray[np.int64]:
    return np.bincount(late.loc[late["day"] >= first, key], minlength=size)
