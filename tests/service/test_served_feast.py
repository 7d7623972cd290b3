"""Feast reads the served-feature log as an offline source, and gives back what was served."""

import time
import warnings
from datetime import timedelta
from pathlib import Path

import pytest
from tests.engine_fixture import Engine
from tests.served_fixture import Logged

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of importing Feast and what it imports: theirs
    import pandas as pd
    from feast import Entity, FeatureView, FileSource, types
    from feast import Field as FeastField
    from feast.value_type import ValueType
    from tests.feast_repo import repository

pytestmark = pytest.mark.filterwarnings("ignore")  # Feast's own, and of what it reads files with


def test_feast_gives_back_what_was_served(engine: Engine, tmp_path: Path) -> None:
    logged = Logged(engine, time.time())
    logged.deploy()
    answers = {user: logged.call(user, id=f"r{user}")[0] for user in (1, 2, 7)}
    logged.deploy(bias=0.5)  # another revision, in another folder
    answers[3] = logged.call(3, id="r3")[0]
    logged.remove()
    assert {path.parent.name for path in logged.files} == {"1", "2"}

    store = repository(tmp_path / "repo", "{type: sqlite, path: online.db}")
    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
    kinds = {"user_id": types.Int64, "f1": types.Float64, "f2": types.Float64, "count": types.Int64}
    kinds |= {"score": types.Float64, "stats__age_s": types.Float64}
    served = FeatureView(
        name="served",
        entities=[user],
        ttl=timedelta(days=1),
        schema=[FeastField(name=name, dtype=kind) for name, kind in kinds.items()],
        source=FileSource(path=str(engine.project.root / "served" / "score"), timestamp_field="event_timestamp"),
    )
    store.apply([user, served])
    asked = pd.DataFrame({"user_id": list(answers), "event_timestamp": pd.Timestamp.now("UTC")})
    features = [f"served:{name}" for name in kinds if name != "user_id"]
    found = store.get_historical_features(entity_df=asked, features=features).to_df().set_index("user_id")
    assert len(found) == 4
    for number, answer in answers.items():
        row = found.loc[number]
        assert (row["f1"], row["f2"], row["count"]) == (number / 8, number / 16, number)
        assert row["score"] == answer["score"]
        assert row["stats__age_s"] > 0
