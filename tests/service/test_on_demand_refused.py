"""On-demand views that are refused when they are deployed: by what Feast knows of them, and by trying them."""

import asyncio
import time
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.feast_repo import USER, repository, source, view

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from feast import FeatureService, FeatureStore, RequestSource, types
    from feast import Field as FeastField
    from feast.aggregation import Aggregation
    from feast.on_demand_feature_view import OnDemandFeatureView
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

from sunup.errors import FeaturesRefused
from sunup.lookup.compile.on_demand.trial import try_on_demand
from sunup.lookup.compile.service import Compiled, compile_service
from sunup.lookup.join import Lookup
from sunup.lookup.plan import dump
from sunup.lookup.stores.open import open_store
from sunup.types import Field

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::DeprecationWarning")
REQUEST = [Field("user_id", "int64"), Field("amount", "float64")]
GOOD = "def f(inputs):\n    return {'made': [each + 1 for each in inputs['amount']]}\n"


class Place:
    """A repository with one stored view, to which on-demand views are added."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.feast = repository(folder, "{type: sqlite, path: online.db}")
        self.stored = view("stored", [USER], {"count": types.Int64}, source=source(folder))

    def apply(self, code: str, *, kind: Any = types.Float64, **more: Any) -> FeatureStore:
        """An on-demand view `made_view` of this code, as Feast has it stored. What runs here is another function, for
        Feast runs it when it is applied, and most of these would fail."""
        asked = RequestSource(name="asked", schema=[FeastField(name="amount", dtype=types.Float64)])
        given: dict[str, Any] = {"mode": "python", "sources": [asked, self.stored], **more}
        keys = [FeastField(name="user_id", dtype=types.Int64)] if "entities" in more else []
        made = OnDemandFeatureView(
            name="made_view",
            schema=[*keys, FeastField(name="made", dtype=kind)],
            udf=lambda _: {"made": _fitting(kind)},
            udf_string=code,
            **given,
        )
        made.infer_features = lambda: None
        service = FeatureService(name="made", features=[made])
        self.feast.apply([USER, self.stored, made, service])
        return self.feast

    def compiled(self, **change: Any) -> Compiled:
        given: dict[str, Any] = {
            "request": REQUEST, "defaults": {}, "max_age": {}, "deadline_ms": 20.0, "on_missing": "default",
        }  # fmt: skip
        return compile_service(self.folder, "made", **{**given, **change})

    def tried(self) -> None:
        made = self.compiled()
        (self.folder / "features.json").write_bytes(dump(made.plan))
        (self.folder / "features.py").write_text(made.code, "utf-8")
        try_on_demand(self.folder)


def _fitting(kind: Any) -> list[Any]:
    return [{types.Float64: 1.0, types.Int64: 1, types.String: "a"}.get(kind)]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_view_that_works_is_taken(place: Place) -> None:
    place.apply(GOOD)
    place.tried()


def refusal(place: Place, **change: Any) -> str:
    with pytest.raises(FeaturesRefused) as refused:
        place.compiled(**change)
    assert "made_view" in refused.value.message
    assert "\n" not in refused.value.message
    return refused.value.message


def test_what_feast_knows_of_it(place: Place) -> None:
    place.apply(GOOD, mode="pandas")
    assert 'has mode="pandas", and workers run mode="python"' in refusal(place)
    place.apply(GOOD.replace("+ 1", "+ STEP"))
    assert "uses STEP, which its stored source does not define" in refusal(place)
    place.apply(GOOD, aggregations=[Aggregation(column="count", function="sum")])
    assert "declares aggregations" in refusal(place)
    place.apply(GOOD, kind=types.Map)
    assert "made of view made_view is MAP" in refusal(place)


def test_what_it_asks_of_the_request(place: Place) -> None:
    place.apply(GOOD)
    said = refusal(place, request=REQUEST[:1])
    assert "input amount of on-demand feature view made_view is not a request field" in said
    assert 'Add amount = "float64" to [request]' in said
    said = refusal(place, request=[REQUEST[0], Field("amount", "string")])
    assert 'is DOUBLE in Feast and string in the request. Write amount = "float64"' in said


BROKEN = {
    "an error": ("return {'made': [1 / 0]}", "ZeroDivisionError: division by zero in `return {'made': [1 / 0]}`"),
    "no column": ("return {'mode': [1.0]}", "it gave no 'made'"),
    "another type": ("return {'made': ['a' for _ in inputs['amount']]}", "made is DOUBLE: 'a' is no number"),
    "no dict": ("return [1.0]", "it returned list, not a dict"),
    "no list": ("return {'made': 1.0}", "it gave 'made' as float, not as a list of 1"),
    "a generator": ("yield {'made': [1.0]}", "it returned generator"),
    "too many": ("return {'made': [1.0, 2.0]}", "not as a list of 1"),
    "others' values": ("return {'made': [sum(inputs['amount']) for _ in inputs['amount']]}", "alone and"),
    "a name it does not get": ("return {'made': inputs['missing']}", "KeyError: 'missing'"),
}


@pytest.mark.parametrize("case", list(BROKEN))
def test_what_it_does_when_it_is_tried(place: Place, case: str) -> None:
    line, says = BROKEN[case]
    place.apply(f"def f(inputs):\n    {line}\n")
    with pytest.raises(FeaturesRefused, match="made_view does not work: ") as refused:
        place.tried()
    assert says in refused.value.message
    assert refused.value.message.endswith("Correct it and run `feast apply`.")


def test_it_is_tried_without_our_environment_or_our_output(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_DEPLOYER", "hush")
    place.apply(GOOD.replace("return", "raise ValueError('a\\nb')\n    return"))
    with pytest.raises(FeaturesRefused, match="does not work: "):
        place.tried()


def test_one_that_is_written_to_the_online_store_is_a_stored_view(place: Place) -> None:
    store = place.apply(GOOD, write_to_online_store=True, entities=[USER])
    made = place.compiled(defaults={"made": -1.0})
    assert (made.code, made.plan.on_demand) == ("", ())
    assert [(v.name, v.stored, [f.column for f in v.features]) for v in made.plan.views] == [
        ("made_view", "made_view", ["made"])
    ]
    table, now = store.get_on_demand_feature_view("made_view"), datetime.now(UTC)
    key = EntityKey(join_keys=["user_id"], entity_values=[Value(int64_val=5)])
    rows = [(key, {"made": Value(double_val=2.5)}, now, None)]
    store._get_provider().online_write_batch(store.config, table, rows, None)
    lookup = Lookup(made.plan, open_store(made.url, made.plan), REQUEST)
    found = asyncio.run(lookup.read([(5, 0.0), (6, 0.0)], now=time.monotonic(), wall=time.time()))
    assert found.values == [(2.5,), (-1.0,)]
    entity_rows = [{"user_id": 5, "amount": 0.0}]
    expected = store.get_online_features(features=["made_view:made"], entity_rows=entity_rows).to_dict()
    assert expected["made"] == [2.5]
