"""What thieves do: each pattern returns transactions to be mixed with the honest ones.

A pattern's rows are parallel arrays: card, merchant, amount, time in days, km from home, pattern number (its place in
PATTERNS, from 1).
"""

from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

from functions.fraud.world import Floats, Ints, World, distance

Rows: TypeAlias = tuple[Ints, Ints, Floats, Floats, Floats, Ints]

PATTERNS: Final = ("stolen", "terminal", "testing", "takeover", "dispute")

# Incidents per 1,000 cards (or merchants, or transactions) over 100 days: together about 2 % of all transactions.
STOLEN_PER_1000_CARDS: Final = 85
TERMINALS_PER_1000_MERCHANTS: Final = 60
TESTED_PER_1000_CARDS: Final = 32
TAKEOVERS_PER_1000_CUSTOMERS: Final = 40
DISPUTES_PER_1000: Final = 0.9


@dataclass(frozen=True, slots=True)
class Scene:
    """What a thief finds: the world, the length of the span, and the honest transactions as parallel arrays."""

    world: World
    days: int
    card: Ints
    merchant: Ints
    time: Floats


def all_frauds(rng: np.random.Generator, scene: Scene) -> list[Rows]:
    """Every pattern, in the order of PATTERNS, each from its own stream so that changing one leaves the others."""
    streams = [np.random.default_rng(rng.integers(2**63)) for _ in PATTERNS]
    patterns = (stolen, terminal, testing, takeover, dispute)
    return [pattern(stream, scene) for pattern, stream in zip(patterns, streams, strict=True)]


def stolen(rng: np.random.Generator, scene: Scene) -> Rows:
    """A stolen card: 3-9 purchases within a day, dear goods, in a town usually far from the owner's home."""
    shops, people, cards = scene.world.merchants, scene.world.customers, scene.world.cards
    incidents = _incidents(rng, STOLEN_PER_1000_CARDS, len(cards.customer), scene.days)
    victims = rng.choice(len(cards.customer), incidents, replace=False)
    size = rng.integers(3, 10, incidents)
    card = np.repeat(victims, size)
    owner = cards.customer[card]
    town = np.repeat(rng.integers(0, len(scene.world.towns), incidents), size)
    start = np.repeat(rng.uniform(0, scene.days, incidents), size)
    # Of forty random shops, the one that is nearest to the thief's town and most attractive.
    offered = rng.integers(0, len(shops.town), (len(card), 40))
    pull = shops.lure[offered] * 3 - distance(shops.place[offered], scene.world.towns[town][:, None, :]) / 60
    merchant = offered[np.arange(len(card)), np.argmax(pull, axis=1)]
    amount = people.amount[owner] * shops.factor[merchant] ** 0.5 * rng.lognormal(0.9, 0.7, len(card))
    km = distance(shops.place[merchant], people.home[owner])
    time = start + rng.exponential(0.18, len(card))
    return card, merchant, amount, time, km, _number(card, "stolen")


def terminal(rng: np.random.Generator, scene: Scene) -> Rows:
    """A compromised terminal: for 8-25 days, some of the cards used there are charged once more within two days.

    The extra charge looks like any other purchase; what gives it away is the merchant's own record, and that only
    after the first disputes come in.
    """
    shops, people, cards = scene.world.merchants, scene.world.customers, scene.world.cards
    card, merchant, time = scene.card, scene.merchant, scene.time
    incidents = _incidents(rng, TERMINALS_PER_1000_MERCHANTS, len(shops.town), scene.days)
    physical = np.flatnonzero(~shops.online)
    weight = shops.popularity[physical] / shops.popularity[physical].sum()
    chosen = rng.choice(physical, incidents, replace=False, p=weight)
    begin = np.full(len(shops.town), np.inf)
    spread = (np.arange(incidents) + rng.random(incidents)) / incidents  # evenly, so that there are some at any time
    begin[chosen] = spread * (scene.days + 10) - 10
    length = rng.uniform(8, 25, len(shops.town))
    exposed = (time >= begin[merchant]) & (time < begin[merchant] + length[merchant])
    hit = np.flatnonzero(exposed & (rng.random(len(time)) < 0.55))
    owner = cards.customer[card[hit]]
    amount = people.amount[owner] * shops.factor[merchant[hit]] * rng.lognormal(0.35, 0.6, len(hit))
    km = distance(shops.place[merchant[hit]], people.home[owner])
    return card[hit], merchant[hit], amount, time[hit] + rng.uniform(0.01, 2, len(hit)), km, _number(hit, "terminal")


