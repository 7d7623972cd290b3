"""Train and register the two models of `recommend`: what names candidates, and what ranks them.

    python -m functions.recommend.train [--again] [--end 2026-01-01] [--seed 30]

does, on a fresh project: the feature job, `feast apply`, `feast materialize` up to the start of the hold-out span,
training, and registration in MLflow: `recommend-retrieval`, an ONNX graph (retrieval.py), and `recommend`, a LightGBM
ranker. Run again, it keeps the versions there are; --again does it all anew.

The ranker learns what the function will do: at a midnight, the retrieval of that time names 200 items for a user, and
those looked at in the week that follows are better than those that are not. Features are as of that midnight, by
Feast's point-in-time join. It is trained on two such weeks and measured on a third one, the hold-out span, which
neither model has seen: `recall_200` of the candidates and `ndcg_10` of the list that is returned, beside those of the
most popular items of the last four weeks that the user has not looked at either (`_popular`), and of the retrieval's
own order (`_retrieved`).
"""

import argparse
import logging
import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import mlflow
import numpy as np
import pandas as pd
from feast import FeatureStore
from lightgbm import LGBMRanker
from mlflow import MlflowClient

from features import views
from functions.recommend.build_features import PARTING, Data, build, midnight, today
from functions.recommend.history import VIEWS
from functions.recommend.retrieval import CANDIDATES, Embeddings, Ints, embed, graph
from functions.recommend.simulate import FIRST_ITEM, ITEMS, SEED
from sunup.registry.mlflow import log_sample, use
from sunup.settings import Project, find_project

NAME: Final = "recommend"
RETRIEVAL: Final = "recommend-retrieval"
KEYS: Final = {"user_stats": "user_id", "item_stats": "item_id"}
COLUMNS: Final = [feature for view in VIEWS.values() for feature in view]
"""The ranker's inputs in order, all float64: every feature of the service."""

TRAIN_DAYS: Final = (PARTING - 14, PARTING - 7)  # midnights whose following weeks are trained on
OTHERS: Final = 40  # candidates nobody looked at that are kept for each user and week
MEASURED_USERS: Final = 1_000
EXAMPLE_ROWS: Final = 400
SAMPLE_ROWS: Final = 20_000  # of the training rows, that serving is compared with
TOP: Final = 10
DATA_DAYS_MAX: Final = 20  # days; older online features are replaced (the views' ttl is 30)


def defaults(project: Project) -> dict[str, float]:
    """What a missing feature counts as, from function.toml: training and serving must agree."""
    declared = tomllib.loads((project.functions / NAME / "function.toml").read_text())["features"]["defaults"]
    return {name: float(declared[name]) for name in COLUMNS}


def apply(store: FeatureStore) -> None:
    """What `feast apply` does in features/, for this function's share of it."""
    store.apply([views.user, views.item, views.user_stats, views.item_stats, views.recommend])


def materialize(store: FeatureStore, until: datetime) -> None:
    """What `feast materialize` does: the snapshots of the midnight `until` into the online store."""
    store.materialize(start_date=until - timedelta(days=1), end_date=until, feature_views=list(KEYS))


def historical(store: FeatureStore, keys: Mapping[str, Ints], at: datetime) -> dict[str, pd.DataFrame]:
    """Per view the features of its entities `keys[view]` as of a midnight, by entity key.

    What nobody knows is absent.
    """
    tables = {}
    for view, key in KEYS.items():
        asked = pd.DataFrame({key: keys[view], "event_timestamp": pd.Timestamp(at)})
        names = [f"{view}:{feature}" for feature in VIEWS[view]]
        found = store.get_historical_features(entity_df=asked, features=names).to_df()
        tables[view] = found.set_index(key)[VIEWS[view]]
    return tables


def inputs(pairs: pd.DataFrame, known: Mapping[str, pd.DataFrame], missing: dict[str, float]) -> pd.DataFrame:
    """The ranker's inputs for rows of user_id and item_id: COLUMNS as float64, missing features replaced."""
    parts = [known[view].reindex(pairs[key]).reset_index(drop=True) for view, key in KEYS.items()]
    return pd.concat(parts, axis=1)[COLUMNS].astype(np.float64).fillna(missing)


