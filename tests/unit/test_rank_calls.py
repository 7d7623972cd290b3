"""Ranking functions through the pipeline, with and without a retrieval, and in every protocol."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from tests.unit.test_pipeline import NOW, WALL, manifest, stored
from tests.unit.test_pipeline import function as plain_function
from tests.unit.test_pipeline import plan as read_plan

from sunup.batch.assemble import Assembly
from sunup.batch.rank import Ranking
from sunup.batch.respond import Response
from sunup.batch.retrieve import Retrieval
from sunup.bundle.manifest import Manifest, Model, Rank
from sunup.bundle.manifest import Retrieval as Declared
from sunup.clock import ManualClock
from sunup.errors import BadRequest, CallError, FeaturesMissing
from sunup.function import Cost, Function
from sunup.limits import CANDIDATES_MAX, RANK_ROWS_MAX, STREAM_BATCH_RECORDS_MAX
from sunup.lookup.join import Lookup
from sunup.pipeline import Pipeline
from sunup.serve.describe import describe
from sunup.serve.pages.openapi import openapi
from sunup.serve.streams.scoring import records_max
from sunup.types import Call, Field, Reply, ResponseField, Tensor

USER, CARDS = Field("amount", "float64"), Field("cards", "int64[]", (-1,))
MAYBE = Field("cards", "int64[]", (-1,), True)


# --- Through the pipeline ---------------------------------------------------------------------------------------------


def ranked_manifest(*, retrieval: bool = False, top: int = 2) -> Manifest:
    model = Model("names", "1", "r", "onnx")
    declared = Declared(model, (Tensor("amount", "float64", (-1,), ("amount",)),), Tensor("ids", "int64", (-1, 3)))
    return manifest(
        request=(USER, MAYBE if retrieval else CARDS),
        response=(ResponseField("score", "float64", output="probability", column=1),),
        rank=Rank("cards", "card_id", "score", top, declared if retrieval else None),
        example={"amount": 1.0, "cards": [1]},
    )


def _closed() -> None:
    """Nothing to give back."""


def ranked_function(*, retrieval: bool = False, seconds: float = 1e-5, on_missing: str = "default") -> Function:
    made = ranked_manifest(retrieval=retrieval)
    plan = read_plan(on_missing=on_missing)
    lookup = Lookup(plan, stored(plan, {1: (3, 0.5), 2: (1, 9.0), 3: (9, 0.0)}), made.rows)

    def names(feeds: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> list[NDArray[Any]]:
        assert tuple(outputs) == ("ids",)
        if feeds["amount"].max() > 100:
            raise RuntimeError("secret detail")
        return [np.tile(np.array([3, 1, 3]), (len(feeds["amount"]), 1))]

    return replace(
        plain_function(seconds=seconds),
        manifest=made,
        lookup=lookup,
        assembly=Assembly(made.inputs, made.rows + lookup.columns),
        response=Response(made.response),
        cost=Cost(8, seconds),
        ranking=Ranking(made.request, listed="cards", item="card_id", by="score", top=2, retrieves=retrieval),
        retrieval=Retrieval(
            Assembly((Tensor("amount", "float64", (-1,), ("amount",)),), made.request), names, "ids", _closed
        )
        if retrieval
        else None,
    )


def answered(function: Function, body: Any) -> Any:
    codec = function.record_codec(7)

    async def ask() -> bytes:
        pipeline = Pipeline(function, clock=ManualClock(now=NOW, wall=WALL))
        call = codec.decode(json.dumps(body).encode(), id="r1", deadline=NOW + 10)
        assert not pipeline.takes_now(call)
        try:
            return codec.encode(await pipeline.answer(call))
        finally:
            await pipeline.aclose()

    return json.loads(asyncio.run(ask()))["predictions"]


def score(amount: float, n: float, mean: float) -> float:
    return float(1 / (1 + np.exp(-(0.5 * amount + n - mean))))


@pytest.mark.parametrize("seconds", [1e-5, 1.0])
def test_candidates_are_looked_up_scored_and_sorted(seconds: float) -> None:
    predictions = answered(
        ranked_function(seconds=seconds), [{"amount": 1, "cards": [2, 1, 3]}, {"amount": 1, "cards": []}]
    )
    best = [score(1, 9, 0), score(1, 3, 0.5)]
    assert predictions[0] == {"card_id": [3, 1], "score": pytest.approx(best)}
    assert predictions[1]["error"]["code"] == "no_candidates"


def test_what_is_defaulted_is_said_of_what_is_returned() -> None:
    (prediction,) = answered(ranked_function(), {"amount": 1, "cards": [8, 2]})
    assert prediction["card_id"] == [2, 8] or prediction["card_id"] == [8, 2]
    assert prediction["defaulted"] == ["n", "mean"]
    with pytest.raises(FeaturesMissing):
        answered(ranked_function(on_missing="reject"), {"amount": 1, "cards": [8, 2]})


@pytest.mark.parametrize("record", [{}, {"cards": None}, {"cards": []}])
def test_the_retrieval_names_what_callers_do_not(record: dict[str, Any]) -> None:
    predictions = answered(ranked_function(retrieval=True), [{"amount": 1, **record}, {"amount": 1, "cards": [2]}] * 70)
    assert len(predictions) == 140
    assert predictions[0]["card_id"] == [3, 1]
    assert predictions[1]["card_id"] == [2]
    assert predictions[::2] == [predictions[0]] * 70


def test_a_retrieval_that_fails_keeps_its_reason() -> None:
    with pytest.raises(CallError) as caught:
        answered(ranked_function(retrieval=True), {"amount": 1000})
    assert caught.value.status == 500
    assert "secret" not in caught.value.message


def test_a_batch_of_a_topic_leaves_room_for_every_candidate() -> None:
    cheap, dear = ranked_function(), ranked_function(seconds=8.0)
    assert records_max(cheap) * CANDIDATES_MAX == RANK_ROWS_MAX
    assert records_max(replace(cheap, cost=Cost(8, 8 / 5000))) == 10, "5,000 rows are a second of this model"
    assert records_max(dear) == 1
    assert records_max(replace(cheap, ranking=None)) == STREAM_BATCH_RECORDS_MAX


# --- In every protocol ------------------------------------------------------------------------------------------------


def reply_of(function: Function, call: Call) -> Reply:
    async def ask() -> Reply:
        pipeline = Pipeline(function, clock=ManualClock(now=NOW, wall=WALL))
        try:
            return await pipeline.answer(call)
        finally:
            await pipeline.aclose()

    return asyncio.run(ask())


def tensors(**inputs: Any) -> bytes:
    kinds = {"amount": "FP64", "cards": "INT64"}
    made = [
        {"name": name, "shape": list(np.shape(data)), "datatype": kinds[name], "data": data}
        for name, data in inputs.items()
    ]
    return json.dumps({"inputs": made}).encode()


def test_tensors_in_and_out() -> None:
    function = ranked_function(retrieval=True)
    codec = function.oip_codec()
    for body in (tensors(amount=[1.0, 2.0], cards=[[1, 3], [2, 1]]), tensors(amount=[1.0, 2.0])):
        said = json.loads(bytes(codec.encode(reply_of(function, codec.decode(body, id="r", deadline=NOW + 9)))))  # type: ignore[arg-type]
        shapes = {output["name"]: (output["shape"], output["datatype"]) for output in said["outputs"]}
        assert shapes == {"card_id": ([2, 2], "INT64"), "score": ([2, 2], "FP64")}
        assert said["outputs"][0]["data"][:2] == [3, 1]
    wanted = msgspec.json.decode(tensors(amount=[1.0], cards=[[1, 3]])) | {"outputs": [{"name": "card_id"}]}
    said = json.loads(
        bytes(codec.encode(reply_of(function, codec.decode(json.dumps(wanted).encode(), id="r", deadline=NOW + 9))))  # type: ignore[arg-type]
    )
    assert [output["name"] for output in said["outputs"]] == ["card_id"]
    metadata = json.loads(codec.metadata())
    assert metadata["inputs"][1] == {"name": "cards", "datatype": "INT64", "shape": [-1, -1]}
    assert metadata["outputs"][0] == {"name": "card_id", "datatype": "INT64", "shape": [-1, -1]}


def test_no_tensor_holds_lists_of_different_lengths() -> None:
    function = ranked_function()
    codec = function.oip_codec()
    call = Call(id="r", rows=[(1.0, [1]), (1.0, [1, 2])], count=2, deadline=NOW + 9)
    with pytest.raises(BadRequest, match="1 to 2 values"):
        codec.encode(reply_of(function, call))


@pytest.mark.parametrize(
    "body",
    [
        {"instances": [{"amount": 1, "cards": [2, 1, 3]}]},
        {"instances": [[1, [2, 1, 3]]]},
        {"inputs": {"amount": [1], "cards": [[2, 1, 3]]}},
        {"inputs": {"amount": 1, "cards": [2, 1, 3]}},
        {"instances": [{"amount": 1}]},
        {"instances": [{"amount": 1, "cards": None}]},
    ],
)
def test_tables(body: dict[str, Any]) -> None:
    function = ranked_function(retrieval=True)
    for codec in (function.kserve_codec(), function.mlflow_codec()):
        call = codec.decode(json.dumps(body).encode(), id="r", deadline=NOW + 9)
        (prediction,) = json.loads(codec.encode(reply_of(function, call)))["predictions"]
        assert prediction["card_id"] == [3, 1]


def test_data_frames_and_csv_of_what_is_retrieved() -> None:
    function = ranked_function(retrieval=True)
    codec = function.mlflow_codec()
    split = {"dataframe_split": {"columns": ["amount", "cards"], "data": [[1, [2, 1, 3]], [1, None]]}}
    records = {"dataframe_records": [{"amount": 1, "cards": [1, 3]}, {"amount": 1}]}
    for body in (split, records):
        call = codec.decode(json.dumps(body).encode(), id="r", deadline=NOW + 9)
        assert [p["card_id"] for p in json.loads(codec.encode(reply_of(function, call)))["predictions"]] == [[3, 1]] * 2
    reading = codec.reading(b"text/csv", None)
    call = reading.decode(b"amount\n1\n2\n", id="r", deadline=NOW + 9)
    assert [p["card_id"] for p in json.loads(codec.encode(reply_of(function, call)))["predictions"]] == [[3, 1]] * 2


@pytest.mark.parametrize("value", [["a"], 3, [1.5], "1,2", [[1]], [None], [2**63]])
def test_lists_are_read_strictly(value: Any) -> None:
    for retrieval in (False, True):
        codec = ranked_function(retrieval=retrieval).record_codec(7)
        with pytest.raises(BadRequest) as caught:
            codec.decode(json.dumps({"amount": 1, "cards": value}).encode(), id="r", deadline=NOW)
        assert (caught.value.code, caught.value.field) == ("wrong_type", "cards")


def test_what_needs_candidates_says_so_when_there_are_none() -> None:
    codec = ranked_function().record_codec(7)
    for body, code in ((b'{"amount": 1}', "missing_field"), (b'{"amount": 1, "cards": null}', "wrong_type")):
        with pytest.raises(BadRequest) as caught:
            codec.decode(body, id="r", deadline=NOW)
        assert (caught.value.code, caught.value.field) == (code, "cards")


def test_a_missing_number_and_missing_candidates_go_together() -> None:
    codec = ranked_function(retrieval=True).record_codec(7)
    ((amount, cards),) = codec.decode(b'{"amount": null}', id="r", deadline=NOW).rows
    assert np.isnan(amount)
    assert type(cards) is not list


def test_descriptions_know_lists() -> None:
    made = ranked_manifest(retrieval=True)
    said = describe(made, 1, "ready")
    whole = {"type": "integer", "format": "int64"}
    assert said["request"]["properties"]["cards"] == {"type": "array", "items": whole}
    assert said["request"]["required"] == ["amount"]
    assert said["response"]["properties"]["card_id"] == {"type": "array", "items": whole}
    assert said["examples"] == [{"amount": 1.0, "cards": [1]}]
    paths = openapi([made])["paths"]
    (example,) = paths["/v2/models/fraud/infer"]["post"]["requestBody"]["content"]["application/json"][
        "examples"
    ].values()
    assert example["value"]["inputs"][1] == {"name": "cards", "shape": [1, 1], "datatype": "INT64", "data": [1]}