def testing(rng: np.random.Generator, scene: Scene) -> Rows:
    """Card testing: 4-10 tiny online charges within the hour to see whether the number works, then a big purchase."""
    shops, people, cards = scene.world.merchants, scene.world.customers, scene.world.cards
    incidents = _incidents(rng, TESTED_PER_1000_CARDS, len(cards.customer), scene.days)
    victims = rng.choice(len(cards.customer), incidents, replace=False)
    size = rng.integers(4, 11, incidents)
    card = np.repeat(victims, size)
    last = np.cumsum(size) - 1  # the last of each burst is the big one
    start = np.repeat(rng.uniform(0, scene.days, incidents), size)
    online = np.flatnonzero(shops.online)
    merchant = np.repeat(rng.choice(online, incidents), size)
    merchant[last] = rng.choice(online[shops.lure[online] > 0.5], incidents)
    time = start + rng.uniform(0, 0.04, len(card))
    time[last] = start[last] + rng.uniform(0.05, 0.3, incidents)
    amount = rng.uniform(0.2, 3.0, len(card))
    amount[last] = people.amount[cards.customer[victims]] * rng.lognormal(1.7, 0.5, incidents)
    return card, merchant, amount, time, rng.gamma(2.0, 120.0, len(card)), _number(card, "testing")


def takeover(rng: np.random.Generator, scene: Scene) -> Rows:
    """Account takeover: for 3-7 days, 1-4 online purchases a day on any of the customer's cards, mostly at night."""
    shops, people, cards = scene.world.merchants, scene.world.customers, scene.world.cards
    incidents = _incidents(rng, TAKEOVERS_PER_1000_CUSTOMERS, len(people.rate), scene.days)
    victims = rng.choice(len(people.rate), incidents, replace=False)
    length = rng.integers(3, 8, incidents)
    size = length * rng.integers(1, 5, incidents)
    owner = np.repeat(victims, size)
    start = np.repeat(rng.integers(0, scene.days, incidents), size)
    day = start + (rng.random(len(owner)) * np.repeat(length, size)).astype(np.int64)
    hour = np.where(rng.random(len(owner)) < 0.6, rng.uniform(0, 6, len(owner)), rng.uniform(0, 24, len(owner)))
    card = cards.first[owner] + (rng.random(len(owner)) * cards.count[owner]).astype(np.int64)
    card = np.where(cards.issued[card] <= day, card, cards.first[owner])
    online = np.flatnonzero(shops.online)
    merchant = rng.choice(online, len(owner), p=shops.lure[online] / shops.lure[online].sum())
    amount = people.amount[owner] * rng.lognormal(0.8, 0.5, len(owner))
    # Half of the thieves hide behind an address near their victim.
    far = np.repeat(rng.random(incidents) < 0.5, size)
    km = np.where(far, rng.gamma(2.0, 150.0, len(owner)), rng.gamma(2.0, 4.0, len(owner)))
    return card, merchant, amount, day + hour / 24, km, _number(card, "takeover")


def dispute(rng: np.random.Generator, scene: Scene) -> Rows:
    """Purchases disputed for reasons no feature shows: one more like an honest one, a little later."""
    shops, people, cards = scene.world.merchants, scene.world.customers, scene.world.cards
    card, merchant, time = scene.card, scene.merchant, scene.time
    hit = np.flatnonzero(rng.random(len(time)) < DISPUTES_PER_1000 / 1000)
    owner = cards.customer[card[hit]]
    amount = people.amount[owner] * shops.factor[merchant[hit]] * rng.lognormal(0.1, 0.55, len(hit))
    km = np.where(
        shops.online[merchant[hit]],
        rng.gamma(2.0, 3.0, len(hit)),
        distance(shops.place[merchant[hit]], people.home[owner]),
    )
    return card[hit], merchant[hit], amount, time[hit] + rng.uniform(0.001, 0.2, len(hit)), km, _number(hit, "dispute")


def _incidents(rng: np.random.Generator, per_1000: float, population: int, days: int) -> int:
    """How many incidents fall into the span: at least one, at most one per member of the population."""
    return int(min(max(rng.poisson(per_1000 / 1000 * population * days / 100), 1), population))


def _number(rows: Ints, name: str) -> Ints:
    return np.full(len(rows), PATTERNS.index(name) + 1, np.int64)
