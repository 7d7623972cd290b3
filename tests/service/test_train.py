"""From nothing to a registered model and served features, as a user does it: the training flow in a project of its own,
Feast's own commands on SQLite and on Redis, and a real MLflow server."""

import shutil
import sqlite3
import warnings
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.fraud_fixture import ROOT, Trained, checkout, feast, training
from tests.mlflow_fixture import MlflowServer

from sunup.registry.signature import read, read_example
from sunup.registry.source import parse
from sunup.settings import TRAINING_SAMPLE

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of importing Feast, MLflow and what they import: theirs
    import mlflow
    import pandas as pd
    from feast import FeatureStore
    from sklearn.metrics import roc_auc_score

    from functions.fraud import train
    from functions.fraud.build_features import Data, holdout_start
    from functions.fraud.history import VIEWS

TITLES = ["logistic regression", "random forest", "LightGBM", "LightGBM with velocity"]

pytestmark = [
    pytest.mark.timeout(900),  # the first test waits for a whole training, and Feast's commands take 10 s to import
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),  # in MLflow 3.17's own tables
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    running = MlflowServer(tmp_path_factory.mktemp("server"))
    running.start()
    try:
        running.wait()
        yield running
    finally:
        running.stop()
        mlflow.set_tracking_uri(None)


def logged(uri: str) -> list[dict[str, float]]:
    """Metrics of fraud 1 to 4 in the registry at `uri`."""
    client = mlflow.MlflowClient(tracking_uri=uri)
    runs = [client.get_run(client.get_model_version("fraud", str(version)).run_id) for version in (1, 2, 3, 4)]
    assert [found.data.params["model"] for found in runs] == TITLES
    return [found.data.metrics for found in runs]


def test_four_versions_are_registered_and_the_best_is_champion(trained: Trained) -> None:
    assert [trained.source.resolve(parse(f"fraud-v{n}")).version for n in (1, 2, 3, 4)] == ["1", "2", "3", "4"]
    champion = trained.source.resolve(parse("fraud@champion"))
    assert (champion.version, champion.aliases) == ("4", ("champion",))
    assert champion.run_id
    assert "fraud version 3: LightGBM, roc_auc 0.9" in trained.printed
    assert "fraud version 4: LightGBM with velocity, roc_auc 0.9" in trained.printed
    litter = {path.name for path in trained.project.root.iterdir()} - {"functions", "features", ".sunup"}
    assert not litter


def test_the_models_are_as_good_as_such_models_are(trained: Trained) -> None:
    linear, forest, boosted, streaming = logged(trained.project.tracking_uri)
    for suffix in ("", "_online"):
        name = f"roc_auc{suffix}"
        assert 0.7 < linear[name] < forest[name] < boosted[name] < streaming[name] < 0.985
        assert boosted[name] > 0.9
        assert boosted[f"average_precision{suffix}"] > 0.3
        # What the card did in the last hour and day: the same model, the same purchases.
        assert streaming[f"average_precision{suffix}"] > boosted[f"average_precision{suffix}"] + 0.05


@pytest.mark.parametrize(
    ("version", "flavor"), [("1", "sklearn"), ("2", "sklearn"), ("3", "lightgbm"), ("4", "lightgbm")]
)
def test_each_version_says_what_it_takes(trained: Trained, tmp_path: Path, version: str, flavor: str) -> None:
    found = read(trained.source.fetch(trained.source.resolve(parse(f"fraud-v{version}")), tmp_path))
    assert found.flavor == flavor
    columns = train.WIDE if version == "4" else train.COLUMNS
    assert [(field.name, field.dtype) for field in found.fields()] == [(name, "float64") for name in columns]
    assert all("==" in line for line in found.requirements)
    assert found.settings["serialization_format"] == "skops", "no pickle"
    assert found.example is not None
    example = read_example(found.example)
    assert list(example) == columns
    assert len(example["amount"]) == train.EXAMPLE_ROWS
    assert len(set(example["amount"])) > 100


def test_the_holdout_is_the_last_week_and_no_row_is_lost(trained: Trained) -> None:
    data = Data(trained.project)
    holdout = pd.read_parquet(data.holdout)
    assert list(holdout.columns) == [
        *(*train.ENTITIES, *train.COLUMNS[:3]),
        *("event_time", "transaction_id", "is_fraud", "pattern"),
    ]
    assert len(holdout) >= 5_000
    start = pd.Timestamp(holdout_start(data))
    assert holdout["event_time"].min() >= start
    assert holdout["event_time"].max() < start + timedelta(days=7)
    everything = pd.read_parquet(data.transactions, columns=["event_timestamp"])
    assert (everything["event_timestamp"] >= start).sum() == len(holdout)


