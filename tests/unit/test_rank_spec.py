"""function.toml of a ranking function: what it may say, what it must, and whether the models fit it."""

from typing import Any

import pytest

from sunup.bundle.declare.file import parse
from sunup.bundle.declare.fit import fit
from sunup.bundle.declare.ranking import ranked, retrieval_of
from sunup.bundle.declare.spec import FeatureSpec, RankSpec, Spec
from sunup.bundle.declare.write import write
from sunup.bundle.manifest import Model, Rank, Retrieval
from sunup.errors import UsageError
from sunup.types import Field, ResponseField, Tensor

FULL = """
[request]
user_id = "int64"
candidates = "int64[]"
[features]
service = "s"
entities = { item_id = "candidates" }
[rank]
by = "score"
top = 7
retrieve = "names@best"
[response]
score = "prediction"
"""
MODEL = Model("names", "2", "run", "onnx")
SCORE = ResponseField("score", "float64", output="prediction")
USER = Tensor("user_id", "int64", (-1,), ("user_id",))


def spec(text: str = FULL) -> Spec:
    return parse(text, source="function.toml", name="shop")


def refused(text: str) -> str:
    with pytest.raises(UsageError) as caught:
        spec(text)
    return caught.value.message


def test_it_is_read_and_reads_back() -> None:
    found = spec()
    assert found.rank == RankSpec("score", 7, "names@best")
    assert found.features == FeatureSpec("s", entities={"item_id": "candidates"})
    assert found.request == (Field("user_id", "int64"), Field("candidates", "int64[]", (-1,), True))
    assert found.rows == (Field("user_id", "int64"), Field("item_id", "int64"))
    assert spec(write(found)) == found
    alone = spec(FULL.replace('retrieve = "names@best"\n', "").replace("top = 7\n", ""))
    assert alone.rank == RankSpec("score", 10)
    assert not alone.request[1].optional
    assert spec(write(alone)) == alone


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ('entities = { item_id = "candidates" }\n', "", ["[rank]", "entities = { item_id"]),
        ('{ item_id = "candidates" }', '{ item_id = "candidates", a = "candidates" }', ["just one"]),
        ('{ item_id = "candidates" }', '{ item_id = "candidate" }', ["line 7", "Did you mean `candidates`?"]),
        ('{ item_id = "candidates" }', '{ item_id = "user_id" }', ["line 7", "no list"]),
        ('{ item_id = "candidates" }', '{ user_id = "candidates" }', ["line 7", "a field of that name"]),
        ('[rank]\nby = "score"\ntop = 7\nretrieve = "names@best"\n', "", ["line 7", "add [rank]"]),
        ("top = 7", "top = 0", ["line 10", "[rank] top", ">= 1"]),
        ("top = 7", "top = 501", ["line 10", "[rank] top", "<= 500"]),
        ("top = 7", "topp = 7", ["line 10", "Did you mean `top`?"]),
        ('by = "score"', "", ["[rank]", "`by`"]),
    ],
)
def test_refusals(old: str, new: str, parts: list[str]) -> None:
    assert old in FULL
    message = refused(FULL.replace(old, new))
    for part in parts:
        assert part in message


def test_the_item_stands_for_its_list_among_the_models_columns() -> None:
    found = spec()
    assert fit(found, (Field("item_id", "int64"), Field("n", "float64")), (Field("n", "float64"),)) == found
    with pytest.raises(UsageError, match="`candidates`"):
        fit(found, (Field("candidates", "int64"),), ())
    plain = Spec("f", "f", (Field("x", "float64[]", (-1,)),))
    with pytest.raises(UsageError, match=r"float64\[\]"):
        fit(plain, (Field("x", "float64"),), ())


def test_the_response_must_have_a_number_to_sort_by() -> None:
    found = spec()
    assert ranked(found, (SCORE,), None) == Rank("candidates", "item_id", "score", 7)
    wide = ResponseField("probability", "float64", output="probability", shape=(2,))
    text = ResponseField("score", "string", output="label")
    for response, part in (
        ((wide, SCORE), r"probability:1"),
        ((text,), "no number"),
        ((ResponseField("scores", "float64", output="p"),), "Did you mean `scores`"),
        ((ResponseField("item_id", "float64", output="p"), SCORE), "Rename it"),
    ):
        with pytest.raises(UsageError, match=part):
            ranked(found, response, None)
    assert ranked(Spec("f", "f", ()), (wide,), None) is None


def test_the_retrieval_must_name_candidates() -> None:
    found, ids = spec(), Tensor("ids", "int64", (-1, 50))
    assert retrieval_of(found, MODEL, (USER,), (ids,)) == Retrieval(MODEL, (USER,), ids)
    other: Any = Tensor("user", "int64", (-1,), ("user",))
    for inputs, outputs, part in (
        ((other,), (ids,), "Did you mean `user_id`"),
        ((USER,), (ids, ids), "one output"),
        ((USER,), (Tensor("ids", "float64", (-1, 50)),), "int64 .-1, k."),
        ((USER,), (Tensor("ids", "int64", (-1,)),), "int64 .-1, k."),
        ((USER,), (Tensor("ids", "int64", (-1, 501)),), "1 to 500"),
    ):
        with pytest.raises(UsageError, match=part):
            retrieval_of(found, MODEL, inputs, outputs)
