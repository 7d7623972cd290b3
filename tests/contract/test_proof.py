"""The proof of a conversion must be able to fail: whatever is wrong with the converted model, it is found."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from tests.models import boosted, fields_of, job, save, table

from sunup.bundle.convert.examples import feeds, real_rows
from sunup.bundle.convert.original import Original, load
from sunup.bundle.convert.task import run
from sunup.bundle.convert.trees.forest import Forest, floor32, split_of_float32
from sunup.bundle.convert.trees.lightgbm import tree_model as lightgbm_trees
from sunup.bundle.convert.trees.model import Converted, TreeModel, convert_trees
from sunup.bundle.convert.trees.sklearn import tree_model as sklearn_trees
from sunup.bundle.convert.trials import proof_rows
from sunup.bundle.parity import Arrays, prove
from sunup.errors import ParityFailed
from sunup.execute.onnx import OnnxExecutor
from sunup.types import Field

# MLflow warns about its own type hints when it is imported.
pytestmark = pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning")

FRAME, LABELS = table()
BINARY = (LABELS > 0).astype(int)

Tamper = Callable[[TreeModel], TreeModel]


def with_trees(model: TreeModel, **changes: Any) -> TreeModel:
    forest = Forest(replace(model.forest.trees, **changes), model.forest.outputs, model.forest.compare)
    return replace(model, forest=forest)


def rounded_splits(model: TreeModel) -> TreeModel:
    """What the stock converters do."""
    return with_trees(model, split=model.forest.trees.split.astype(np.float32).astype(np.float64))


def one_split_an_ulp_off(model: TreeModel) -> TreeModel:
    split = model.forest.trees.split.copy()
    split[len(split) // 2] = np.nextafter(split[len(split) // 2], np.inf)
    return with_trees(model, split=split)


def one_leaf_changed(model: TreeModel) -> TreeModel:
    value = model.forest.trees.value.copy()
    value[len(value) // 3] += 0.01
    return with_trees(model, value=value)


def one_way_for_missing_turned(model: TreeModel) -> TreeModel:
    missing = model.forest.trees.missing_left.copy()
    missing[0] = not missing[0]
    return with_trees(model, missing_left=missing)


def classes_swapped(model: TreeModel) -> TreeModel:
    assert model.classes is not None
    return replace(model, classes=model.classes[::-1].copy())


def not_rounded_first(model: TreeModel) -> TreeModel:
    """Comparing float64 with the library's thresholds, where it compares float32."""
    return with_trees(model, split=model.forest.trees.threshold)


def proven(original: Original, converted: Converted, columns: tuple[Field, ...], real: Arrays) -> None:
    executor = OnnxExecutor(converted.model, optimised=False)
    names = [output.name for output in converted.outputs]
    rows, counts = proof_rows(original, converted, columns, real)

    def ask(asked: Arrays) -> Arrays:
        return dict(zip(names, executor.run(feeds(converted.inputs, asked), names), strict=True))

    prove(original.answer, ask, rows, tolerance=1e-5, **counts)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, tuple[Original, TreeModel, Arrays]]:
    """A LightGBM model and a forest, both trained with missing values, as they come back from their folders."""
    frame = FRAME.mask(np.random.default_rng(3).random(FRAME.shape) < 0.1)
    found = {}
    for name, model in {"lightgbm": boosted(), "forest": RandomForestClassifier(6, random_state=0)}.items():
        folder = tmp_path_factory.mktemp(name) / "model"
        flavor = save(model.fit(frame, BINARY), frame, folder)
        original = load(folder, flavor, fields_of(frame))
        none = np.zeros(frame.shape[1], dtype=np.bool_)
        trees = lightgbm_trees(original.model, none) or sklearn_trees(original.model, none)
        assert trees is not None
        found[name] = (original, trees, real_rows(folder, fields_of(frame), ""))
    return found


