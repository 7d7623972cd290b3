"""fraud-v4 on its topic: every score is the registered model's on the features as of just before that payment."""

import json
import shutil
import time
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from tests.engine_fixture import Engine, until
from tests.fraud_fixture import Trained
from tests.service.test_cli import platform
from tests.topics import EmbeddedTopics, KafkaTopics, Topics, sources

from functions.fraud.simulate import REQUEST, later

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of importing Feast, MLflow and what they import: theirs
    import mlflow
    import pandas as pd
    from feast import FeatureStore

    from functions.fraud import train
    from functions.fraud.velocity import VELOCITY, velocity

ROWS = 3_000  # two days
NAMES = ("transactions", "fraud-scores", "fraud-dead")

pytestmark = [
    pytest.mark.timeout(900),  # the first test waits for a whole training
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),  # in MLflow 3.17's own tables
    pytest.mark.filterwarnings("ignore:Stream feature views are experimental features:RuntimeWarning"),
]


@pytest.fixture(scope="module", params=["embedded", "kafka"])
def streamed(
    request: pytest.FixtureRequest, trained: Trained, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Engine, Topics]]:
    """The trained project with an engine and fraud-v4 on empty topics."""
    root = tmp_path_factory.mktemp(request.param) / "p"
    shutil.copytree(trained.project.root, root, ignore=shutil.ignore_patterns("run", "bundles", "log.db*"))
    declared = root / "functions" / "fraud" / "function.toml"
    # No feature may be defaulted because the machine is busy.
    declared.write_text(declared.read_text().replace("deadline_ms = 20", "deadline_ms = 1000"))
    engine = Engine(root)
    engine.up()
    topics: Topics = EmbeddedTopics(engine.project.embedded_log)
    environment = {"KAFKA_BOOTSTRAP": ""}
    if request.param == "kafka":
        topics = KafkaTopics(request.getfixturevalue("kafka"))
        environment["KAFKA_BOOTSTRAP"] = topics.broker
        for name in NAMES:
            topics.create(name)
    platform(root, "deploy", "fraud-v4", "--json", **environment)
    yield engine, topics
    platform(root, "down")
    if request.param == "kafka":  # others use topics of these names on the same broker
        for name in NAMES:
            request.getfixturevalue("kafka").delete(name)


def payments() -> pd.DataFrame:
    """Payments of the days until now."""
    rows = later(ROWS)
    rows["event_timestamp"] += pd.Timestamp(datetime.now(UTC)).floor("s") - rows["event_timestamp"].max()
    return rows


def record(row: dict[str, Any]) -> dict[str, Any]:
    asked = {name: int(row[name]) if name.endswith("_id") else float(row[name]) for name in REQUEST}
    return {**asked, "transaction_id": row["transaction_id"], "event_time": row["event_timestamp"].isoformat()}


def original(engine: Engine, rows: pd.DataFrame) -> "np.ndarray[Any, np.dtype[np.float64]]":
    """The registered model's own scores, on what Feast reads and what had happened on the topic by then."""
    store = FeatureStore(repo_path=str(engine.project.features))
    table = train.inputs(train.online(store, velocity(rows)), train.defaults(engine.project))
    mlflow.set_tracking_uri(engine.project.tracking_uri)
    scores = mlflow.lightgbm.load_model("models:/fraud/4").predict_proba(table[train.WIDE])[:, 1]
    return np.asarray(scores, np.float64)


def test_every_score_is_made_of_what_had_happened_by_then(streamed: tuple[Engine, Topics]) -> None:
    engine, topics = streamed
    rows = payments()
    assert (velocity(rows)["card_tx_count_1h"] > 0).sum() > 20, "cards that are used twice within the hour"
    sent = [record(row) for row in rows.to_dict("records")]
    began = time.monotonic()
    topics.send("transactions", [(str(one["card_id"]).encode(), json.dumps(one).encode(), []) for one in sent])
    until(lambda: len(topics.read("fraud-scores")) + len(topics.read("fraud-dead")) >= ROWS, "every score", 120)
    print(f"{topics.broker}: {ROWS / (time.monotonic() - began):,.0f} records/s, first one produced to last one scored")
    assert topics.read("fraud-dead") == []
    ids = {f"{r.topic}-{r.partition}-{r.offset}": json.loads(r.value or b"") for r in topics.read("transactions")}
    outputs = topics.read("fraud-scores")
    assert len(set(sources(outputs))) == len(outputs) == ROWS
    scored = {
        ids[id]["transaction_id"]: json.loads(one.value or b"")
        for id, one in zip(sources(outputs), outputs, strict=True)
    }
    found = np.array([scored[one["transaction_id"]]["score"] for one in sent])
    assert not any(set(VELOCITY) & set(one.get("defaulted", ())) for one in scored.values())
    np.testing.assert_allclose(found, original(engine, rows), rtol=0, atol=1e-9)


def test_what_is_online_is_what_happened_until_now(streamed: tuple[Engine, Topics]) -> None:
    """Of the cards used last, as Feast's SDK reads them: a moment after the scores, and falling with time."""
    engine, topics = streamed
    store = FeatureStore(repo_path=str(engine.project.features))
    happened = pd.DataFrame([json.loads(r.value or b"") for r in topics.read("transactions")])
    stamps = pd.to_datetime(happened["event_time"], utc=True)
    cards = happened.loc[stamps.nlargest(40).index, "card_id"].unique().tolist()
    names = [f"card_velocity:{name}" for name in VELOCITY]

    def agrees() -> bool:
        ends = pd.Timestamp(datetime.now(UTC)).floor("min") + pd.Timedelta(minutes=1)
        read = store.get_online_features(features=names, entity_rows=[{"card_id": card} for card in cards]).to_dict()
        for at, card in enumerate(cards):
            mine = happened["card_id"] == card
            hour = int((mine & (stamps >= ends - pd.Timedelta(hours=1))).sum())
            day = float(happened.loc[mine & (stamps >= ends - pd.Timedelta(hours=24)), "amount"].sum())
            if read[VELOCITY[0]][at] != hour or abs((read[VELOCITY[1]][at] or 0.0) - day) > 1e-6:
                return False
        return True

    until(agrees, "Feast to read what happened", 60)


def test_a_call_is_scored_with_what_is_online(streamed: tuple[Engine, Topics]) -> None:
    engine, topics = streamed
    last = json.loads(
        max(topics.read("transactions"), key=lambda r: json.loads(r.value or b"")["event_time"]).value or b""
    )
    asked = {name: last[name] for name in REQUEST}
    with_event, without = (
        engine.ask("POST", "/functions/fraud", json.dumps(one).encode()).json["predictions"][0] for one in (last, asked)
    )
    assert with_event == without, "the members of an event are no part of a call"
    assert not set(VELOCITY) & set(without.get("defaulted", ()))
    unknown = engine.ask("POST", "/functions/fraud", json.dumps({**asked, "card_id": 10**9}).encode()).json
    assert set(VELOCITY) <= set(unknown["predictions"][0]["defaulted"]), "a card that was never used"
