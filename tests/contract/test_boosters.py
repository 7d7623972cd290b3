"""XGBoost's and LightGBM's own rules: float32 comparisons, base scores, missing values, categories, early stopping."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tests.models import boosted, convert, table

from sunup.bundle.job import MODEL
from sunup.errors import ConversionRefused
from sunup.execute.onnx import OnnxExecutor

pytestmark = [
    # MLflow warns about its own type hints when it is imported.
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),
]

FRAME, LABELS = table()
BINARY = (LABELS > 0).astype(int)
AMOUNT = FRAME["c0"].to_numpy() * 40 + FRAME["c1"].to_numpy() ** 2 + 700
COUNT = np.abs(AMOUNT - 700)
SMALL: Mapping[str, Any] = {"n_estimators": 12, "max_depth": 4, "n_jobs": 1}
SINGLE = 2e-6  # what a sum of a dozen float32 leaves may be off, and the float32 link after it


def trees(**options: Any) -> xgboost.XGBClassifier:
    return xgboost.XGBClassifier(**{**SMALL, **options})


def sums(**options: Any) -> xgboost.XGBRegressor:
    return xgboost.XGBRegressor(**{**SMALL, **options})


MODELS: Mapping[str, tuple[Any, Any]] = {
    "binary": (trees(), BINARY),
    "multiclass": (trees(), LABELS),
    "base-score": (trees(base_score=0.93), BINARY),
    "forest": (xgboost.XGBRFClassifier(n_estimators=8, max_depth=4, n_jobs=1), BINARY),
    "dart": (trees(booster="dart", rate_drop=0.5), BINARY),
    "deep": (trees(grow_policy="lossguide", max_leaves=40, max_depth=0), BINARY),
    "regression": (sums(), AMOUNT),
    "regression-base-score": (sums(base_score=-1234.5), AMOUNT),
    "several-trees-a-round": (sums(num_parallel_tree=3, subsample=0.5, n_estimators=4), AMOUNT),
    "absolute": (sums(objective="reg:absoluteerror"), AMOUNT),
    "poisson": (sums(objective="count:poisson"), COUNT),
    "tweedie": (sums(objective="reg:tweedie"), COUNT),
    "logistic-regression": (sums(objective="reg:logistic"), COUNT / COUNT.max()),
}


@pytest.mark.parametrize("name", MODELS)
def test_xgboost_gives_its_own_answers(name: str, tmp_path: Path) -> None:
    estimator, targets = MODELS[name]
    estimator.fit(FRAME, targets)
    result, proof = convert(estimator, FRAME, tmp_path)
    assert proof["max_rel" if targets.dtype.kind == "f" else "max_abs"] <= SINGLE
    assert proof["label_agreement"] == 1.0
    assert proof["threshold_rows"] > 0
    names = [output.name for output in result.outputs]
    executor = OnnxExecutor(tmp_path / "out" / MODEL, optimised=True)
    answers = dict(zip(names, executor.run({"input": FRAME.to_numpy()}, names), strict=True))
    if "label" in answers:
        assert (answers["label"] == estimator.predict(FRAME)).all()
        np.testing.assert_allclose(answers["probability"], estimator.predict_proba(FRAME), atol=SINGLE)
    else:
        np.testing.assert_allclose(answers["prediction"], estimator.predict(FRAME), rtol=SINGLE)


@pytest.mark.parametrize("objective", ["binary:logistic", "multi:softprob"])
def test_a_plain_xgboost_booster_classifies_by_its_objective(objective: str, tmp_path: Path) -> None:
    classes = {"num_class": 3} if objective == "multi:softprob" else {}
    targets = LABELS if classes else BINARY
    options = {"objective": objective, "max_depth": 3, "nthread": 1, **classes}
    booster = xgboost.train(options, xgboost.DMatrix(FRAME, targets), 6)
    result, proof = convert(booster, FRAME, tmp_path)
    assert [output.name for output in result.outputs] == ["label", "probability"]
    assert proof["max_abs"] < SINGLE


def test_missing_values_go_where_xgboost_sends_them(tmp_path: Path) -> None:
    frame = FRAME.mask(np.random.default_rng(1).random(FRAME.shape) < 0.2)
    proof = convert(trees().fit(frame, BINARY), frame, tmp_path)[1]
    assert "missing values" in proof["how"]
    assert proof["max_abs"] < SINGLE


def test_a_number_that_means_missing(tmp_path: Path) -> None:
    """`missing` is kept by a pipeline's pickle (XGBoost's own file forgets it)."""
    frame = FRAME.mask(np.random.default_rng(1).random(FRAME.shape) < 0.2).fillna(-999.0)
    model = make_pipeline("passthrough", trees(missing=-999.0)).fit(frame, BINARY)
    assert convert(model, frame, tmp_path)[1]["max_abs"] < SINGLE


def test_xgboost_in_a_pipeline(tmp_path: Path) -> None:
    model = make_pipeline(StandardScaler(), trees()).fit(FRAME, BINARY)
    proof = convert(model, FRAME, tmp_path)[1]
    assert proof["max_abs"] < SINGLE
    assert proof["threshold_rows"] > 0


def test_the_best_round_of_early_stopping_is_what_xgboost_serves(tmp_path: Path) -> None:
    half = len(FRAME) // 2
    model = trees(learning_rate=0.9, early_stopping_rounds=3).set_params(n_estimators=60)
    model.fit(FRAME[:half], BINARY[:half], eval_set=[(FRAME[half:], BINARY[half:])], verbose=False)
    assert model.best_iteration < 50
    assert convert(model, FRAME, tmp_path)[1]["max_abs"] < SINGLE


def coded() -> pd.DataFrame:
    """A table whose columns c1 and c2 are codes of categories, one of them with more than 64, and with gaps."""
    random = np.random.default_rng(7)
    frame = FRAME.assign(c1=random.integers(0, 6, len(FRAME)), c2=random.integers(0, 90, len(FRAME)).astype(float))
    frame.loc[::11, "c2"] = np.nan
    return frame


def chosen(frame: pd.DataFrame) -> np.ndarray[Any, Any]:
    """Classes that depend on which category it is, not on its number."""
    score = frame["c1"].isin([1, 4]) * 2.0 + (frame["c2"] % 7 < 3) + frame["c0"] + (frame["c4"] > 0)
    return np.asarray(score > score.median(), dtype=np.int64)


@pytest.mark.parametrize("onehot", [1, 200])
def test_categories_as_codes_go_where_xgboost_sends_them(onehot: int, tmp_path: Path) -> None:
    frame = coded()
    model = trees(enable_categorical=True, feature_types=list("qccqqq"), max_cat_to_onehot=onehot)
    model.fit(frame, chosen(frame))
    proof = convert(model, frame, tmp_path)[1]
    assert proof["max_abs"] < SINGLE
    assert any(tree["categories"] for tree in trees_of(model))


def test_categories_as_codes_go_where_lightgbm_sends_them(tmp_path: Path) -> None:
    frame = coded()
    model = boosted(min_data_per_group=5, cat_smooth=1.0).fit(frame, chosen(frame), categorical_feature=[1, 2])
    assert convert(model, frame, tmp_path)[1]["max_abs"] < 1e-9
    assert "cat_threshold" in model.booster_.model_to_string()


def trees_of(model: xgboost.XGBClassifier) -> list[dict[str, Any]]:
    document = json.loads(model.get_booster().save_raw("json"))
    found: list[dict[str, Any]] = document["learner"]["gradient_booster"]["model"]["trees"]
    return found


@pytest.mark.parametrize(
    ("model", "targets", "reason"),
    [
        (xgboost.XGBRegressor(booster="gblinear", n_estimators=3, n_jobs=1), AMOUNT, "linear booster"),
        (trees(objective="binary:hinge"), BINARY, "binary:hinge"),
        (sums(), np.column_stack([AMOUNT, COUNT]), "several targets"),
    ],
)
def test_what_xgboost_trains_but_has_no_exact_form_is_refused(
    model: Any, targets: Any, reason: str, tmp_path: Path
) -> None:
    model.fit(FRAME, targets)
    with pytest.raises(ConversionRefused, match=reason):
        convert(model, FRAME, tmp_path)


def test_named_categories_are_refused_by_name(tmp_path: Path) -> None:
    frame = FRAME.assign(c1=pd.Categorical(np.array(["a", "b", "c"])[LABELS]))
    text = FRAME.assign(c1=np.array(["a", "b", "c"], dtype=object)[LABELS])
    for name, model in {"x": trees(enable_categorical=True), "l": boosted()}.items():
        with pytest.raises(ConversionRefused, match="named categories"):
            convert(model.fit(frame, BINARY), text, tmp_path / name)
