"""[cache], and `cache` of [features]: what function.toml may say, and what a person is told otherwise."""

import re
from pathlib import Path
from typing import Any

import pytest
from tests.unit.test_lookup_compile import compiled, pytestmark, repo

from sunup.bundle.declare.file import parse
from sunup.bundle.declare.fit import fit
from sunup.bundle.declare.spec import FeatureSpec, Spec
from sunup.bundle.declare.write import write
from sunup.errors import FeaturesRefused, UsageError
from sunup.lookup.plan import digest, dump, load
from sunup.types import CacheSpec, Field, ImageSpec

__all__ = ["pytestmark", "repo"]

DECLARED = """
[request]
card_id = "int64"
amount = "float64"

[features]
service = "fraud"
cache = { merchant_stats = "2s", card_stats = "1m" }

[cache]
identical = "5s"
similar = { ttl = "500ms", round = { amount = 0.5, "mean radius" = 2 } }
"""
COLUMNS = (Field("amount", "float64"), Field("mean radius", "float64"), Field("town", "string"))
FEATURES = (Field("mean radius", "float64"), Field("town", "string"))


def declared(text: str) -> Spec:
    return parse(text, source="f.toml", name="fraud")


def test_times_and_steps_are_read_and_written_again() -> None:
    spec = declared(DECLARED)
    assert spec.cache == CacheSpec(5.0, 0.5, {"amount": 0.5, "mean radius": 2.0})
    assert spec.features is not None
    assert spec.features.cache_s == {"merchant_stats": 2.0, "card_stats": 60.0}
    assert declared(write(spec)) == spec
    assert fit(spec, COLUMNS, FEATURES) == spec


def test_nothing_is_kept_that_nobody_asked_for() -> None:
    spec = declared('[features]\nservice = "fraud"\n')
    assert spec.features is not None
    assert (spec.cache, spec.features.cache_s) == (None, {})
    only = declared('[cache]\nsimilar = { ttl = "1s", round = { amount = 1 } }\n').cache
    assert only is not None
    assert only.names == ("similar",)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[cache]\n", ["line 1", "[cache] keeps nothing", 'identical = "5s"']),
        ("[cache]\nidentical = '0s'\n", ["line 2", "[cache] identical must be more than 0"]),
        ("[cache]\nidentcal = '5s'\n", ["line 2", "unknown key `identcal` in [cache]. Did you mean `identical`?"]),
        ("[cache]\nsimilar = { ttl = '5s' }\n", ["line 2", "[cache] similar", "round"]),
        ("[cache]\nsimilar = { ttl = '5s', round = {} }\n", ["line 2", "[cache] similar"]),
        ("[cache]\nsimilar = { ttl = '5', round = { a = 1 } }\n", ["line 2", "[cache] similar: '5' is not a duration"]),
        ("[cache]\nsimilar = { ttl = '5s', round = { a = 0 } }\n", ["line 2", "[cache] similar", "> 0"]),
        ("[cache]\nsimilar = { tll = '5s', round = { a = 1 } }\n", ["line 2", "[cache] similar", "tll"]),
        ("[features]\nservice = 'f'\ncache = { v = 'x' }\n", ["line 3", "[features] cache: 'x' is not a duration"]),
    ],
)
def test_what_is_wrong_is_named_with_its_line(text: str, parts: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        declared(text)
    for part in ("f.toml", *parts):
        assert part in caught.value.message


def unfit(spec: Spec, *hooks: str) -> str:
    with pytest.raises(UsageError) as caught:
        fit(spec, COLUMNS, FEATURES, hooks)
    assert "\n" not in caught.value.message
    return caught.value.message


def spec_of(**more: Any) -> Spec:
    request = (Field("card_id", "int64"), Field("amount", "float64"))
    return Spec(**{"name": "f", "model": "m", "request": request, "features": FeatureSpec("fraud"), **more})


def rounding(*names: str) -> CacheSpec:
    return CacheSpec(similar_s=1.0, round=dict.fromkeys(names, 1.0))


def test_what_is_rounded_must_be_a_number_the_model_takes() -> None:
    message = unfit(spec_of(cache=rounding("amuont")))
    assert "`amuont`" in message
    assert "Did you mean `amount`?" in message
    assert "There are: amount, mean radius." in message
    assert "`card_id`" in unfit(spec_of(cache=rounding("card_id")))  # an entity key: it never reaches the model
    assert "`town`" in unfit(spec_of(cache=rounding("amount", "town")))


def test_a_handler_may_look_at_what_the_model_does_not_take() -> None:
    spec = spec_of(cache=rounding("card_id"))
    assert fit(spec, COLUMNS, FEATURES, ("preprocess",)) == spec


def test_images_with_features_have_no_cache() -> None:
    request = (Field("photo", "bytes"), Field("card_id", "int64"))
    spec = spec_of(request=request, image=ImageSpec("photo", (8, 8)), cache=CacheSpec(identical_s=1.0))
    columns = (Field("photo", "uint8", (8, 8, 3)), Field("mean radius", "float64"))
    with pytest.raises(UsageError, match="images and looks features up"):
        fit(spec, columns, FEATURES)


# --- In the read plan ------------------------------------------------------------------------------------------------


def test_a_cache_time_goes_into_the_plan(repo: Path) -> None:
    plan = compiled(repo, cache={"users": 2.0})
    assert [view.cache_s for view in plan.views] == [2.0, None]
    assert load(dump(plan)) == plan
    assert digest(plan) != digest(compiled(repo))


def test_a_plan_from_before_there_were_caches_is_read(repo: Path) -> None:
    plan = compiled(repo)
    older = re.sub(rb',\s*"cache_s": null|"cache_s": null,\s*', b"", dump(plan))
    assert b"cache_s" not in older
    assert load(older) == plan


def test_a_cache_time_must_be_of_a_view_and_within_its_ttl(repo: Path) -> None:
    with pytest.raises(FeaturesRefused, match=r"cache names user, which is not a view .* There is users"):
        compiled(repo, cache={"user": 2.0})
    assert compiled(repo, cache={"users": 3600.0})
    with pytest.raises(FeaturesRefused, match="keeps users for 3601 s; its values are stale after 3600 s"):
        compiled(repo, cache={"users": 3601.0})
    with pytest.raises(FeaturesRefused, match="stale after 60 s"):
        compiled(repo, cache={"users": 61.0}, max_age={"users": 60.0})
