"""Conversions that are wrong in ways converters have been wrong: the proof finds each (test_proof.py has more)."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxmltools
import pandas as pd
import pytest
import xgboost
from onnx import helper, numpy_helper
from onnxmltools.convert.common.data_types import FloatTensorType
from sklearn.compose import make_column_transformer
from sklearn.ensemble import IsolationForest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from tests.models import boosted, fields_of, table

from sunup.bundle.convert.examples import feeds
from sunup.bundle.convert.original import Original
from sunup.bundle.convert.sklearn.pipeline import candidates
from sunup.bundle.convert.trees.forest import split_of_float32
from sunup.bundle.convert.trees.model import Converted, TreeModel, convert_trees
from sunup.bundle.convert.trees.xgboost import tree_model
from sunup.bundle.convert.trials import proof_rows
from sunup.bundle.parity import Arrays, prove
from sunup.errors import ParityFailed
from sunup.execute.onnx import OnnxExecutor

FRAME, LABELS = table(rows=300)
BINARY = (LABELS > 0).astype(int)
HOLES = FRAME.mask(np.random.default_rng(0).random(FRAME.shape) < 0.1)
KINDS = pd.DataFrame({"kind": np.array(["a", "b", "c"], dtype=object)[LABELS], "size": FRAME["c0"] + LABELS})
CODES = FRAME.assign(c1=np.random.default_rng(1).integers(0, 9, len(FRAME)))
CHOSEN = (CODES["c1"].isin([1, 4, 6]) ^ (FRAME["c0"] > 0)).to_numpy().astype(int)
AMOUNT = FRAME["c0"].to_numpy() * 7 + 500

Graph = Any  # an onnx.GraphProto, which has no types


class Fitted(NamedTuple):
    """A model that answers, its honest conversion, and its table."""

    model: Any
    frame: pd.DataFrame


def trees(**options: Any) -> xgboost.XGBClassifier:
    return xgboost.XGBClassifier(n_estimators=5, max_depth=3, n_jobs=1, **options)


def by_kind(encoder: Any) -> Any:
    columns = make_column_transformer((encoder, ["kind"]), (StandardScaler(), ["size"]))
    return make_pipeline(columns, LogisticRegression())


@pytest.fixture(scope="module")
def fitted() -> Mapping[str, Fitted]:
    unknown = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    coded = trees(enable_categorical=True, feature_types=list("qcqqqq"), max_cat_to_onehot=1)
    return {
        "xgboost": Fitted(trees(base_score=0.2).fit(HOLES, BINARY), HOLES),
        "xgboost-classes": Fitted(trees().fit(FRAME, LABELS), FRAME),
        "xgboost-codes": Fitted(coded.fit(CODES, CHOSEN), CODES),
        "lightgbm": Fitted(boosted().fit(FRAME, BINARY), FRAME),
        "linear": Fitted(make_pipeline(StandardScaler(), LinearRegression()).fit(FRAME, AMOUNT), FRAME),
        "logistic": Fitted(make_pipeline(StandardScaler(), LogisticRegression()).fit(FRAME, LABELS), FRAME),
        "imputed": Fitted(make_pipeline(SimpleImputer(), LogisticRegression()).fit(HOLES, BINARY), HOLES),
        "one-hot": Fitted(by_kind(OneHotEncoder(handle_unknown="ignore")).fit(KINDS, LABELS), KINDS),
        "ordinal": Fitted(by_kind(unknown).fit(KINDS, LABELS), KINDS),
        "outliers": Fitted(IsolationForest(n_estimators=5, random_state=0).fit(FRAME), FRAME),
    }


def proven(fitted: Fitted, converted: Converted) -> None:
    columns = fields_of(fitted.frame)
    original = Original(fitted.model, columns)
    real = {name: fitted.frame[name].head(40).to_numpy() for name in fitted.frame}
    rows, counts = proof_rows(original, converted, columns, real)
    executor = OnnxExecutor(converted.model, optimised=True)
    names = [output.name for output in converted.outputs]

    def ask(asked: Arrays) -> Arrays:
        return dict(zip(names, executor.run(feeds(converted.inputs, asked), names), strict=True))

    prove(original.answer, ask, rows, tolerance=1e-5, **counts)


def honest(fitted: Fitted) -> Converted:
    return next(iter(candidates(fitted.model, fields_of(fitted.frame))))()


# --- In the trees ---------------------------------------------------------------------------------------------------
def up_to(model: TreeModel) -> TreeModel:
    """<= where XGBoost says <."""
    threshold = np.nextafter(model.forest.trees.threshold.astype(np.float32), np.float32(np.inf)).astype(np.float64)
    return with_trees(model, split=split_of_float32(threshold))


def default_ways_turned(model: TreeModel) -> TreeModel:
    return with_trees(model, missing_left=~model.forest.trees.missing_left)


def last_tree_left_out(model: TreeModel) -> TreeModel:
    tree = model.forest.trees
    value = tree.value.copy()
    value[-1] = 0.0
    return with_trees(model, value=value)


def a_code_forgotten(model: TreeModel) -> TreeModel:
    sets = {node: codes[:-1] if len(codes) > 1 else codes for node, codes in model.forest.trees.sets.items()}
    return with_trees(model, sets=sets)


def unknown_codes_among_the_known(model: TreeModel) -> TreeModel:
    """A code beyond the training's goes with the set, where XGBoost sends it the other way."""
    most = max(int(codes.max()) for codes in model.forest.trees.sets.values())
    sets = {n: np.append(codes, np.arange(most + 1, most + 50)) for n, codes in model.forest.trees.sets.items()}
    return with_trees(model, sets=sets)


