"""Train and register the four versions of `fraud`.

    python -m functions.fraud.train [--again] [--end 2026-01-01] [--seed 20]

does, on a fresh project: the feature job, `feast apply`, `feast materialize` up to the start of the hold-out span,
training on Feast's point-in-time features, and registration in MLflow: version 1 logistic regression, version 2 random
forest, version 3 LightGBM, version 4 the same with what the card was used for in the last hour and day, which the
stream knows (velocity.py). The best gets the alias `champion`. Run again, it keeps the versions there are, and the data
unless its features are about to be too old to be served (the same data then, at later times). --again does it all anew
and makes four newer versions.

Metrics are of the hold-out span, the days after everything that was trained on. `roc_auc` and `average_precision` use
features of each day's start, as with a feature job every night; the same names with `_online` use what the online
store holds, features as of the span's first midnight, which is what a served prediction sees. What the stream knows is
in both as of just before each purchase, as when purchases are scored from the topic.
"""

import argparse
import logging
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import mlflow
import numpy as np
import pandas as pd
from feast import FeatureStore
from lightgbm import LGBMClassifier
from mlflow import MlflowClient
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from features import views
from functions.fraud.build_features import HOLDOUT_DAYS, Data, build, holdout_start, today
from functions.fraud.history import VIEWS
from functions.fraud.simulate import SEED
from functions.fraud.velocity import VELOCITY, velocity
from sunup.registry.mlflow import log_sample, use
from sunup.settings import Project, find_project

NAME: Final = "fraud"
KEYS: Final = {"card_stats": "card_id", "customer_stats": "customer_id", "merchant_stats": "merchant_id"}
ENTITIES: Final = list(KEYS.values())
FEATURES: Final = [feature for view in VIEWS.values() for feature in view]
COLUMNS: Final = ["amount", "hour", "km_from_home", *FEATURES]
"""Inputs of versions 1 to 3 in order, all float64: three request fields, then what is made at midnight."""
WIDE: Final = [*COLUMNS, *VELOCITY]
"""Inputs of version 4: what the stream knows, too."""

