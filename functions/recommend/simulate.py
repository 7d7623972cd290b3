"""A shop of ITEMS items and what its USERS looked at, day by day. Everything comes from the seed; only times do not.

How it works, so that what a model finds can be judged:

- An item has a category (one of CATEGORIES), a place in a space of TASTES dimensions near its category's, a price, a
  day it came into the shop, and an appeal drawn from a power law: a few items get most of the views.
- A user likes a few categories (Dirichlet, most of the weight on one to three) and a place in the same space near them.
- A user's number of views a day is Poisson, of a rate that differs a lot between users. Each view picks an item with a
  chance in proportion to appeal x exp(closeness of places) x share of its category. Only a user's first view of an item
  counts.
- An item is looked at more in its first fortnight, its appeal goes up and down from week to week, and one that has not
  come yet is never looked at.

So popularity predicts something, taste predicts more, and the newest views say what is on its way up.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]

SEED: Final = 30
DAYS: Final = 49
ITEMS: Final = 12_000
USERS: Final = 3_000
CATEGORIES: Final = 8
TASTES: Final = 12  # dimensions of the space items and users have a place in
FIRST_ITEM: Final = 100_000  # item ids begin here: they are no row numbers
VIEWS_A_DAY: Final = 1.3  # of a typical user
NEW_DAYS: Final = 14
FASHION: Final = 0.5  # how far an item's appeal moves in a week: standard deviation of its logarithm


@dataclass(frozen=True, slots=True)
class Catalogue:
    """One entry per item; item i has the id FIRST_ITEM + i. `came`: day it came, negative before the span."""

    category: Ints
    place: Floats
    price: Floats
    appeal: Floats
    came: Ints


@dataclass(frozen=True, slots=True)
class Simulation:
    """`views`: one row per view, ascending in time: user_id, item_id, event_timestamp (UTC), day. `start`: day 0."""

    catalogue: Catalogue
    views: pd.DataFrame
    start: datetime


def simulate(*, end: datetime, seed: int = SEED) -> Simulation:
    """DAYS days of views up to the midnight `end` (UTC). About 3 s."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(CATEGORIES, TASTES))
    catalogue = _catalogue(rng, centres)
    shares = rng.dirichlet(np.full(CATEGORIES, 0.3), size=USERS)
    places = shares @ centres + 0.5 * rng.normal(size=(USERS, TASTES))
    rates = VIEWS_A_DAY * rng.lognormal(0.0, 0.7, size=USERS)
    counts = rng.poisson(rates[:, None], size=(USERS, DAYS))
    chance = _chance_by_week(rng, catalogue)
    user, day, item = [], [], []
    for who in range(USERS):
        closeness = catalogue.place @ places[who] / np.sqrt(TASTES)
        liking = np.exp(0.8 * closeness) * (shares[who] + 0.01)[catalogue.category]
        days = np.repeat(np.arange(DAYS), counts[who])
        draws = rng.random(len(days))
        picked = np.empty(len(days), np.int64)
        for week in range(len(chance)):
            now = days // 7 == week
            edges = np.cumsum(chance[week] * liking)
            picked[now] = np.searchsorted(edges, draws[now] * edges[-1], side="right")
        user.append(np.full(len(days), who))
        day.append(days)
        item.append(picked)
    start = end - timedelta(days=DAYS)
    return Simulation(
        catalogue, _table(rng, np.concatenate(user), np.concatenate(day), np.concatenate(item), start), start
    )


def _catalogue(rng: np.random.Generator, centres: Floats) -> Catalogue:
    category = rng.choice(CATEGORIES, size=ITEMS, p=rng.dirichlet(np.full(CATEGORIES, 8.0)))
    return Catalogue(
        category=category.astype(np.int64),
        place=centres[category] + 0.7 * rng.normal(size=(ITEMS, TASTES)),
        price=np.round(rng.lognormal(2.5 + 0.15 * category, 0.6), 2),
        appeal=rng.permutation(np.arange(1, ITEMS + 1) ** -0.8),
        came=np.where(rng.random(ITEMS) < 0.3, rng.integers(0, DAYS, ITEMS), -rng.integers(1, 400, ITEMS)),
    )


def _chance_by_week(rng: np.random.Generator, catalogue: Catalogue) -> Floats:
    """How an item's appeal stands in each week [weeks, ITEMS]: none before it came, more while it is new, and fashion
    that comes and goes."""
    first = np.arange(0, DAYS, 7)[:, None]
    age = first + 6 - catalogue.came[None, :]
    fresh = np.where(age < NEW_DAYS, 4.0, 1.0)
    fashion = np.exp(np.cumsum(rng.normal(0.0, FASHION, size=age.shape), axis=0))
    chance: Floats = np.where(first >= catalogue.came[None, :], catalogue.appeal * fresh * fashion, 0.0)
    return chance


def _table(rng: np.random.Generator, user: Ints, day: Ints, item: Ints, start: datetime) -> pd.DataFrame:
    seconds = day * 86_400 + rng.integers(0, 86_400, len(day))
    table = pd.DataFrame(
        {
            "user_id": user,
            "item_id": FIRST_ITEM + item,
            "event_timestamp": pd.Timestamp(start) + pd.to_timedelta(seconds, unit="s"),
            "day": day,
        }
    )
    table = table.sort_values("event_timestamp", kind="stable", ignore_index=True)
    return table.drop_duplicates(["user_id", "item_id"], ignore_index=True)
