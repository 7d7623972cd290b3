"""On-demand feature views: what Feast computes of the same rows, here and in Feast; what fails, for whom, and where."""

import asyncio
import hashlib
import logging
import math
import random
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests import on_demand_fixture
from tests.feast_repo import SCALARS
from tests.on_demand_fixture import REQUEST, SEED, SHOPS, USERS, Place, place

from sunup.batch.assemble import log_causes
from sunup.errors import DeadlineExceeded, FeaturesFailed, FeaturesMissing
from sunup.lookup.cache import cached
from sunup.lookup.derive.lookup import DerivedLookup
from sunup.lookup.derive.view import load_makers
from sunup.lookup.plan import VALUE_TYPES
from sunup.lookup.stores.open import open_store

__all__ = ["place"]

CALLS = 120


def rows_of(rng: random.Random, count: int) -> list[tuple[Any, ...]]:
    return [
        (rng.choice(USERS), rng.choice(SHOPS), rng.uniform(-10, 10), rng.choice(["", "x", "käse 😀"]))
        for _ in range(count)
    ]


def plain(value: Any) -> Any:
    """Feast's value as ours: times are whole seconds since the epoch."""
    return round(value.timestamp()) if isinstance(value, datetime) else value


def test_random_rows_get_what_feast_computes(place: Place) -> None:
    """Batch and singleton form, every scalar type, lists, NULL, users that are not stored."""
    rng = random.Random(SEED + 1)
    calls = [rows_of(rng, rng.randrange(1, 5)) for _ in range(CALLS)]
    names = [column.name for column in place.compiled("both").plan.columns]
    assert names == [
        "size", "ratio", "rough", "whole", "flag", "text", "hour", "digest", "seen", "raw", "sorted_list", "words",
    ]  # fmt: skip
    some = {"hour": -1, "seen": -1, "raw": "none", "text": "none"}
    compared = none = 0
    for rows, found in zip(calls, place.ours("both", *calls, defaults=some), strict=True):
        assert not found.failed
        for index, row in enumerate(rows):
            expected = place.theirs("both", [row])  # Feast computes a singleton view of the first row alone
            for name, value in zip(names, found.values[index], strict=True):
                want = plain(expected[name][0])
                if want is None:
                    assert value == {**some, "raw": b"none"}.get(name) or math.isnan(value), name
                    assert name in (found.defaulted or ())[index]
                    none += 1
                else:
                    assert value == want, (name, row)
                    assert type(value) is type(want), name
                    compared += 1
    assert compared > 1500
    assert none > 100


def test_a_batch_is_what_feast_computes_of_it(place: Place) -> None:
    rows = rows_of(random.Random(SEED + 2), 30)
    (found,) = place.ours("seen", rows, defaults={"an_int64": 0})
    expected = place.theirs("seen", rows)
    for index, values in enumerate(found.values):
        ratio = expected["ratio"][index]
        named = (found.defaulted or [()] * 30)[index]
        if "an_int64" not in named:  # Feast's function is given None for it, ours the declared default
            assert math.isnan(values[2]) if ratio is None else values[2] == ratio
        elif "a_double" not in named:
            assert values[2] == rows[index][2] / (1 + abs(values[0]))
        assert ("ratio" in named) == ("an_int64" in named or ratio is None)


def test_historical_values_are_the_served_ones(tmp_path: Path) -> None:
    """Materialised from the same source, a row is the same in training and in serving."""
    import pandas as pd  # of the test alone

    store = on_demand_fixture.applied(tmp_path)
    at = datetime.now(UTC).replace(microsecond=0)
    rng = random.Random(SEED + 3)
    rows: dict[str, Any] = {
        "user_id": USERS,
        "event_timestamp": [at] * len(USERS),
        "a_bytes": [b"x"] * len(USERS),
        "a_string": [rng.choice(["ab", "käse", None]) for _ in USERS],
        "an_int32": USERS,
        "an_int64": [rng.randrange(-9, 9) for _ in USERS],
        "a_double": [rng.choice([1.5, -2.25, 1e9]) for _ in USERS],
        "a_float": [0.5] * len(USERS),
        "a_bool": [True] * len(USERS),
        "a_time": [at] * len(USERS),
    }
    on_demand_fixture.history(tmp_path, rows)
    store.materialize(datetime(2020, 1, 1, tzinfo=UTC), datetime.now(UTC), feature_views=["scalars"])
    asked = [(user, "a", rng.uniform(0, 9), "w") for user in USERS]
    entities = pd.DataFrame(
        {"user_id": USERS, "amount": [r[2] for r in asked], "word": "w", "event_timestamp": datetime.now(UTC)}
    )
    trained = store.get_historical_features(entities, store.get_feature_service("seen")).to_df().sort_values("user_id")
    (found,) = Place(tmp_path, store).ours("seen", asked, defaults={"an_int64": 0})
    assert [row[2] for row in found.values] == trained["ratio"].tolist()
    assert not found.defaulted
    with pytest.raises(TypeError, match="unsupported operand"):  # Feast gives whole columns to what takes one record
        store.get_historical_features(entities, ["scalars:a_double", "squared:square"]).to_df()


def test_the_request_alone_is_enough(place: Place) -> None:
    made = place.compiled("asked")
    assert made.plan.entities == ()
    (one, many) = place.ours("asked", [(1, "", 3.0, "")], [(1, "", float(n), "") for n in range(100)])
    assert one.values == [(9.0,)]
    assert [row[0] for row in many.values] == [float(n) ** 2 for n in range(100)]
    assert place.theirs("asked", [(1, "", 3.0, "")])["square"] == [9.0]


