"""Where the stream processors of the benches get features: from Feast's SDK, or as the floor reads them, by hand."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from feast import FeatureStore
from msgspec.structs import astuple
from tests.bench.feature_data import SERVICE, VIEWS
from tests.bench.floor.feast_hashes import decode, encode
from tests.bench.floor.session import open_session
from tests.bench.floor.stream_scoring import Scorer

Score: TypeAlias = Callable[[Sequence[bytes]], list[bytes]]  # the predictions of some records, JSON on both sides
COLUMNS = [name for _, _, names in VIEWS for name in names]


def scoring(model: str, features: str) -> Score:
    """`features`: the URL of Redis, to read by hand, or the folder of the Feast repository."""
    return Scorer(model, features).score if features.startswith("redis:") else _through_feast(model, features)


def _through_feast(model: str, folder: str) -> Score:
    """The feature service is held, and entities are given by column: one call for the whole batch."""
    session, store = open_session(model), FeatureStore(repo_path=folder)
    service = store.get_feature_service(SERVICE)

    def score(values: Sequence[bytes]) -> list[bytes]:
        records: list[Any] = [decode(value) for value in values]
        keys = {"card_id": [each.card_id for each in records], "merchant_id": [each.merchant_id for each in records]}
        found = store.get_online_features(features=service, entity_rows=keys).to_dict()
        own = np.array([astuple(record)[2:] for record in records], dtype=np.float32)
        read = np.array([found[name] for name in COLUMNS], dtype=np.float32)
        (out,) = session.run(["probability"], {"input": np.hstack((own, read.T))})
        return [encode({"score": p, "decision": "block" if p > 0.9 else "allow"}) for p in out[:, 1].tolist()]

    return score