@pytest.mark.parametrize(
    ("name", "tamper"),
    [
        ("lightgbm", rounded_splits),
        ("lightgbm", one_split_an_ulp_off),
        ("lightgbm", one_leaf_changed),
        ("lightgbm", one_way_for_missing_turned),
        ("lightgbm", classes_swapped),
        ("forest", rounded_splits),
        ("forest", one_split_an_ulp_off),
        ("forest", not_rounded_first),
        ("forest", one_leaf_changed),
        ("forest", one_way_for_missing_turned),
    ],
)
def test_a_wrong_conversion_is_refused(
    saved: Mapping[str, tuple[Original, TreeModel, Arrays]], name: str, tamper: Tamper
) -> None:
    original, trees, real = saved[name]
    columns = fields_of(FRAME)
    proven(original, convert_trees(trees, columns), columns, real)
    with pytest.raises(ParityFailed) as caught:
        proven(original, convert_trees(tamper(trees), columns), columns, real)
    message = caught.value.message
    assert "\n" not in message
    assert "does not give the original's answers" in message
    assert "c0 = " in message
    assert "deploy another version" in message


def test_a_wrong_base_score_is_refused(tmp_path: Path) -> None:
    task = job(GradientBoostingClassifier(n_estimators=5).fit(FRAME, BINARY), FRAME, tmp_path)
    original = load(Path(task.folder), "sklearn", task.columns)
    original.model.init_.class_prior_ = np.array([0.3, 0.7])
    wrong = sklearn_trees(original.model, np.zeros(6, dtype=np.bool_))
    assert wrong is not None
    right = load(Path(task.folder), "sklearn", task.columns)
    with pytest.raises(ParityFailed, match="probability differs"):
        proven(right, convert_trees(wrong, task.columns), task.columns, real_rows(Path(task.folder), task.columns, ""))


def test_a_tolerance_below_what_float32_gives_fails_and_says_what_to_do(tmp_path: Path) -> None:
    task = job(RandomForestClassifier(7, max_depth=4).fit(FRAME, LABELS), FRAME, tmp_path)
    with pytest.raises(ParityFailed, match="raise tolerance in \\[parity\\]"):
        run(msgspec.structs.replace(task, tolerance=1e-12), lambda *_: None)


def two(label_of_second: int, probability: float) -> Callable[[Arrays], Arrays]:
    """A model that is sure of even rows and gives odd ones this label and probability."""

    def answer(rows: Arrays) -> Arrays:
        odd = rows["a"].astype(int) % 2
        both = np.array([[0.2, 0.8], [1 - probability, probability]])[odd]
        return {"label": np.array([1, label_of_second])[odd], "probability": both}

    return answer


def test_labels_may_differ_only_where_the_original_is_undecided() -> None:
    rows = {"a": np.arange(4.0)}
    told: dict[str, Any] = {"real_rows": 4, "threshold_rows": 0, "tolerance": 1e-5, "how": ""}
    proof, _ = prove(two(1, 0.5), two(0, 0.5), rows, **told)
    assert proof.label_agreement == 0.5
    with pytest.raises(ParityFailed, match="label differs"):
        prove(two(1, 0.51), two(0, 0.51), rows, **told)


def test_answers_that_depend_on_the_batch_are_refused() -> None:
    def moody(rows: Arrays) -> Arrays:
        return {"prediction": np.full(len(rows["a"]), 1.0 if len(rows["a"]) != 7 else 1.1)}

    with pytest.raises(ParityFailed, match="asked 7 at a time"):
        prove(
            lambda rows: {"prediction": np.ones(len(rows["a"]))},
            moody,
            {"a": np.arange(30.0)},
            real_rows=30,
            threshold_rows=0,
            tolerance=1e-5,
            how="",
        )


