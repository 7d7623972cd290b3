"""A seeded simulator of card transactions with fraud: the data behind the function `fraud`.

What people do (`_daily`): a customer buys at a few favourite merchants near home, sometimes online, sometimes on a trip
far away; amounts are log-normal around the customer's usual amount times a factor of the merchant's trade.

What thieves do (functions/fraud/patterns.py): stolen cards, compromised terminals, card testing, account takeover, and
disputes that look like any other purchase, so that no model can be perfect.

Everything is drawn from one seed and placed on a span of whole days that ends at `end`; moving `end` moves every event
time and changes nothing else. `later` goes on after it, with the same people. Simplifications: places are on a flat
map, a card goes on working after a fraud, and nobody learns.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
import pandas as pd

from functions.fraud.patterns import PATTERNS, Scene, all_frauds
from functions.fraud.world import Bools, Floats, Ints, World, distance, make_world

SEED: Final = 20
END: Final = datetime(2026, 1, 1, tzinfo=UTC)  # any midnight does; the demo uses today's, so that features are fresh
DAYS: Final = 100
DAYS_MIN: Final = 40  # for every pattern to occur
CUSTOMERS: Final = 1_000
MERCHANTS: Final = 800

REQUEST: Final = ("card_id", "customer_id", "merchant_id", "amount", "hour", "km_from_home")
"""What a caller of the function sends: three entity keys and three numbers."""

EVENT: Final = ("transaction_id", "event_time")
"""What a record of the topic says besides: which purchase it is, and when it was."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Transactions before they are put in order: parallel arrays. `time` is days since the start of the span (float);
    `place_km` is how far from the customer's home it happened."""

    card: Ints
    merchant: Ints
    amount: Floats
    time: Floats
    place_km: Floats
    pattern: Ints


@dataclass(frozen=True, slots=True)
class Simulation:
    """`transactions` columns: card_id, customer_id, merchant_id int64; amount, hour, km_from_home float64;
    event_timestamp datetime64[us, UTC], ascending; transaction_id text, of one alone, in later spans too; is_fraud
    int64; pattern (a name of PATTERNS, "" for honest ones).
    `start` is the first day's midnight, `end` the last day's."""

    world: World
    transactions: pd.DataFrame
    start: datetime
    end: datetime


def simulate(
    *, seed: int = SEED, end: datetime = END, days: int = DAYS, customers: int = CUSTOMERS, merchants: int = MERCHANTS
) -> Simulation:
    """Simulate `days` whole days that end at `end`, a midnight in UTC. The same arguments give the same rows.

    Raises ValueError when `end` is not a midnight in UTC, or the numbers are too small for the patterns.
    """
    _check(end, days, customers, merchants)
    rng_world, rng_daily, rng_fraud, *_ = _generators(seed)
    world = make_world(rng_world, customers=customers, merchants=merchants)
    return Simulation(world, _span(rng_daily, rng_fraud, world, end, days), end - timedelta(days=days), end)


def later(
    rows: int,
    *,
    seed: int = SEED,
    end: datetime = END,
    days: int = DAYS,
    customers: int = CUSTOMERS,
    merchants: int = MERCHANTS,
) -> pd.DataFrame:
    """The first `rows` transactions after a simulation that was made with these other arguments.

    The same people, cards and shops, and what they do from `end` on; frauds are new ones, those under way at `end` do
    not go on. Columns as of Simulation.transactions. The same arguments give the same rows. Raises ValueError like
    `simulate`, and for less than one row.
    """
    _check(end, days, customers, merchants)
    if rows < 1:
        raise ValueError(f"at least one row, not {rows}")
    rng_world, *_, rng_daily, rng_fraud = _generators(seed)
    world = make_world(rng_world, customers=customers, merchants=merchants)
    world = replace(world, cards=replace(world.cards, issued=world.cards.issued - days))
    enough = max(DAYS_MIN, math.ceil(1.2 * rows / world.customers.rate.sum()))
    return _span(rng_daily, rng_fraud, world, end + timedelta(days=enough), enough).head(rows)


def _check(end: datetime, days: int, customers: int, merchants: int) -> None:
    if end.utcoffset() != timedelta(0) or end.timestamp() % 86_400:
        raise ValueError(f"end must be a midnight in UTC, not {end.isoformat()}")
    if days < DAYS_MIN or customers < 50 or merchants < 100:
        raise ValueError(
            f"at least {DAYS_MIN} days, 50 customers and 100 merchants are needed for every pattern to occur"
        )


def _generators(seed: int) -> list[np.random.Generator]:
    """Of the world; of the span's purchases and frauds; of the purchases and frauds after it."""
    return [np.random.default_rng(stream) for stream in np.random.SeedSequence(seed).spawn(5)]


def _span(
    rng_daily: np.random.Generator, rng_fraud: np.random.Generator, world: World, end: datetime, days: int
) -> pd.DataFrame:
    """Everything that happens in `days` whole days that end at `end`, in order."""
    honest = _daily(rng_daily, world, days)
    scene = Scene(world, days, honest.card, honest.merchant, honest.time)
    frauds = [Batch(*rows) for rows in all_frauds(rng_fraud, scene)]
    return _frame([honest, *frauds], world, end, days)


