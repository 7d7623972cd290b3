"""Feast repositories of the benches: applied and filled by Feast itself. Importing it imports Feast."""

import random
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from feast import Entity, FeatureService, FeatureStore, ValueType, types
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from tests import feast_repo
from tests.random_values import value_of

# View -> (its entity, feature name -> the name of its Feast type)
Views = Mapping[str, tuple[Entity, Mapping[str, str]]]


def entity(join_key: str, value_type: str) -> Entity:
    """An entity named as its join key."""
    return Entity(name=join_key, join_keys=[join_key], value_type=ValueType[value_type])


def applied(
    folder: Path, online_store: str, views: Views, services: Mapping[str, Iterable[str]], *, project: str, ttl_s: float
) -> FeatureStore:
    """A repository in `folder` with `views`, and `services` of them; `online_store` as for `feast_repo.repository`."""
    store = feast_repo.repository(folder, online_store, project=project)
    empty, ttl = feast_repo.source(folder), timedelta(seconds=ttl_s)
    made = {
        name: feast_repo.view(
            name, [of], {each: getattr(types, kind) for each, kind in features.items()}, ttl=ttl, source=empty
        )
        for name, (of, features) in views.items()
    }
    entities = {of.name: of for of, _ in views.values()}
    chosen = [FeatureService(name=name, features=[made[each] for each in of]) for name, of in services.items()]
    store.apply([*entities.values(), *made.values(), *chosen])
    return store


def fill(
    store: FeatureStore, views: Views, count: Mapping[str, int], value: Callable[[str, random.Random], Any]
) -> None:
    """Give entities 0 to count[join key] of every view values from `value(type, rng)`, made just now; the same ones
    in every store."""
    rng, now = random.Random(5), datetime.now(UTC)
    for name, (of, features) in views.items():
        kinds = {feature: getattr(types, kind).to_value_type().name for feature, kind in features.items()}
        key = of.value_type.name
        rows = [
            (
                EntityKey(join_keys=[of.join_key], entity_values=[value_of(key, number)]),
                {feature: value_of(kind, value(features[feature], rng)) for feature, kind in kinds.items()},
                now,
                None,
            )
            for number in range(count[of.join_key])
        ]
        store._get_provider().online_write_batch(store.config, store.get_feature_view(name), rows, None)