FIRST_DAY: Final = 25  # earlier transactions have too little history behind them
HONEST_KEPT: Final = 4  # one honest transaction in so many is trained on, with that weight; every fraud is
ROWS_PER_JOIN: Final = 5_000  # Feast's file store joins before it filters: memory grows with rows x snapshots
EXAMPLE_ROWS: Final = 400
SAMPLE_ROWS: Final = 20_000  # of the training rows, drawn by weight, that serving is compared with
JUDGED: Final = "average_precision_online"  # which version is the best: frauds are rare, and this is what is served
DATA_DAYS_MAX: Final = HOLDOUT_DAYS + 5  # days; older online features are replaced (function.toml allows 20)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One version to be: how it is made, the fit argument that takes sample weights, how MLflow stores it, and which
    columns it takes."""

    title: str
    model: Any
    weight: str
    flavor: str
    trusted: tuple[str, ...] = ()  # types skops may load: MLflow stores models without pickle
    columns: Sequence[str] = tuple(COLUMNS)


@dataclass(frozen=True, slots=True)
class Sets:
    """Inputs [n, len(WIDE)] float64 and labels. `online`: the hold-out rows with features from the online store."""

    train: pd.DataFrame
    train_labels: pd.Series
    train_weights: pd.Series
    holdout: pd.DataFrame
    online: pd.DataFrame
    holdout_labels: pd.Series


def candidates(seed: int) -> list[Candidate]:
    """The four versions, in order."""
    forest = RandomForestClassifier(60, max_depth=8, min_samples_leaf=5, random_state=seed)
    logistic = Pipeline([("scale", StandardScaler()), ("model", LogisticRegression(max_iter=1000))])
    trusted = ("collections.OrderedDict", "lightgbm.basic.Booster", "lightgbm.sklearn.LGBMClassifier")
    return [
        Candidate("logistic regression", logistic, "model__sample_weight", "sklearn"),
        Candidate("random forest", forest, "sample_weight", "sklearn", ("sklearn.tree._tree.Tree",)),
        Candidate("LightGBM", boosted(seed), "sample_weight", "lightgbm", trusted),
        Candidate("LightGBM with velocity", boosted(seed), "sample_weight", "lightgbm", trusted, tuple(WIDE)),
    ]


def boosted(seed: int) -> LGBMClassifier:
    """Versions 3 and 4, which differ in what they are given alone."""
    return LGBMClassifier(
        n_estimators=200,
        learning_rate=0.05,
        num_leaves=31,
        min_child_samples=20,
        colsample_bytree=0.6,
        subsample=0.8,
        subsample_freq=1,
        reg_lambda=5.0,
        random_state=seed,
        n_jobs=1,
        deterministic=True,
        force_row_wise=True,
        verbose=-1,
    )


def defaults(project: Project) -> dict[str, float]:
    """What a missing feature counts as, from function.toml: training and serving must agree."""
    declared = tomllib.loads((project.functions / NAME / "function.toml").read_text())["features"]["defaults"]
    return {name: float(declared[name]) for name in (*FEATURES, *VELOCITY)}


def apply(store: FeatureStore) -> None:
    """What `feast apply` does in features/, without starting Python and importing Feast a second time."""
    entities = [views.card, views.customer, views.merchant]
    daily = [views.card_stats, views.customer_stats, views.merchant_stats]
    store.apply([*entities, *daily, views.card_velocity, views.fraud])


def materialize(store: FeatureStore, until: datetime) -> None:
    """What `feast materialize` does: the snapshots of the midnight `until` into the online store. What is made of the
    topic, the stream writes there."""
    store.materialize(start_date=until - timedelta(days=1), end_date=until, feature_views=list(VIEWS))


def historical(store: FeatureStore, rows: pd.DataFrame) -> pd.DataFrame:
    """`rows` (entity keys, event_timestamp, anything else) with the features as of each row's time, in the same order.

    View by view and joined back, because Feast's file store drops a row whose entity has only later snapshots (a card
    used on the day it was issued), and with it what the other views know. Such features are NaN here.
    """
    table = rows.reset_index(drop=True)
    for view, key in KEYS.items():
        asked = rows[[key, "event_timestamp"]].drop_duplicates()
        names = [f"{view}:{feature}" for feature in VIEWS[view]]
        parts = [asked.iloc[at : at + ROWS_PER_JOIN] for at in range(0, len(asked), ROWS_PER_JOIN)]
        found = pd.concat([store.get_historical_features(entity_df=part, features=names).to_df() for part in parts])
        table = table.merge(found, how="left", on=[key, "event_timestamp"], validate="many_to_one")
    return table


def online(store: FeatureStore, rows: pd.DataFrame) -> pd.DataFrame:
    """`rows` with what the online store holds now of the features that are made at midnight."""
    keys = {name: rows[name].tolist() for name in ENTITIES}
    names = [f"{view}:{feature}" for view, features in VIEWS.items() for feature in features]
    found = store.get_online_features(features=names, entity_rows=keys).to_df()
    return rows.reset_index(drop=True).assign(**{name: found[name] for name in FEATURES})


def inputs(table: pd.DataFrame, missing: dict[str, float]) -> pd.DataFrame:
    """A joined table's model inputs: as far as it has them WIDE, as float64, missing features replaced."""
    return table[[name for name in WIDE if name in table]].astype(np.float64).fillna(missing)


def make_sets(project: Project, store: FeatureStore, data: Data) -> Sets:
    """Join labels and features for training and for the hold-out span."""
    missing = defaults(project)
    everything = velocity(pd.read_parquet(data.transactions).drop(columns="pattern"))
    parting = pd.Timestamp(holdout_start(data))
    time = everything["event_timestamp"]
    early = time >= time.min().floor("D") + timedelta(days=FIRST_DAY)
    honest_dropped = (everything["is_fraud"] == 0) & (np.arange(len(everything)) % HONEST_KEPT != 0)
    train = historical(store, everything[early & (time < parting) & ~honest_dropped])
    late = everything[time >= parting]
    holdout = historical(store, late)
    return Sets(
        train=inputs(train, missing),
        train_labels=train["is_fraud"],
        train_weights=pd.Series(np.where(train["is_fraud"] == 1, 1.0, HONEST_KEPT)),
        holdout=inputs(holdout, missing),
        # Rows in the order of `holdout`, so that one set of labels serves both.
        online=inputs(online(store, holdout.drop(columns=FEATURES)), missing),
        holdout_labels=holdout["is_fraud"],
    )


def fit(candidate: Candidate, sets: Sets) -> dict[str, float]:
    """Train `candidate` in place; returns its metrics on the hold-out span."""
    columns = list(candidate.columns)
    candidate.model.fit(sets.train[columns], sets.train_labels, **{candidate.weight: sets.train_weights.to_numpy()})
    metrics = {}
    for suffix, table in (("", sets.holdout), ("_online", sets.online)):
        score = candidate.model.predict_proba(table[columns])[:, 1]
        metrics[f"roc_auc{suffix}"] = float(roc_auc_score(sets.holdout_labels, score))
        metrics[f"average_precision{suffix}"] = float(average_precision_score(sets.holdout_labels, score))
    return metrics


