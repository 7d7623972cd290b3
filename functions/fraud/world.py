"""Who spends where: customers, cards and merchants on a flat map.

The map is MAP_KM wide and high; places are (x, y) in km, so a distance is Euclidean. Nothing here depends on the date.
"""

from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
Bools: TypeAlias = NDArray[np.bool_]

MAP_KM: Final = np.array([900.0, 700.0])
TOWNS: Final = 40
TOWN_SPREAD_KM: Final = 7.0
FAVOURITES: Final = 24  # merchants a customer usually goes to

# name, share of merchants, factor on a customer's usual amount, sold online, attractive to a thief
CATEGORIES: Final = (
    ("grocery", 0.24, 0.7, False, 0.05),
    ("restaurant", 0.20, 0.6, False, 0.05),
    ("fuel", 0.10, 0.9, False, 0.10),
    ("clothing", 0.12, 1.2, False, 0.30),
    ("electronics", 0.06, 3.0, False, 1.00),
    ("jewellery", 0.03, 5.0, False, 1.00),
    ("parking", 0.05, 0.08, False, 0.00),
    ("webshop", 0.10, 1.1, True, 0.60),
    ("digital", 0.06, 0.12, True, 0.20),
    ("giftcards", 0.04, 1.0, True, 1.00),
)


@dataclass(frozen=True, slots=True)
class Customers:
    """One entry per customer; the customer's id is its index.

    `home` [n, 2] km; `amount` typical amount of a purchase; `rate` purchases per day; `peak` usual hour of the day;
    `spread` hours around it; `online` share bought online; `favourites` [n, FAVOURITES] merchant ids, most used first.
    """

    home: Floats
    amount: Floats
    rate: Floats
    peak: Floats
    spread: Floats
    online: Floats
    favourites: Ints


@dataclass(frozen=True, slots=True)
class Cards:
    """One entry per card; the card's id is its index. `issued`: the day it was issued (0 or less: before the span)."""

    customer: Ints
    issued: Ints
    first: Ints  # per customer: its first card
    count: Ints  # per customer: how many cards, ids in one run from `first`


@dataclass(frozen=True, slots=True)
class Merchants:
    """One entry per merchant (or terminal); the merchant's id is its index.

    `place` [n, 2] km; `town` index; `category` index into CATEGORIES; `online` sells over the net; `factor` on a
    customer's usual amount; `lure` how much a thief likes it; `popularity` sums to 1.
    """

    place: Floats
    town: Ints
    category: Ints
    online: Bools
    factor: Floats
    lure: Floats
    popularity: Floats


@dataclass(frozen=True, slots=True)
class World:
    """Everything that does not change over the span."""

    towns: Floats
    customers: Customers
    cards: Cards
    merchants: Merchants


def make_world(rng: np.random.Generator, *, customers: int, merchants: int) -> World:
    """Draw a world. The same generator state gives the same world."""
    weight: Floats = 1.0 / np.arange(1, TOWNS + 1, dtype=np.float64) ** 0.8
    weight /= weight.sum()
    towns = rng.uniform(0.05, 0.95, (TOWNS, 2)) * MAP_KM
    shops = _merchants(rng, towns, weight, merchants)
    people = _customers(rng, towns, weight, shops, customers)
    return World(towns, people, _cards(rng, customers), shops)


def _merchants(rng: np.random.Generator, towns: Floats, weight: Floats, n: int) -> Merchants:
    columns: list[tuple[Any, ...]] = list(zip(*CATEGORIES, strict=True))
    share, factor, online, lure = (np.array(column) for column in columns[1:])
    category = rng.choice(len(CATEGORIES), n, p=share / share.sum())
    town = np.sort(rng.choice(len(towns), n, p=weight))  # sorted: the merchants of a town are one run of ids
    popularity = rng.pareto(1.6, n) + 0.2
    return Merchants(
        place=towns[town] + rng.normal(0, TOWN_SPREAD_KM, (n, 2)),
        town=town,
        category=category,
        online=online[category],
        factor=factor[category] * rng.lognormal(0, 0.25, n),
        lure=lure[category],
        popularity=popularity / popularity.sum(),
    )


def _customers(rng: np.random.Generator, towns: Floats, weight: Floats, shops: Merchants, n: int) -> Customers:
    home = towns[rng.choice(len(towns), n, p=weight)] + rng.normal(0, TOWN_SPREAD_KM, (n, 2))
    # Gravity: near and popular shops first; online shops are near to everybody. Gumbel noise makes it a draw.
    km = distance(home[:, None, :], shops.place[None, :, :])
    pull = np.log(shops.popularity) - np.where(shops.online, 4.5, km / 8.0) + rng.gumbel(0, 1, km.shape)
    order = np.argpartition(-pull, FAVOURITES, axis=1)[:, :FAVOURITES]
    favourites = np.take_along_axis(order, np.argsort(-np.take_along_axis(pull, order, 1), axis=1), 1)
    return Customers(
        home=home,
        amount=rng.lognormal(3.3, 0.55, n),
        rate=rng.gamma(2.0, 0.5, n),
        peak=rng.normal(14.5, 2.5, n) % 24,
        spread=rng.uniform(2.0, 4.5, n),
        online=rng.beta(2, 6, n),
        favourites=favourites.astype(np.int64),
    )


def _cards(rng: np.random.Generator, customers: int) -> Cards:
    count = 1 + (rng.random(customers) < 0.3).astype(np.int64) + (rng.random(customers) < 0.05).astype(np.int64)
    owner = np.repeat(np.arange(customers), count)
    first = np.cumsum(count) - count
    issued = -rng.integers(10, 1500, len(owner))
    # A second card may be new: it has no history when it is first used, as in life.
    late = (np.arange(len(owner)) != first[owner]) & (rng.random(len(owner)) < 0.35)
    issued[late] = rng.integers(1, 98, int(late.sum()))
    return Cards(customer=owner, issued=issued, first=first, count=count)


def distance(a: Floats, b: Floats) -> Floats:
    """km between places `a` and `b`, arrays of [..., 2]."""
    delta: Floats = a - b
    return np.asarray(np.hypot(delta[..., 0], delta[..., 1]))