def test_a_record_that_fails_fails_alone_and_only_the_log_says_why(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [(1, "käse", 1.0, ""), (1, "a", 1.0, ""), (1, "nobody", 1.0, "")]  # the mark of shop a is zero
    (found,) = place.ours("shop", rows)
    assert sorted(found.failed) == [1, 2]
    error = found.failed[1]
    assert isinstance(error, FeaturesFailed)
    assert (error.status, error.code) == (500, "features_failed")
    assert "divided failed for this record" in error.message
    assert "Zero" not in error.message
    assert found.values[0] == (3.0,)
    with caplog.at_level(logging.ERROR):
        log_causes(found.failed, "call-9")
    told = [(record.id, str(record.exc_info[1])) for record in caplog.records if record.exc_info]  # type: ignore[attr-defined]
    assert told[0] == ("call-9", "float division by zero") or "division" in told[0][1]
    assert len(told) == 2  # one per reason


def test_a_function_that_does_not_return_holds_up_nobody(place: Place) -> None:
    """Its caller is answered in time, and the event loop turns meanwhile."""
    made = place.compiled("asked")
    go = threading.Event()

    def stuck(_: Any) -> dict[str, Any]:
        go.wait(20)
        return {"square": 0.0}

    async def read() -> None:
        lookup = DerivedLookup(made.plan, open_store("memory:", made.plan), REQUEST, {"view_0": lambda: stuck})
        began = time.monotonic()
        heard: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        lookup.ask([(1, "", 3.0, "")], now=began, wall=0.0, until=began + 0.1, told=heard.set_result)
        assert isinstance(await heard, DeadlineExceeded)
        assert time.monotonic() - began < 5
        assert not lookup.inline
        go.set()
        await lookup.close()

    asyncio.run(read())


def test_a_cache_saves_the_read_and_not_the_code(place: Place) -> None:
    made = place.compiled("shop", cache={"shops": 60.0})
    code = place.folder / "cached.py"
    code.write_text(made.code, "utf-8")
    runs: list[float] = []
    divide = load_makers(code)["view_0"]()

    def counted(inputs: Any) -> Any:
        runs.append(inputs["size"])
        return divide(inputs)

    async def read() -> None:
        store = cached(open_store(made.url, made.plan), made.plan)
        lookup = DerivedLookup(made.plan, store, REQUEST, {"view_0": lambda: counted})
        await lookup.open()
        rows = [(1, "käse", 1.0, "")]
        for _ in range(3):
            found = await lookup.read(rows, now=time.monotonic(), wall=time.time())
            assert found.values == [(3.0,)]
        assert lookup.cache is not None
        assert lookup.cache.recall(lookup._keys(rows)[0]) is not None
        assert lookup.recall(rows, wall=time.time()) is None
        await lookup.close()

    asyncio.run(read())
    assert runs == [3, 3, 3]


def test_reject_means_the_inputs_too(place: Place) -> None:
    rows = [(1, "nobody", 1.0, "")]
    (found,) = place.ours("shop", rows, on_missing="reject")
    assert isinstance(found.failed[0], FeaturesMissing)


def test_a_plan_names_what_a_function_is_given(place: Place) -> None:
    made = place.compiled("shop")
    (view,) = made.plan.on_demand
    assert [(each.names, each.column, each.asked) for each in view.inputs] == [
        (("shop_name",), "shop_name", True),
        (("size", "shops__size"), "shops__size", False),
        (("mark", "shops__mark"), "shops__mark", False),
    ]
    assert made.plan.unseen == ("shops__size", "shops__mark")
    assert [column.name for column in made.plan.columns] == ["per_mark"]
    assert made.plan.code == hashlib.sha256(made.code.encode()).hexdigest()
    assert "on_demand_feature_view" not in made.code
    assert place.compiled("shop").plan == made.plan
    seen = place.compiled("seen").plan
    assert [[f.column for f in view.features] for view in seen.views] == [
        ["a_double", "an_int64", *(f"scalars__{name}" for name in SCALARS if name not in ("a_double", "an_int64"))]
    ]
    assert all(field.dtype in {dtype for _, dtype in VALUE_TYPES.values()} for field in seen.columns)


def test_full_names_reach_functions_and_columns(place: Place) -> None:
    rows = rows_of(random.Random(SEED + 4), 3)
    (short,), (full,) = (
        place.ours("both", rows, defaults=_some()),
        place.ours("both", rows, full_names=True, defaults=_some(full=True)),
    )
    assert list(full.values) == list(short.values) or repr(full.values) == repr(short.values)
    assert place.compiled("both", full_names=True).plan.columns[1].name == "together__ratio"
    service = place.feast.get_feature_service("asked")
    theirs = place.feast.get_online_features(
        features=service, entity_rows=[{"user_id": 1, "amount": 2.0, "word": ""}], full_feature_names=True
    ).to_dict()
    assert not [name for name in theirs if "square" in name]  # Feast has none of it under a full name


def _some(*, full: bool = False) -> dict[str, Any]:
    given: dict[str, Any] = {
        "shops__size": 0, "alone__hour": -1, "alone__seen": -1, "alone__raw": "none", "together__text": "none",
    }  # fmt: skip
    return given if full else {name.partition("__")[2]: value for name, value in given.items()}