def register(candidate: Candidate, sets: Sets, metrics: dict[str, float], seed: int) -> str:
    """Log and register a trained candidate; returns the new version."""
    # Of the example's rows, which prove the converted model, half are frauds and half are not.
    train = sets.train[list(candidate.columns)]
    picked = sets.train_labels.groupby(sets.train_labels).head(EXAMPLE_ROWS // 2).index
    example = train.loc[picked].reset_index(drop=True)
    libraries = [
        "mlflow",
        "scikit-learn",
        "numpy",
        "pandas",
        "skops",
        *(["lightgbm"] * (candidate.flavor == "lightgbm")),
    ]
    log_model = getattr(mlflow, candidate.flavor).log_model
    with mlflow.start_run(run_name=candidate.title):
        mlflow.log_params({"model": candidate.title, "seed": seed, "train_rows": len(train)})
        mlflow.log_metrics(metrics)
        logged = log_model(
            candidate.model,
            name="model",
            registered_model_name=NAME,
            signature=mlflow.models.infer_signature(example, candidate.model.predict(example)),
            input_example=example,
            pip_requirements=[f"{library}=={version(library)}" for library in libraries],
            skops_trusted_types=list(candidate.trusted) or None,
        )
        # As many rows of each class as real traffic has, which the weights say.
        weights = sets.train_weights
        log_sample(logged.model_id, train.sample(SAMPLE_ROWS, replace=True, weights=weights, random_state=seed))
    return str(logged.registered_model_version)


def registered(client: MlflowClient) -> int:
    """How many versions of the model there are."""
    return len(client.search_model_versions(f"name='{NAME}'"))


def run(project: Project, *, again: bool, end: datetime, seed: int) -> None:
    """The whole flow; see the top of this file."""
    use(project)
    data = Data(project)
    if again or not data.holdout.exists() or end - holdout_start(data) > timedelta(days=DATA_DAYS_MAX):
        print(f"Simulating {NAME} up to {end:%Y-%m-%d} ...")
        build(project, end=end, seed=seed)
    store = FeatureStore(repo_path=str(project.features))
    apply(store)
    materialize(store, holdout_start(data))
    print(f"The last {HOLDOUT_DAYS} days are held out in {data.holdout}; online features are as of their start.")
    client = MlflowClient()
    have = 0 if again else registered(client)
    chosen = candidates(seed)[have:]
    if chosen:
        train_and_register(client, chosen, make_sets(project, store, data), seed)
    else:
        print(f"{NAME} has {have} versions already; --again trains newer ones.")


def train_and_register(client: MlflowClient, chosen: Sequence[Candidate], sets: Sets, seed: int) -> None:
    """Fit and register `chosen` in order; the best of them and of the champion so far becomes the champion."""
    found = {} if len(chosen) == len(candidates(seed)) else champion(client)
    for candidate in chosen:
        metrics = fit(candidate, sets)
        made = register(candidate, sets, metrics, seed)
        found[made] = metrics[JUDGED]
        shown = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        print(f"{NAME} version {made}: {candidate.title}, {shown}")
    best = max(found, key=lambda version: (found[version], int(version)))
    client.set_registered_model_alias(NAME, "champion", best)
    print(f"{NAME}@champion is version {best}.")


def champion(client: MlflowClient) -> dict[str, float]:
    """The version that is the champion, and how good it is; empty when there is none."""
    if "champion" not in client.get_registered_model(NAME).aliases:
        return {}
    version = client.get_model_version_by_alias(NAME, "champion")
    return {str(version.version): client.get_run(version.run_id).data.metrics[JUDGED]}


def main() -> None:
    parser = argparse.ArgumentParser(description="Train and register the model fraud.")
    parser.add_argument("--again", action="store_true", help="simulate and train anew, even if versions exist")
    parser.add_argument("--end", type=datetime.fromisoformat, help="end of the simulated span, UTC (default: today)")
    parser.add_argument("--seed", type=int, default=SEED)
    given = parser.parse_args()
    logging.getLogger("mlflow").setLevel(logging.ERROR)  # it remarks on every model that there is no pip beside uv
    end = given.end.replace(tzinfo=UTC) if given.end else today()
    run(find_project(Path.cwd()), again=given.again, end=end, seed=given.seed)


if __name__ == "__main__":
    main()
