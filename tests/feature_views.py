"""The two views of the bench of features without a Feast repository: the plan that reads them, and values in Redis."""

import random
import struct
import time

import mmh3
import redis
from tests.bench.feature_data import PROJECT, TTL_S, VIEWS
from tests.store_fill import varint

from sunup.lookup.keys import key_maker
from sunup.lookup.plan import Entity, Feature, JoinKey, ReadPlan, View, entity_columns


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
    stamp = b"\x08" + varint(int(time.time()))
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
