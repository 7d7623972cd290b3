"""One feature service for several versions of a model: a stream feature view one takes nothing of is left out of it."""

from pathlib import Path
from typing import Any

import pytest
from feast import types
from tests.feast_repo import source, view
from tests.stream_view import CARD, EXPERIMENTAL, FIELDS, TOPIC, applied, stream_view

from sunup.errors import FeaturesRefused
from sunup.lookup.compile.service import Compiled, changed_since, compile_service
from sunup.lookup.compile.streamed import Scored
from sunup.lookup.plan import digest
from sunup.types import Field

pytestmark = pytest.mark.filterwarnings(EXPERIMENTAL)
REQUEST = [Field("card_id", "int64"), Field("amount", "float64")]
DEFAULTS = {"card_tx_count_1h": 0}
BESIDE = ("at", "transaction_id")  # beside amount, which is a request field


def compiled(repo: Path, takes: list[str] | None, *, service: str = "cards", **change: Any) -> Compiled:
    given: dict[str, Any] = {"defaults": DEFAULTS, "scored": Scored(TOPIC), **change}
    return compile_service(
        repo, service, request=REQUEST, max_age={}, deadline_ms=20.0, on_missing="default", takes=takes, **given
    )


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The service `cards` of a stored view `usual` and a streamed one."""
    folder = tmp_path_factory.mktemp("left")
    usual, streamed = view("usual", [CARD], {"habit": types.Float64}, source=source(folder)), stream_view(folder)
    applied(folder, streamed, usual, service=[usual, streamed])
    return folder


def test_a_version_that_takes_nothing_of_it_has_the_plan_of_before_the_view(repo: Path, tmp_path: Path) -> None:
    usual = view("usual", [CARD], {"habit": types.Float64}, source=source(tmp_path))
    applied(tmp_path, stream_view(tmp_path), usual, service=[usual])
    before, now = compiled(tmp_path, ["amount", "habit"], defaults={}), compiled(repo, ["amount", "habit"])
    assert digest(now.plan) == digest(before.plan)
    assert set(FIELDS) < set(now.left_out)
    assert (before.left_out, before.beside, now.beside) == ((), (), BESIDE)
    assert changed_since(repo, now.plan, REQUEST, Scored(TOPIC), ["habit"]) == ""


def test_a_version_that_takes_one_of_its_columns_has_the_view(repo: Path) -> None:
    everything = compiled(repo, None)
    assert [each.name for each in everything.plan.views] == ["usual", "card_tx"]
    found = compiled(repo, ["sum_amount_86400s"])
    assert (digest(found.plan), found.left_out, found.beside) == (digest(everything.plan), (), BESIDE)
    assert "have changed" in changed_since(repo, found.plan, REQUEST, Scored(TOPIC), ["habit"])


def test_what_stream_aggregate_names_is_aggregated_whatever_the_model_takes(repo: Path) -> None:
    """So the values are there when the first version comes that takes them."""
    found = compiled(repo, ["habit"], scored=Scored(TOPIC, aggregate=("card_tx",)))
    assert [each.aggregated is not None for each in found.plan.views] == [False, True]
    none = compiled(repo, ["habit"], scored=Scored(TOPIC, aggregate=()))
    assert [each.name for each in none.plan.views] == ["usual"]


@pytest.mark.parametrize("scored", [None, Scored("other")])
def test_records_of_other_topics_hold_nothing_beside_the_request(repo: Path, scored: Scored | None) -> None:
    assert compiled(repo, None, scored=scored).beside == ()


def test_settings_of_a_view_that_is_left_out_are_checked_all_the_same(repo: Path) -> None:
    with pytest.raises(FeaturesRefused, match=r"defaults names card_tx_count, .* card_tx_count_1h"):
        compiled(repo, None, defaults={"card_tx_count": 0})
    with pytest.raises(FeaturesRefused, match="defaults names card_tx_count,"):
        compiled(repo, ["habit"], defaults={"card_tx_count": 0})
