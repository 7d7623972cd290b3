"""Subject: Feast's SDK, in process, the feature service held, entities by column. Argument: the repository."""

import sys
from typing import Any

from feast import FeatureStore
from tests.bench.lookup.data import SERVICES, columns, entities
from tests.bench.lookup.subject import Ask, loop, obey


def ask(store: FeatureStore, service: str) -> Ask:
    """Values are what is wanted, so `to_dict` is in it, as it is in Feast's documentation."""
    features, names = store.get_feature_service(service), list(columns(service))

    def read(rows: dict[str, list[int]]) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = store.get_online_features(features=features, entity_rows=rows).to_dict()
        return found

    def rows(_: Any, found: dict[str, list[Any]]) -> list[list[Any]]:
        return [list(row) for row in zip(*(found[name] for name in names), strict=True)]

    return Ask(lambda question: entities(service, question), read, rows)


def main() -> None:
    store = FeatureStore(repo_path=sys.argv[1])
    with loop() as runner:
        obey(runner, {service: ask(store, service) for service in SERVICES})


if __name__ == "__main__":
    main()