def _daily(rng: np.random.Generator, world: World, days: int) -> Batch:
    """Honest purchases, vectorised over all of them."""
    people, shops, cards = world.customers, world.merchants, world.cards
    who = np.repeat(np.arange(len(people.rate)), rng.poisson(people.rate * days))
    n = len(who)
    busy = np.array([1.0, 0.9, 0.9, 1.0, 1.2, 1.4, 0.8])[np.arange(days) % 7]
    day = rng.choice(days, n, p=busy / busy.sum())
    hour = (people.peak[who] + rng.normal(0, 1, n) * people.spread[who]) % 24
    # Most at a favourite (harmonic weights), some in town or anywhere: a new place alone is not fraud.
    rank = 1.0 / np.arange(1, people.favourites.shape[1] + 1)
    merchant = people.favourites[who, rng.choice(len(rank), n, p=rank / rank.sum())]
    other = rng.random(n) < 0.12
    online = np.flatnonzero(shops.online)
    merchant[other] = _near(rng, world, who[other])
    net = rng.random(n) < people.online[who] * 0.5
    merchant[net] = rng.choice(online, int(net.sum()), p=_normal(shops.popularity[online]))
    away, town = _trips(rng, world, who, day, days)
    visits = away & ~shops.online[merchant]
    merchant[visits] = _in_town(rng, world, town[visits])
    place = shops.place[merchant].copy()
    at_home = shops.online[merchant]
    place[at_home] = people.home[who[at_home]] + rng.normal(0, 5.0, (int(at_home.sum()), 2))
    roams = at_home & away
    place[roams] = world.towns[town[roams]] + rng.normal(0, 8.0, (int(roams.sum()), 2))
    # A card is one of the customer's that was issued by then; the first one always was.
    card = cards.first[who] + (rng.random(n) * cards.count[who]).astype(np.int64)
    card = np.where(cards.issued[card] <= day, card, cards.first[who])
    amount = people.amount[who] * shops.factor[merchant] * rng.lognormal(0, 0.55, n)
    amount *= np.where(rng.random(n) < 0.015, rng.uniform(3, 9, n), 1.0)  # now and then something dear
    km = distance(place, people.home[who])
    return Batch(card, merchant, amount, day + hour / 24, km, np.zeros(n, np.int64))


def _trips(rng: np.random.Generator, world: World, who: Ints, day: Ints, days: int) -> tuple[Bools, Ints]:
    """Whether each purchase falls on a trip of its customer, and the trip's town. Up to two trips each, 2-9 days."""
    people = len(world.customers.rate)
    start = rng.integers(0, days, (people, 2))
    length = rng.integers(2, 10, (people, 2)) * (rng.random((people, 2)) < 0.5)
    town = rng.integers(0, len(world.towns), (people, 2))
    inside = (day[:, None] >= start[who]) & (day[:, None] < start[who] + length[who])
    return np.any(inside, axis=1), town[who, np.argmax(inside, axis=1)]


def _near(rng: np.random.Generator, world: World, who: Ints) -> Ints:
    """A merchant of the customer's own town, by chance; by popularity anywhere for one in five."""
    centre = np.argmin(distance(world.customers.home[:, None, :], world.towns[None, :, :]), axis=1)
    merchant = _in_town(rng, world, centre[who])
    far = rng.random(len(who)) < 0.2
    merchant[far] = rng.choice(len(world.merchants.popularity), int(far.sum()), p=world.merchants.popularity)
    return merchant


def _in_town(rng: np.random.Generator, world: World, town: Ints) -> Ints:
    """A merchant of each given town (the nearest later town when one has none): ids of a town are one run."""
    towns = np.arange(len(world.towns))
    low = np.searchsorted(world.merchants.town, towns, "left")
    high = np.searchsorted(world.merchants.town, towns, "right")
    size = np.maximum(high - low, 1)
    chosen = low[town] + (rng.random(len(town)) * size[town]).astype(np.int64)
    return np.asarray(np.minimum(chosen, len(world.merchants.town) - 1))


def _normal(weights: Floats) -> Floats:
    return np.asarray(weights / weights.sum())


def _frame(batches: Sequence[Batch], world: World, end: datetime, days: int) -> pd.DataFrame:
    """All batches as one table in time order, less what falls outside the span."""
    card, merchant, amount, time, km, pattern = (
        np.concatenate([getattr(b, name) for b in batches]) for name in Batch.__slots__
    )
    keep = (time >= 0) & (time < days)
    order = np.flatnonzero(keep)[np.argsort(time[keep], kind="stable")]
    seconds = np.floor(time[order] * 86_400).astype(np.int64)  # whole seconds: exact in every store
    start_us = int(end.timestamp() - days * 86_400) * 1_000_000
    table = pd.DataFrame(
        {
            "card_id": card[order],
            "customer_id": world.cards.customer[card[order]],
            "merchant_id": merchant[order],
            "amount": np.maximum(np.round(amount[order], 2), 0.01),
            "hour": np.floor(seconds % 86_400 / 36) / 100,
            "km_from_home": np.round(km[order], 1),
            "event_timestamp": pd.to_datetime(start_us + seconds * 1_000_000, unit="us", utc=True),
            "is_fraud": (pattern[order] > 0).astype(np.int64),
            "pattern": np.array(["", *PATTERNS])[pattern[order]],
        }
    )
    # A card is used once in a second, so (card, time) names a transaction.
    table = table.drop_duplicates(["card_id", "event_timestamp"], ignore_index=True)
    at = table["event_timestamp"].astype(np.int64) // 1_000_000
    table.insert(7, "transaction_id", [f"{card}-{second}" for card, second in zip(table["card_id"], at, strict=True)])
    return table