def codes_compared_as_numbers(model: TreeModel) -> TreeModel:
    """A category is taken for its number."""
    tree = model.forest.trees
    cuts = np.array([float(tree.sets[n].max()) if n in tree.sets else s for n, s in enumerate(tree.split)])
    return with_trees(model, split=cuts, sets={})


def base_score_left_out(model: TreeModel) -> TreeModel:
    other = tree_model(trees(base_score=0.5).fit(HOLES, BINARY), np.zeros(6, dtype=np.bool_))
    assert other is not None
    return replace(model, finish=other.finish)


def classes_turned(model: TreeModel) -> TreeModel:
    assert model.classes is not None
    return replace(model, classes=np.roll(model.classes, 1))


def with_trees(model: TreeModel, **changes: Any) -> TreeModel:
    return replace(model, forest=replace(model.forest, trees=replace(model.forest.trees, **changes)))


@pytest.mark.parametrize(
    ("name", "tamper"),
    [
        ("xgboost", up_to),
        ("xgboost", default_ways_turned),
        ("xgboost", last_tree_left_out),
        ("xgboost", base_score_left_out),
        ("xgboost", classes_turned),
        ("xgboost-classes", classes_turned),
        ("xgboost-classes", up_to),
        ("xgboost-codes", a_code_forgotten),
        ("xgboost-codes", unknown_codes_among_the_known),
        ("xgboost-codes", codes_compared_as_numbers),
    ],
)
def test_a_wrong_tree_is_found(
    fitted: Mapping[str, Fitted], name: str, tamper: Callable[[TreeModel], TreeModel]
) -> None:
    columns = fields_of(fitted[name].frame)
    model = tree_model(fitted[name].model, np.zeros(len(columns), dtype=np.bool_))
    assert model is not None
    proven(fitted[name], convert_trees(model, columns))
    with pytest.raises(ParityFailed, match="does not give the original's answers"):
        proven(fitted[name], convert_trees(tamper(model), columns))