def test_online_features_are_those_of_the_holdouts_first_midnight(trained: Trained) -> None:
    """Nothing of the hold-out span is in the online store, and what is served gives the AUC that was logged."""
    project = trained.project
    data, store = Data(project), FeatureStore(repo_path=str(project.features))
    holdout = pd.read_parquet(data.holdout)
    served = train.online(store, holdout)
    for name, key in train.KEYS.items():
        snapshots = pd.read_parquet(data.view(name))
        snapshot = snapshots[snapshots["event_timestamp"] == holdout_start(data)].set_index(key)[list(VIEWS[name])]
        expected = snapshot.reindex(holdout[key]).to_numpy(np.float64)
        np.testing.assert_array_equal(served[list(VIEWS[name])].to_numpy(np.float64), expected)
    table = train.inputs(served, train.defaults(project))
    assert served[train.FEATURES].isna().any().any(), "some cards are too new to have features"
    assert not table.isna().any().any()
    mlflow.set_tracking_uri(project.tracking_uri)
    model = mlflow.lightgbm.load_model("models:/fraud/3")
    score = model.predict_proba(table)[:, 1]
    metrics = logged(project.tracking_uri)[2]
    assert roc_auc_score(holdout["is_fraud"], score) == pytest.approx(metrics["roc_auc_online"], abs=1e-9)
    assert (score > 0.5).any(), "the decision of function.toml must happen"


def test_what_version_4_was_trained_on_is_what_had_happened_by_then(trained: Trained, tmp_path: Path) -> None:
    """Its training sample, against the purchases before each of its rows, counted one by one."""
    model = trained.source.fetch(trained.source.resolve(parse("fraud-v4")), tmp_path)
    sample = pd.read_parquet(model / TRAINING_SAMPLE).drop_duplicates()
    purchases = pd.read_parquet(Data(trained.project).transactions)
    keys = ["amount", "hour", "km_from_home"]
    alone = purchases[~purchases.duplicated(keys, keep=False)].reset_index(names="place")
    rows = alone.merge(sample, on=keys).sample(400, random_state=1)
    assert (rows["card_tx_count_1h"] > 0).sum() > 10
    minute, hour, day = (pd.Timedelta(minutes=1), pd.Timedelta(hours=1), pd.Timedelta(days=1))
    for row in rows.itertuples():
        before = purchases[(purchases["card_id"] == row.card_id) & (purchases.index < row.place)]
        until = row.event_timestamp.floor("min") + minute
        assert (before["event_timestamp"] >= until - hour).sum() == row.card_tx_count_1h
        total = before.loc[before["event_timestamp"] >= until - day, "amount"].sum()
        assert total == pytest.approx(row.card_amount_sum_24h, abs=1e-6)


def test_the_second_time_nothing_is_trained(trained: Trained) -> None:
    printed = training(trained.project.root)
    assert "4 versions already" in printed
    assert "Simulating" not in printed
    assert trained.source.resolve(parse("fraud")).version == "4"


def test_a_server_gets_the_same_models(trained: Trained, server: MlflowServer) -> None:
    """MLFLOW_TRACKING_URI alone moves the registry; training again from the same data gives the same numbers."""
    printed = training(trained.project.root, MLFLOW_TRACKING_URI=server.url)
    assert "fraud@champion is version 4." in printed
    assert logged(server.url) == logged(trained.project.tracking_uri)
    version = mlflow.MlflowClient(tracking_uri=server.url).get_model_version_by_alias("fraud", "champion")
    assert str(version.version) == "4"
    assert not (trained.project.root / "mlruns").exists()


def online_rows(database: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Everything in a SQLite online store but when it was written."""
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        found = {
            view: connection.execute(
                f'SELECT entity_key, feature_name, value, event_ts FROM "sunup_{view}" ORDER BY 1, 2'
            ).fetchall()
            for view in VIEWS
        }
    connection.close()
    return found


def materialized_by_command(trained: Trained, root: Path, **environment: str) -> FeatureStore:
    """`feast apply` and `feast materialize` by hand, in a fresh project with the same data."""
    checkout(root)
    shutil.copytree(trained.project.features / "data", root / "features" / "data")
    (root / ".sunup" / "features").mkdir(parents=True)
    feast(root, "apply", **environment)
    until = holdout_start(Data(trained.project))
    wanted = [part for view in VIEWS for part in ("--views", view)]  # those of other functions have no data here
    feast(root, "materialize", f"{until - timedelta(days=30):%FT%T}", f"{until:%FT%T}", *wanted, **environment)
    return FeatureStore(repo_path=str(root / "features"))


def test_feasts_own_commands_do_what_the_flow_does(trained: Trained, tmp_path: Path) -> None:
    materialized_by_command(trained, tmp_path)
    by_hand = online_rows(tmp_path / ".sunup" / "features" / "online.db")
    assert {view: len(rows) > 1000 for view, rows in by_hand.items()} == dict.fromkeys(VIEWS, True)
    assert by_hand == online_rows(trained.project.state / "features" / "online.db")


def test_one_setting_puts_the_features_into_redis(
    trained: Trained, tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = tmp_path / "redis.yaml"
    address = redis_url.removeprefix("redis://").removesuffix("/0")
    text = (ROOT / "features" / "feature_store.redis.yaml").read_text()
    assert "localhost:6379" in text
    setting.write_text(text.replace("localhost:6379", address))
    monkeypatch.setenv("FEAST_FS_YAML_FILE_PATH", str(setting))
    store = materialized_by_command(trained, tmp_path / "project", FEAST_FS_YAML_FILE_PATH=str(setting))
    assert store.config.online_store.type == "redis"
    holdout = pd.read_parquet(Data(trained.project).holdout).head(500)
    monkeypatch.delenv("FEAST_FS_YAML_FILE_PATH")
    from_sqlite = train.online(FeatureStore(repo_path=str(trained.project.features)), holdout)
    pd.testing.assert_frame_equal(train.online(store, holdout), from_sqlite)
    assert not (tmp_path / "project" / ".sunup" / "features" / "online.db").exists()
