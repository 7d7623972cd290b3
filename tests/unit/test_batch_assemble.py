"""Rows to model inputs, model outputs to response columns."""

from typing import Any

import numpy as np
import pytest

from sunup.batch.assemble import Assembly
from sunup.batch.respond import Response, joined, split
from sunup.errors import BundleDamaged
from sunup.types import Decision, Field, ResponseField, Tensor

COLUMNS = (
    Field("a", "int64"),
    Field("b", "float64"),
    Field("text", "string"),
    Field("items", "int64[]", (-1,)),
    Field("c", "float32"),
)
ROWS = ((1, 0.5, "x", [1, 2], 0.25), (2, 1.5, "y", [3, 4], 0.75))


def feeds(tensor: Tensor, rows: Any = ROWS, columns: Any = COLUMNS) -> Any:
    (array,) = Assembly([tensor], columns).feeds(rows).values()
    return array


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        (Tensor("x", "float64", (-1, 3), ("a", "b", "c")), [[1.0, 0.5, 0.25], [2.0, 1.5, 0.75]]),
        (Tensor("x", "float32", (-1, 2), ("c", "a")), [[0.25, 1.0], [0.75, 2.0]]),
        (Tensor("x", "int64", (-1, 1), ("a",)), [[1], [2]]),
        (Tensor("x", "int64", (-1,), ("a",)), [1, 2]),
        (Tensor("x", "string", (-1, 1), ("text",)), [["x"], ["y"]]),
        (Tensor("x", "string", (-1,), ("text",)), ["x", "y"]),
        (Tensor("x", "int64", (-1, -1), ("items",)), [[1, 2], [3, 4]]),
        (Tensor("x", "float32", (-1, 2), ("items",)), [[1.0, 2.0], [3.0, 4.0]]),
    ],
)
def test_each_input_takes_its_columns(tensor: Tensor, expected: Any) -> None:
    array = feeds(tensor)
    assert array.tolist() == expected
    assert array.dtype == (object if tensor.dtype == "string" else tensor.dtype)
    assert feeds(tensor, ROWS[:1]).tolist() == expected[:1]


def test_rows_that_fit_are_taken_whole() -> None:
    columns = (Field("a", "int64"), Field("b", "float64"))
    array = feeds(Tensor("x", "float64", (-1, 2), ("a", "b")), [(1, 2.5), (3, 4)], columns)
    assert array.tolist() == [[1.0, 2.5], [3.0, 4.0]]
    assert feeds(Tensor("x", "float64", (-1, 1), ("a",)), [(1,), (3,)], columns[:1]).tolist() == [[1.0], [3.0]]
    assert feeds(Tensor("x", "float64", (-1,), ("a",)), [(1,), (3,)], columns[:1]).tolist() == [1.0, 3.0]
    lists = (Field("v", "float64[]", (2,)),)
    assert feeds(Tensor("x", "float64", (-1, 2), ("v",)), [([1, 2],), ([3, 4],)], lists).tolist() == [[1, 2], [3, 4]]


def test_several_inputs() -> None:
    assembly = Assembly(
        [Tensor("n", "float64", (-1, 2), ("a", "b")), Tensor("t", "string", (-1, 1), ("text",))], COLUMNS
    )
    made = assembly.feeds(ROWS)
    assert {name: array.shape for name, array in made.items()} == {"n": (2, 2), "t": (2, 1)}
    assert repr(assembly) == "Assembly(n, t)"


def test_a_missing_float_is_nan() -> None:
    array = feeds(Tensor("x", "float64", (-1, 2), ("a", "b")), [(1, None, "", [], 0), (2, float("nan"), "", [], 0)])
    assert np.isnan(array[:, 1]).all()


def test_a_name_in_request_and_features_is_the_callers() -> None:
    columns = (Field("a", "int64"), Field("a", "int64"), Field("b", "int64"))
    assert feeds(Tensor("x", "int64", (-1, 2), ("a", "b")), [(1, 2, 3)], columns).tolist() == [[1, 3]]


@pytest.mark.parametrize("names", [("a", "nowhere"), ()])
def test_a_column_from_nowhere_is_a_damaged_bundle(names: tuple[str, ...]) -> None:
    with pytest.raises(BundleDamaged):
        Assembly([Tensor("x", "float64", (-1, 2), names)], COLUMNS)


@pytest.mark.parametrize(
    ("tensor", "row"),
    [
        (Tensor("x", "int64", (-1,), ("a",)), (float("nan"), 0.0, "", [], 0.0)),
        (Tensor("x", "float64", (-1, 2), ("a", "text")), (1, 0.0, "x", [], 0.0)),
    ],
)
def test_values_their_dtype_cannot_hold_raise(tensor: Tensor, row: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        feeds(tensor, [row])


def test_lists_of_different_lengths_raise() -> None:
    with pytest.raises(ValueError, match="inhomogeneous"):
        feeds(Tensor("x", "int64", (-1, -1), ("items",)), [(1, 0.0, "", [1], 0.0), (1, 0.0, "", [1, 2], 0.0)])


FRAUD = Response(
    (
        ResponseField("decision", "string", decision=Decision("score", 0.9, "block", "allow")),
        ResponseField("score", "float64", output="probability", column=1),
        ResponseField("label", "int64", output="label"),
        ResponseField("probability", "float64", output="probability", shape=(2,)),
    )
)


def test_only_the_outputs_a_response_needs_are_asked_for() -> None:
    assert FRAUD.outputs == ("probability", "label")
    assert Response([ResponseField("label", "int64", output="label")]).outputs == ("label",)
    assert FRAUD.empty == {"decision": [], "score": [], "label": [], "probability": []}


def test_outputs_become_named_columns() -> None:
    probability = np.array([[0.05, 0.95], [0.1, 0.9], [0.8, 0.2]])
    columns = FRAUD.columns([probability, np.array([1, 1, 0])])
    assert {name: np.asarray(column).tolist() for name, column in columns.items()} == {
        "score": [0.95, 0.9, 0.2],
        "label": [1, 1, 0],
        "probability": probability.tolist(),
        "decision": ["block", "allow", "allow"],  # above means above
    }


def test_a_column_vector_is_one_value_per_row() -> None:
    response = Response([ResponseField("amount", "float64", output="prediction")])
    assert response.columns([np.array([[1.0], [2.0]])])["amount"].tolist() == [1.0, 2.0]  # type: ignore[union-attr]


def test_a_float32_score_is_decided_as_the_caller_reads_it() -> None:
    response = Response(
        [
            ResponseField("score", "float32", output="p", column=0),
            ResponseField("decision", "string", decision=Decision("score", 0.9, "block", "allow")),
        ]
    )
    columns = response.columns([np.array([[0.9]], dtype=np.float32)])
    assert float(np.float32(0.9)) < 0.9
    assert columns["decision"] == ["allow"]


def test_split_and_joined_are_each_others_opposite() -> None:
    outputs = [np.arange(6), np.arange(12).reshape(6, 2)]
    parts = split(outputs, [1, 0, 3, 2])
    assert [len(part[0]) for part in parts] == [1, 0, 3, 2]
    for array, again in zip(outputs, joined(parts), strict=True):
        np.testing.assert_array_equal(array, again)
    assert joined(parts[:1]) is parts[0]
