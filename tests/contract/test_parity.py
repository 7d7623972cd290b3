"""Every family's conversion gives the original's answers, and the proof of that can fail."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import onnx
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    VotingClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from tests.models import QUIET, boosted, convert, job, table

from sunup.bundle.convert.original import load
from sunup.bundle.job import MODEL, WARMUP
from sunup.errors import ConversionRefused
from sunup.execute.onnx import OnnxExecutor

pytestmark = [
    # MLflow warns about its own type hints when it is imported, and about every table with whole numbers.
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),
]

FRAME, LABELS = table()
BINARY = (LABELS > 0).astype(int)
WORDS = np.array(["no", "maybe", "yes"])[LABELS]
AMOUNT = FRAME["c0"].to_numpy() * 40 + FRAME["c1"].to_numpy() ** 2
COUNT = np.abs(AMOUNT)
EXACT = 1e-9


def scaled(*steps: Any) -> Pipeline:
    return make_pipeline(StandardScaler(), *steps)


MODELS: Mapping[str, tuple[Any, Any, float]] = {
    # name -> (estimator, targets, what the proof's largest difference may be)
    "logistic": (scaled(LogisticRegression()), BINARY, EXACT),
    "logistic-words": (scaled(LogisticRegression()), WORDS, EXACT),
    "logistic-bool": (LogisticRegression(), BINARY == 1, EXACT),
    "forest": (RandomForestClassifier(10, n_jobs=2), BINARY, EXACT),
    "forest-words": (RandomForestClassifier(10, max_depth=5), WORDS, 1e-7),
    "forest-regression": (RandomForestRegressor(5, max_depth=6), AMOUNT, 1e-9),
    "extra-trees": (ExtraTreesClassifier(8), BINARY, EXACT),
    "tree": (DecisionTreeClassifier(), BINARY, EXACT),
    "tree-of-one-leaf": (DecisionTreeClassifier(max_depth=1, min_samples_leaf=400), BINARY, EXACT),
    "tree-regression": (DecisionTreeRegressor(max_depth=6), AMOUNT, EXACT),
    "gradient": (GradientBoostingClassifier(n_estimators=10), BINARY, EXACT),
    "gradient-exponential": (GradientBoostingClassifier(n_estimators=10, loss="exponential"), BINARY, EXACT),
    "gradient-words": (GradientBoostingClassifier(n_estimators=5), WORDS, EXACT),
    "gradient-regression": (GradientBoostingRegressor(n_estimators=10), AMOUNT, EXACT),
    "binned": (HistGradientBoostingClassifier(max_iter=10), BINARY, EXACT),
    "binned-words": (HistGradientBoostingClassifier(max_iter=5), WORDS, EXACT),
    "binned-regression": (HistGradientBoostingRegressor(max_iter=10), AMOUNT, EXACT),
    "binned-poisson": (HistGradientBoostingRegressor(max_iter=10, loss="poisson"), COUNT, EXACT),
    "lightgbm": (boosted(), BINARY, EXACT),
    "lightgbm-words": (boosted(), WORDS, EXACT),
    "lightgbm-one-against-all": (boosted(objective="multiclassova"), WORDS, EXACT),
    "lightgbm-forest": (boosted(boosting_type="rf", subsample=0.5, subsample_freq=1), BINARY, EXACT),
    "lightgbm-dart": (boosted(boosting_type="dart"), BINARY, EXACT),
    "lightgbm-regression": (lightgbm.LGBMRegressor(**QUIET), AMOUNT, EXACT),
    "lightgbm-poisson": (lightgbm.LGBMRegressor(**QUIET, objective="poisson"), COUNT, EXACT),
    "lightgbm-square-root": (lightgbm.LGBMRegressor(**QUIET, reg_sqrt=True), AMOUNT, EXACT),
    "lightgbm-in-a-pipeline": (scaled(boosted()), BINARY, EXACT),
    "forest-in-a-pipeline": (make_pipeline(SimpleImputer(), RandomForestClassifier(5)), LABELS, 1e-7),
    "by-column": (
        make_pipeline(
            ColumnTransformer([("some", StandardScaler(), ["c1", "c0"]), ("rest", "passthrough", ["c4"])]),
            LogisticRegression(),
        ),
        BINARY,
        EXACT,
    ),
    "votes": (
        VotingClassifier([("a", LogisticRegression()), ("b", RandomForestClassifier(5))], voting="soft"),
        BINARY,
        EXACT,
    ),
    "calibrated": (CalibratedClassifierCV(RandomForestClassifier(3), cv=2), BINARY, EXACT),
    "linear": (LinearRegression(), AMOUNT, EXACT),
    "ridge": (scaled(Ridge()), AMOUNT, EXACT),
}
THROUGH_STEPS = {"logistic", "logistic-words", "logistic-bool", "by-column", "votes", "calibrated", "linear", "ridge"}


@pytest.mark.parametrize("name", MODELS)
def test_a_family_gives_the_originals_answers(name: str, tmp_path: Path) -> None:
    estimator, targets, worst = MODELS[name]
    estimator.fit(FRAME, targets)
    result, proof = convert(estimator, FRAME, tmp_path)
    assert proof["max_abs"] <= worst * max(1.0, np.abs(targets).max() if targets.dtype.kind == "f" else 1.0)
    assert proof["label_agreement"] == 1.0
    assert proof["real_rows"] == 20
    assert (proof["threshold_rows"] > 0) == (name not in THROUGH_STEPS)
    assert [tensor.name for tensor in result.inputs] == ["input"]
    assert result.inputs[0].columns == tuple(FRAME.columns)
    executor = OnnxExecutor(tmp_path / "out" / MODEL, optimised=True)
    assert [(o.name, o.dtype, o.shape) for o in executor.outputs] == [
        (o.name, o.dtype, o.shape) for o in result.outputs
    ]
    assert all(output.shape[0] == -1 for output in result.outputs)
    names = [output.name for output in result.outputs]
    assert names == (["prediction"] if targets.dtype.kind == "f" else ["label", "probability"])
    # Rows the proof has not seen: all of the training table.
    answers = dict(zip(names, executor.run({"input": FRAME.to_numpy()}, names), strict=True))
    if "label" in answers:
        assert (answers["label"] == estimator.predict(FRAME)).all()
        np.testing.assert_allclose(answers["probability"], estimator.predict_proba(FRAME), atol=1e-6)
    else:
        np.testing.assert_allclose(answers["prediction"], estimator.predict(FRAME), rtol=1e-9)


def test_a_plain_booster_classifies_by_its_objective(tmp_path: Path) -> None:
    options = {"objective": "binary", "verbose": -1, "num_leaves": 7}
    booster = lightgbm.train(options, lightgbm.Dataset(FRAME, BINARY), 10)
    result, proof = convert(booster, FRAME, tmp_path)
    assert [output.name for output in result.outputs] == ["label", "probability"]
    assert proof["max_abs"] < EXACT


def test_the_best_iteration_of_early_stopping_is_what_is_served(tmp_path: Path) -> None:
    model = boosted(learning_rate=0.9).set_params(n_estimators=60)
    half = len(FRAME) // 2
    stop = lightgbm.early_stopping(3, verbose=False)
    model.fit(FRAME[:half], BINARY[:half], eval_X=FRAME[half:], eval_y=BINARY[half:], callbacks=[stop])
    assert model.best_iteration_ < 50
    assert convert(model, FRAME, tmp_path)[1]["max_abs"] < EXACT


@pytest.mark.parametrize("options", [{}, {"zero_as_missing": True}, {"use_missing": False}])
def test_missing_values_and_zeros_go_where_lightgbm_sends_them(options: dict[str, Any], tmp_path: Path) -> None:
    frame = FRAME.copy()
    random = np.random.default_rng(1)
    frame = frame.mask(random.random(frame.shape) < 0.2)
    frame = frame.where(random.random(frame.shape) > 0.3, 0.0)
    frame.iloc[::7, 2] = 1e-36  # zero to LightGBM
    result, proof = convert(boosted(**options).fit(frame, BINARY), frame, tmp_path)
    assert "missing values" in proof["how"]
    assert proof["max_abs"] < EXACT
    assert result.inputs[0].shape == (-1, 6)


@pytest.mark.parametrize("estimator", [RandomForestClassifier(6), HistGradientBoostingClassifier(max_iter=6)])
def test_missing_values_go_where_scikit_learn_sends_them(estimator: Any, tmp_path: Path) -> None:
    frame = FRAME.mask(np.random.default_rng(2).random(FRAME.shape) < 0.2)
    proof = convert(estimator.fit(frame, BINARY), frame, tmp_path)[1]
    assert "missing values" in proof["how"]
    assert proof["max_abs"] < EXACT


@pytest.mark.parametrize("model", [boosted(), RandomForestClassifier(6), scaled(LogisticRegression())])
def test_columns_of_every_number_type(model: Any, tmp_path: Path) -> None:
    """Whole numbers, flags and float32 columns reach the model as its signature says, whatever the caller sent."""
    frame = pd.DataFrame(
        {
            "long": (FRAME["c0"] * 10).astype("int64"),
            "short": (FRAME["c1"] * 10).astype("int32"),
            "single": FRAME["c2"].astype("float32"),
            "flag": FRAME["c3"] > 0,
            "double": FRAME["c4"],
        }
    )
    result, proof = convert(model.fit(frame, BINARY), frame, tmp_path)
    assert proof["max_abs"] < (1e-6 if isinstance(model, Pipeline) else EXACT)
    assert {name: type(value) for name, value in result.example.items()} == {
        "long": int, "short": int, "single": float, "flag": bool, "double": float,
    }  # fmt: skip


def test_text_columns_are_inputs_of_their_own(tmp_path: Path) -> None:
    frame = pd.DataFrame({"kind": np.array(["a", "b", "c"], dtype=object)[LABELS], "size": FRAME["c0"]})
    coded = ColumnTransformer([("kind", OneHotEncoder(), ["kind"]), ("size", StandardScaler(), ["size"])])
    model = make_pipeline(coded, LogisticRegression()).fit(frame, BINARY)
    result, proof = convert(model, frame, tmp_path)
    assert [(t.name, t.dtype, t.columns) for t in result.inputs] == [
        ("kind", "string", ("kind",)),
        ("size", "float64", ("size",)),
    ]
    assert proof["max_abs"] < 1e-6
    with np.load(tmp_path / "out" / WARMUP, allow_pickle=False) as warmup:
        assert warmup["in:kind"].dtype.kind == "U"


def test_a_model_without_an_example_is_proven_on_invented_rows(tmp_path: Path) -> None:
    result, proof = convert(boosted().fit(FRAME, BINARY), FRAME, tmp_path, example=False)
    assert proof["real_rows"] == 0
    assert "invented" in proof["how"]
    assert set(result.example) == set(FRAME.columns)


def test_the_warm_up_holds_the_originals_answers(tmp_path: Path) -> None:
    model = boosted().fit(FRAME, WORDS)
    convert(model, FRAME, tmp_path)
    with np.load(tmp_path / "out" / WARMUP, allow_pickle=False) as warmup:
        assert warmup.files == ["in:input", "out:label", "out:probability"]
        np.testing.assert_array_equal(warmup["in:input"], FRAME.head(8).to_numpy())
        np.testing.assert_array_equal(warmup["out:probability"], model.predict_proba(FRAME.head(8)))
        assert warmup["out:label"].tolist() == model.predict(FRAME.head(8)).tolist()


def test_nothing_in_the_graph_is_float32_that_was_float64_in_the_original(tmp_path: Path) -> None:
    convert(boosted().fit(FRAME, BINARY), FRAME, tmp_path)
    graph = onnx.load(tmp_path / "out" / MODEL).graph
    (trees,) = (node for node in graph.node if node.op_type == "TreeEnsemble")
    kinds = {a.name: a.t.data_type for a in trees.attribute if a.name in ("nodes_splits", "leaf_weights")}
    assert set(kinds.values()) == {onnx.TensorProto.DOUBLE}


# --- Refusals -------------------------------------------------------------------------------------------------------
def test_linear_leaves_are_refused(tmp_path: Path) -> None:
    model = boosted(linear_tree=True).fit(FRAME, BINARY)
    with pytest.raises(ConversionRefused, match="linear_tree"):
        convert(model, FRAME, tmp_path)


def test_other_kinds_of_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConversionRefused, match="several targets"):
        convert(RandomForestClassifier(2).fit(FRAME, np.column_stack([BINARY, BINARY])), FRAME, tmp_path / "a")
    with pytest.raises(ConversionRefused, match="neither a classifier nor a regressor"):
        convert(StandardScaler().fit(FRAME), FRAME, tmp_path / "b")
    task = job(boosted().fit(FRAME, BINARY), FRAME, tmp_path / "c")
    with pytest.raises(ConversionRefused, match="flavour pytorch"):
        load(Path(task.folder), "pytorch", task.columns)