def test_the_stock_conversion_of_lightgbm_is_found(fitted: Mapping[str, Fitted]) -> None:
    """onnxmltools rounds thresholds and input to float32."""
    right = honest(fitted["lightgbm"])
    stock = onnxmltools.convert_lightgbm(
        fitted["lightgbm"].model, initial_types=[("input", FloatTensorType([None, 6]))], zipmap=False
    )
    for old, new in zip(stock.graph.output, ("label", "probability"), strict=True):
        for node in stock.graph.node:
            node.output[:] = [new if name == old.name else name for name in node.output]
        old.name = new
    inputs = (replace_dtype(right.inputs[0], "float32"),)
    wrong = replace(right, model=stock.SerializeToString(), inputs=inputs)
    proven(fitted["lightgbm"], right)
    with pytest.raises(ParityFailed, match="does not give the original's answers"):
        proven(fitted["lightgbm"], wrong)


def replace_dtype(tensor: Any, dtype: str) -> Any:
    return type(tensor)(tensor.name, dtype, tensor.shape, tensor.columns)


# --- In the graph ---------------------------------------------------------------------------------------------------
def constants_rounded(graph: Graph) -> None:
    """Weights in bfloat16, as one saves memory."""
    for tensor in graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float64:
            rounded = (array.astype(np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32).astype(np.float64)
            tensor.CopyFrom(numpy_helper.from_array(rounded.reshape(array.shape), tensor.name))


def one_weight_changed(graph: Graph) -> None:
    tensor = next(t for t in graph.initializer if numpy_helper.to_array(t).dtype == np.float64)
    array = numpy_helper.to_array(tensor).copy()
    array.flat[0] += 1e-3
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def step_skipped(graph: Graph) -> None:
    """The first step that changes the columns gives them on as they are."""
    node = next(n for n in graph.node if n.op_type in ("Sub", "Div"))
    node.CopyFrom(helper.make_node("Identity", [node.input[0]], list(node.output)))


def link_exchanged(graph: Graph) -> None:
    node = next(n for n in graph.node if n.op_type == "Softmax")
    node.CopyFrom(helper.make_node("Sigmoid", list(node.input), list(node.output)))


def missing_become_zero(graph: Graph) -> None:
    node = next(n for n in graph.node if n.op_type == "Where")
    fill = next(t for t in graph.initializer if t.name == node.input[1])
    fill.CopyFrom(numpy_helper.from_array(np.zeros_like(numpy_helper.to_array(fill)), fill.name))


def unknown_become_known(graph: Graph) -> None:
    """A category that training never saw counts as the first."""
    coder = next(n for n in graph.node if n.op_type in ("OneHotEncoder", "LabelEncoder"))
    source = coder.input[0]
    attributes = {"keys_strings": ["a", "b", "c"], "values_strings": ["a", "b", "c"], "default_string": "a"}
    known = helper.make_node("LabelEncoder", [source], ["known"], domain="ai.onnx.ml", **attributes)
    coder.input[0] = "known"
    body = [known, *graph.node]
    del graph.node[:]
    graph.node.extend(body)


def labels_turned(graph: Graph) -> None:
    node = next(n for n in graph.node if n.op_type == "Where")
    node.input[1], node.input[2] = node.input[2], node.input[1]


def worst_class_chosen(graph: Graph) -> None:
    next(n for n in graph.node if n.op_type == "ArgMax").op_type = "ArgMin"


@pytest.mark.parametrize(
    ("name", "tamper"),
    [
        ("linear", constants_rounded),
        ("linear", one_weight_changed),
        ("linear", step_skipped),
        ("logistic", one_weight_changed),
        ("logistic", link_exchanged),
        ("logistic", worst_class_chosen),
        ("imputed", missing_become_zero),
        ("one-hot", unknown_become_known),
        ("ordinal", unknown_become_known),
        ("outliers", labels_turned),
    ],
)
def test_a_tampered_graph_is_found(fitted: Mapping[str, Fitted], name: str, tamper: Callable[[Graph], None]) -> None:
    right = honest(fitted[name])
    proven(fitted[name], right)
    model = onnx.load_from_string(right.model)
    for opset in model.opset_import:
        opset.version = max(opset.version, 3)  # for a LabelEncoder; what stands there already means the same
    tamper(model.graph)
    with pytest.raises(ParityFailed):
        proven(fitted[name], replace(right, model=model.SerializeToString()))
