"""CatBoost, whose library is an extra of its own; and graphs registered as they are (MLflow's onnx flavour)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import catboost
import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.models import convert, table

from sunup.bundle.convert.original import LOADERS, load
from sunup.bundle.job import MODEL
from sunup.errors import ConversionRefused
from sunup.execute.onnx import OnnxExecutor
from sunup.types import Field

pytestmark = [
    # MLflow warns about its own type hints when it is imported.
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),
]

FRAME, LABELS = table()
BINARY = (LABELS > 0).astype(int)
WORDS = np.array(["no", "maybe", "yes"])[LABELS]
AMOUNT = FRAME["c0"].to_numpy() * 40 + FRAME["c1"].to_numpy() ** 2
SMALL: Mapping[str, Any] = {
    "iterations": 12,
    "depth": 4,
    "verbose": 0,
    "thread_count": 1,
    "allow_writing_files": False,
    "random_seed": 0,
}
EXACT = 1e-12


def classes(**options: Any) -> catboost.CatBoostClassifier:
    return catboost.CatBoostClassifier(**SMALL, **options)


def sums(**options: Any) -> catboost.CatBoostRegressor:
    return catboost.CatBoostRegressor(**SMALL, **options)


CATBOOST: Mapping[str, tuple[Any, Any]] = {
    "binary": (classes(), BINARY),
    "words": (classes(), WORDS),
    "one-against-all": (classes(loss_function="MultiClassOneVsAll"), LABELS),
    "uneven": (classes(grow_policy="Lossguide", max_leaves=12), LABELS),
    "depthwise": (classes(grow_policy="Depthwise"), BINARY),
    "regression": (sums(), AMOUNT),
    "absolute": (sums(loss_function="MAE"), AMOUNT),
    "poisson": (sums(loss_function="Poisson"), np.abs(AMOUNT)),
}


@pytest.mark.parametrize("name", CATBOOST)
def test_catboost_gives_its_own_answers(name: str, tmp_path: Path) -> None:
    estimator, targets = CATBOOST[name]
    estimator.fit(FRAME, targets)
    result, proof = convert(estimator, FRAME, tmp_path)
    assert proof["max_rel" if targets.dtype.kind == "f" else "max_abs"] <= EXACT
    assert proof["label_agreement"] == 1.0
    assert proof["threshold_rows"] > 0
    names = [output.name for output in result.outputs]
    executor = OnnxExecutor(tmp_path / "out" / MODEL, optimised=True)
    answers = dict(zip(names, executor.run({"input": FRAME.to_numpy()}, names), strict=True))
    expected = estimator.predict(FRAME).reshape(-1)
    if "label" in answers:
        assert (answers["label"] == expected).all()
    else:
        np.testing.assert_allclose(answers["prediction"], expected, rtol=EXACT)


@pytest.mark.parametrize("mode", ["Min", "Max"])
def test_missing_values_go_where_catboost_sends_them(mode: str, tmp_path: Path) -> None:
    frame = FRAME.mask(np.random.default_rng(1).random(FRAME.shape) < 0.2)
    proof = convert(classes(nan_mode=mode).fit(frame, BINARY), frame, tmp_path)[1]
    assert "missing values" in proof["how"]
    assert proof["max_abs"] <= EXACT


def test_what_catboost_trains_but_has_no_exact_form_is_refused(tmp_path: Path) -> None:
    frame = FRAME.assign(c1=(FRAME["c1"] > 0).astype(int))
    model = classes(cat_features=["c1"], one_hot_max_size=1).fit(frame, BINARY)
    with pytest.raises(ConversionRefused, match=r"categorical, text or embedding features \(c1\)"):
        convert(model, frame, tmp_path / "a")
    with pytest.raises(ConversionRefused, match="RMSEWithUncertainty"):
        convert(sums(loss_function="RMSEWithUncertainty").fit(FRAME, AMOUNT), FRAME, tmp_path / "b")


def test_an_absent_library_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(_: str) -> Any:
        raise ModuleNotFoundError("No module named 'catboost'", name="catboost")

    monkeypatch.setitem(LOADERS, "catboost", absent)
    with pytest.raises(ConversionRefused, match=r"catboost.*pip install 'sunup\[catboost\]'"):
        load(tmp_path, "catboost", (Field("c0", "float64"),))


def graph(*, rows: int | str = "rows", separate: bool = False, double: bool = False) -> onnx.ModelProto:
    """Linear over two columns a and b, as one matrix or as two columns: `score` = a + 2 b, `big` = score > 1."""
    kind = TensorProto.DOUBLE if double else TensorProto.FLOAT
    weights = numpy_helper.from_array(np.array([[1.0], [2.0]], dtype=np.float64 if double else np.float32), "w")
    one = numpy_helper.from_array(np.array(1.0, dtype=np.float64 if double else np.float32), "one")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["score"]), helper.make_node("Greater", ["score", "one"], ["big"])]
    inputs = [helper.make_tensor_value_info("x", kind, [rows, 2])]
    if separate:
        inputs = [helper.make_tensor_value_info(name, kind, [rows]) for name in "ab"]
        axis = numpy_helper.from_array(np.array([1]), "axis")
        for name in "ab":
            nodes.insert(0, helper.make_node("Unsqueeze", [name, "axis"], [f"{name}1"]))
        nodes.insert(2, helper.make_node("Concat", ["a1", "b1"], ["x"], axis=1))
    outputs = [
        helper.make_tensor_value_info("score", kind, [rows, 1]),
        helper.make_tensor_value_info("big", TensorProto.BOOL, [rows, 1]),
    ]
    constants = [weights, one, *([axis] if separate else [])]
    made = helper.make_graph(nodes, "linear", inputs, outputs, constants)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


AB = pd.DataFrame({"a": np.linspace(-2, 2, 30), "b": np.linspace(1, -1, 30)})


@pytest.mark.parametrize("options", [{}, {"separate": True}, {"double": True}], ids=str)
def test_a_registered_graph_is_served_as_it_is(options: dict[str, Any], tmp_path: Path) -> None:
    result, proof = convert(graph(**options), AB, tmp_path)
    kind = "float64" if "double" in options else "float32"
    assert [(o.name, o.dtype, o.shape) for o in result.outputs] == [("score", kind, (-1, 1)), ("big", "bool", (-1, 1))]
    inputs = [("a", (-1,), ("a",)), ("b", (-1,), ("b",))] if "separate" in options else [("x", (-1, 2), ("a", "b"))]
    assert [(i.name, i.shape, i.columns) for i in result.inputs] == inputs
    assert proof["max_abs"] == 0.0
    assert "the registered graph" in proof["how"]


@pytest.mark.parametrize(
    ("options", "columns", "reason"),
    [
        ({"rows": 1}, "ab", "first dimension must be free"),
        ({}, "abc", r"no column of its signature \(a, b, c\)"),
        ({"separate": True}, "ac", "`b` "),
    ],
)
def test_a_graph_that_cannot_be_served_is_refused(
    options: dict[str, Any], columns: str, reason: str, tmp_path: Path
) -> None:
    frame = pd.DataFrame({name: np.zeros(3) for name in columns})
    with pytest.raises(ConversionRefused, match=reason):
        convert(graph(**options), frame, tmp_path)
