"""Two Feast views for the bench of features: what is stored, how it is put into Redis, and the plan that reads it.

The model of models.py has thirty inputs: f0 to f9 come with the request, f10 to f19 from card_stats by card_id and f20
to f29 from merchant_stats by merchant_id.
"""

import random
import struct
import time

import mmh3
import redis

from sunup.lookup.keys import key_maker
from sunup.lookup.plan import Entity, Feature, JoinKey, ReadPlan, View, entity_columns

PROJECT = "bench"
TTL_S = 30 * 86400.0
VIEWS = [
    ("card_id", "card_stats", [f"f{i}" for i in range(10, 20)]),
    ("merchant_id", "merchant_stats", [f"f{i}" for i in range(20, 30)]),
]


def plan() -> ReadPlan:
    """The read plan of both views, for a request of card_id, merchant_id and f0 to f9."""
    entities = tuple(
        Entity(
            (JoinKey(key, key, "INT64"),),
            (View(view, view, TTL_S, None, tuple(Feature(name, name, "DOUBLE") for name in names)),),
        )
        for key, view, names in VIEWS
    )
    return ReadPlan(1, PROJECT, 3, 20.0, "default", entities, entity_columns(entities))


def fill(url: str, keys: int, seed: int = 5) -> None:
    """Give entities 0 to `keys` of both views normal random features, as Feast stores them, made just now."""
    rng = random.Random(seed)
    client = redis.Redis.from_url(url)
    pipeline = client.pipeline(transaction=False)
    stamp = b"\x08" + _varint(int(time.time()))
    for key, view, names in VIEWS:
        make = key_maker([JoinKey(key, key, "INT64")], {key: 0})
        for entity in range(keys):
            fields: dict[bytes, bytes] = {
                struct.pack("<I", mmh3.hash(f"{view}:{name}", signed=False)): struct.pack("<Bd", 0x29, rng.gauss(0, 1))
                for name in names
            }
            fields[f"_ts:{view}".encode()] = stamp
            pipeline.hset(make((entity,)) + PROJECT.encode(), mapping=fields)  # type: ignore[arg-type]
    pipeline.execute()
    client.close()


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])