def test_missing_answers_and_other_shapes_are_refused() -> None:
    told: dict[str, Any] = {"real_rows": 2, "threshold_rows": 0, "tolerance": 1e-5, "how": ""}
    rows = {"a": np.arange(2.0)}
    ones = {"prediction": np.ones(2)}
    with pytest.raises(ParityFailed, match="nan"):
        prove(lambda _: ones, lambda _: {"prediction": np.array([1.0, np.nan])}, rows, **told)
    with pytest.raises(ParityFailed, match=r"shape \[2, 1\]"):
        prove(lambda _: ones, lambda _: {"prediction": np.ones((2, 1))}, rows, **told)


def test_the_float32_comparison_is_exact_around_every_boundary() -> None:
    random = np.random.default_rng(5)
    ends = [0.0, -0.0, 1.0, float(np.finfo(np.float32).max), float(np.finfo(np.float32).min), 1e39, np.inf, -np.inf]
    thresholds = np.concatenate([random.normal(size=2000) * 10.0 ** random.integers(-30, 30, 2000), ends])
    splits = split_of_float32(thresholds)
    floor = floor32(thresholds)
    with np.errstate(over="ignore"):
        above = np.nextafter(floor, np.float32(np.inf)).astype(np.float64)
        for value in (thresholds, splits, floor.astype(np.float64), above):
            for x in (value, np.nextafter(value, np.inf), np.nextafter(value, -np.inf)):
                library = x.astype(np.float32).astype(np.float64) <= thresholds
                np.testing.assert_array_equal(x <= splits, library)


def test_a_difference_is_accepted_only_where_it_was_said_and_only_so_far() -> None:
    rows = {"a": np.arange(40.0)}
    told: dict[str, Any] = {"real_rows": 40, "threshold_rows": 0, "tolerance": 1e-5, "how": ""}
    off, wide = two(1, 0.803), two(1, 0.8)
    with pytest.raises(ParityFailed, match=r"accept it with --accept-difference 0\.0031,") as refused:
        prove(wide, off, rows, **told)
    assert "tolerance in [parity]" in refused.value.message
    with pytest.raises(ParityFailed, match=r"--accept-difference 0\.0031"):
        prove(wide, off, rows, **told, accept=0.002)
    proof, answers = prove(wide, off, rows, **told, accept=0.0031)
    assert (proof.accepted, proof.tolerance) == (0.0031, 1e-5)
    assert proof.max_difference == pytest.approx(0.003)
    # What a machine is to give from now on is what was accepted.
    np.testing.assert_array_equal(answers["probability"], off(rows)["probability"])
    assert "accepted up to 0.0031" in proof.sentence()
    needless, answers = prove(wide, wide, rows, **told, accept=0.0031)
    assert needless.accepted == 0.0
    assert "accepted" not in needless.sentence()


def test_labels_that_were_accepted_are_counted() -> None:
    rows = {"a": np.arange(40.0)}
    told: dict[str, Any] = {"real_rows": 40, "threshold_rows": 0, "tolerance": 1e-5, "how": ""}
    # The original is 0.02 from undecided, the conversion on the other side of it.
    sure, other = two(1, 0.51), two(0, 0.495)
    with pytest.raises(ParityFailed, match=r"--accept-difference 0\.021"):
        prove(sure, other, rows, **told, accept=0.016)
    proof, _ = prove(sure, other, rows, **told, accept=0.021)
    assert (proof.label_differences, proof.label_agreement) == (20, 0.5)
    assert "another label on 20 of them" in proof.sentence()
    assert ["labels", "another label on 20 of them"] in proof.table()

    def bare(label: int) -> Callable[[Arrays], Arrays]:
        return lambda rows: {"label": np.full(len(rows["a"]), label)}

    with pytest.raises(ParityFailed, match=r"--accept-difference 1\.$"):  # nothing says how close it was
        prove(bare(0), bare(1), rows, **told, accept=0.9)
    assert prove(bare(0), bare(1), rows, **told, accept=1.0)[0].label_differences == 40