class Weeks:
    """The simulated views, a week at a time."""

    def __init__(self, project: Project, store: FeatureStore, data: Data, seed: int) -> None:
        self._store, self._data, self._seed = store, data, seed
        self._missing = defaults(project)
        self.views = pd.read_parquet(data.views)

    def embeddings(self, day: int) -> Embeddings:
        """As trained at a midnight."""
        return embed(self.views, day, self._seed)

    def viewed(self, day: int) -> pd.DataFrame:
        """Distinct user_id, item_id of the seven days from `day` on."""
        week = self.views[(self.views["day"] >= day) & (self.views["day"] < day + 7)]
        return week[["user_id", "item_id"]].drop_duplicates(ignore_index=True)

    def inputs(self, pairs: pd.DataFrame, day: int) -> pd.DataFrame:
        """What the ranker is given for `pairs` at a midnight."""
        keys = {view: pairs[key].unique() for view, key in KEYS.items()}
        return inputs(pairs, historical(self._store, keys, midnight(self._data, day)), self._missing)

    def lesson(self, day: int) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Of the week after a midnight: rows of user_id, item_id and label, user by user; and their inputs."""
        rng = np.random.default_rng(self._seed + day)
        seen = self.viewed(day)
        named = candidates(self.embeddings(day), seen["user_id"].unique())
        # What was looked at without having been named is left out: it would teach that what is unlike the rest is good.
        named = named.merge(seen.assign(label=1), how="left", on=["user_id", "item_id"]).fillna({"label": 0})
        named = named.sample(frac=1.0, random_state=rng.integers(2**31)).sort_values("user_id", kind="stable")
        kept = (named["label"] == 1) | (named.groupby(["user_id", "label"]).cumcount() < OTHERS)
        pairs = named[kept & (named.groupby("user_id")["label"].transform("sum") > 0)].reset_index(drop=True)
        return pairs, self.inputs(pairs, day)


def candidates(embeddings: Embeddings, users: Ints) -> pd.DataFrame:
    """What the retrieval names for each user: rows of user_id and item_id, best first."""
    return pd.DataFrame({"user_id": np.repeat(users, CANDIDATES), "item_id": embeddings.nearest(users).ravel()})


def fit(weeks: Weeks, seed: int) -> tuple[LGBMRanker, pd.DataFrame]:
    """The ranker, and its training inputs."""
    pairs, tables, groups = [], [], []
    for day in TRAIN_DAYS:
        lesson, table = weeks.lesson(day)
        pairs.append(lesson)
        tables.append(table)
        groups.append(lesson.groupby("user_id", sort=False).size())
    ranker = LGBMRanker(
        n_estimators=150,
        learning_rate=0.08,
        num_leaves=31,
        min_child_samples=50,
        random_state=seed,
        n_jobs=1,
        deterministic=True,
        force_row_wise=True,
        verbose=-1,
    )
    train = pd.concat(tables, ignore_index=True)
    ranker.fit(train, pd.concat(pairs)["label"].to_numpy(), group=pd.concat(groups).to_numpy())
    return ranker, train


def measure(weeks: Weeks, embeddings: Embeddings, ranker: LGBMRanker) -> dict[str, float]:
    """Quality on the hold-out week, of users who looked at anything in it."""
    seen = weeks.viewed(PARTING)
    users = np.random.default_rng(0).permutation(seen["user_id"].unique())[:MEASURED_USERS]
    wanted = seen[seen["user_id"].isin(users)].groupby("user_id")["item_id"].agg(set)
    pairs = candidates(embeddings, users)
    scores = ranker.predict(weeks.inputs(pairs, PARTING)).reshape(-1, CANDIDATES)
    named = pairs["item_id"].to_numpy().reshape(-1, CANDIDATES)
    ranked = np.take_along_axis(named, np.argsort(-scores, axis=1, kind="stable"), axis=1)
    lately = weeks.views[(weeks.views["day"] < PARTING) & (weeks.views["day"] >= PARTING - 28)]
    counts = np.bincount(lately["item_id"] - FIRST_ITEM, minlength=ITEMS)
    popular = embeddings.nearest(users, np.append(counts, 0.0))
    metrics = {}
    for suffix, lists in (("", ranked), ("_retrieved", named), ("_popular", popular)):
        hits = np.array([[item in wanted[user] for item in row] for user, row in zip(users, lists, strict=True)])
        sizes = np.array([len(wanted[user]) for user in users])
        metrics[f"recall_200{suffix}"] = float(np.mean(hits.sum(axis=1) / sizes))
        metrics[f"ndcg_10{suffix}"] = float(np.mean(ndcg(hits[:, :TOP], sizes)))
    del metrics["recall_200_retrieved"]  # the same items in another order
    return metrics


def ndcg(hits: Any, sizes: Ints) -> Any:
    """Normalised discounted cumulative gain per row: hits [n, k] in the order returned, of `sizes` that there were."""
    discounts = 1 / np.log2(np.arange(2, hits.shape[1] + 2))
    ideal = np.append(0.0, np.cumsum(discounts))[np.minimum(sizes, hits.shape[1])]
    return (hits * discounts).sum(axis=1) / ideal


def register_retrieval(embeddings: Embeddings, seed: int) -> str:
    """Log and register the retrieval; returns the new version."""
    example = pd.DataFrame({"user_id": np.append(np.arange(0, 300, 3), [-1, 10**9])})
    names = pd.DataFrame({"item_id": embeddings.nearest(example["user_id"].to_numpy())[:, 0]})
    with mlflow.start_run(run_name="retrieval"):
        mlflow.log_params({"model": "embeddings", "seed": seed, "dimensions": embeddings.items.shape[1]})
        logged = mlflow.onnx.log_model(
            graph(embeddings),
            name="model",
            registered_model_name=RETRIEVAL,
            signature=mlflow.models.infer_signature(example, names),
            input_example=example,
            pip_requirements=[f"{library}=={version(library)}" for library in ("mlflow", "onnx", "onnxruntime")],
        )
    return str(logged.registered_model_version)


def register_ranker(ranker: LGBMRanker, train: pd.DataFrame, metrics: dict[str, float], seed: int) -> str:
    """Log and register the ranker; returns the new version."""
    example = train.iloc[:: max(1, len(train) // EXAMPLE_ROWS)].reset_index(drop=True)
    libraries = ["mlflow", "lightgbm", "scikit-learn", "numpy", "pandas", "skops"]
    with mlflow.start_run(run_name="ranker"):
        mlflow.log_params({"model": "LightGBM ranker", "seed": seed, "train_rows": len(train)})
        mlflow.log_metrics(metrics)
        logged = mlflow.lightgbm.log_model(
            ranker,
            name="model",
            registered_model_name=NAME,
            signature=mlflow.models.infer_signature(example, ranker.predict(example)),
            input_example=example,
            pip_requirements=[f"{library}=={version(library)}" for library in libraries],
            skops_trusted_types=[
                "collections.OrderedDict",
                "lightgbm.basic.Booster",
                "lightgbm.sklearn.LGBMRanker",
            ],
        )
        log_sample(logged.model_id, train.sample(min(SAMPLE_ROWS, len(train)), random_state=seed))
    return str(logged.registered_model_version)


def registered(client: MlflowClient) -> bool:
    """Whether both models have a version."""
    return all(client.search_model_versions(f"name='{name}'") for name in (NAME, RETRIEVAL))


def run(project: Project, *, again: bool, end: datetime, seed: int) -> None:
    """The whole flow; see the top of this file."""
    use(project)
    data = Data(project)
    if again or not data.holdout.exists() or end - midnight(data, PARTING) > timedelta(days=DATA_DAYS_MAX):
        print(f"Simulating {NAME} up to {end:%Y-%m-%d} ...")
        build(project, end=end, seed=seed)
    store = FeatureStore(repo_path=str(project.features))
    apply(store)
    materialize(store, midnight(data, PARTING))
    print(f"The last week is held out in {data.holdout}; online features are as of its start.")
    if not again and registered(MlflowClient()):
        print(f"{NAME} and {RETRIEVAL} have versions already; --again trains newer ones.")
        return
    weeks = Weeks(project, store, data, seed)
    embeddings = weeks.embeddings(PARTING)
    ranker, train = fit(weeks, seed)
    metrics = measure(weeks, embeddings, ranker)
    retrieval = register_retrieval(embeddings, seed)
    made = register_ranker(ranker, train, metrics, seed)
    print(f"{RETRIEVAL} version {retrieval}: {ITEMS} items, {CANDIDATES} candidates for a user.")
    print(f"{NAME} version {made}: {', '.join(f'{name} {value:.4f}' for name, value in metrics.items())}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train and register the models of recommend.")
    parser.add_argument("--again", action="store_true", help="simulate and train anew, even if versions exist")
    parser.add_argument("--end", type=datetime.fromisoformat, help="end of the simulated span, UTC (default: today)")
    parser.add_argument("--seed", type=int, default=SEED)
    given = parser.parse_args()
    logging.getLogger("mlflow").setLevel(logging.ERROR)  # it remarks on every model that there is no pip beside uv
    end = given.end.replace(tzinfo=UTC) if given.end else today()
    run(find_project(Path.cwd()), again=given.again, end=end, seed=given.seed)


if __name__ == "__main__":
    main()
