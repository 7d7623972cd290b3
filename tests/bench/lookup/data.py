"""What the bench of lookups reads: views, columns and questions. No Feast here, as floors read it too.

Two feature services. `one`: three views of 50 features of a user, as one scored record needs. `many`: 20 features of
each of 500 candidate items and 20 of the user they are for. Each view mixes counts with amounts, as those of this
repository do; a few strings and booleans are among the 150.
"""

import random
from typing import Any, Final

PROJECT: Final = "bench"
USERS: Final = 500
ITEMS: Final = 2000
CANDIDATES: Final = 500
TTL_S: Final = 30 * 86400.0

_WIDE: Final = {"Int64": 20, "Float64": 25, "String": 3, "Bool": 2}
_NARROW: Final = {"Int64": 8, "Float64": 12}
SHAPES: Final = {"spend": _WIDE, "visits": _WIDE, "profile": _WIDE, "taste": _NARROW, "item_stats": _NARROW}
# Per service, its views in the order of the columns, each with its join key.
SERVICES: Final = {
    "one": (("spend", "user_id"), ("visits", "user_id"), ("profile", "user_id")),
    "many": (("taste", "user_id"), ("item_stats", "item_no")),
}


def features(view: str) -> dict[str, str]:
    """Feature name -> type, as Feast calls it, of a view."""
    return {f"{view}_{kind.lower()}_{at}": kind for kind, count in SHAPES[view].items() for at in range(count)}


def columns(service: str) -> dict[str, str]:
    """Every column of a service, in order -> its type."""
    return {name: kind for view, _ in SERVICES[service] for name, kind in features(view).items()}


def value(kind: str, rng: random.Random) -> Any:
    """A random value: counts are mostly small, as counts are."""
    if kind == "Int64":
        return int(rng.lognormvariate(2.0, 2.0))
    if kind == "Float64":
        return rng.gauss(0, 1)
    return rng.random() < 0.5 if kind == "Bool" else f"segment {rng.randrange(1000)}"


def questions(service: str, count: int) -> list[Any]:
    """What each subject is asked, in turn. `one`: a user; `many`: a user and CANDIDATES different items."""
    rng = random.Random(7)
    if service == "one":
        return [rng.randrange(USERS) for _ in range(count)]
    return [(rng.randrange(USERS), rng.sample(range(ITEMS), CANDIDATES)) for _ in range(count)]


def entities(service: str, question: Any) -> dict[str, list[int]]:
    """A question as Feast takes it: join key -> one value per row."""
    if service == "one":
        return {"user_id": [question]}
    user, items = question
    return {"user_id": [user] * len(items), "item_no": items}
