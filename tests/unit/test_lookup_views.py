"""The stored views of a plan: each read once per key, under whatever names; and those that are not stored."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from feast import FeatureService, PushSource, types
from feast import Field as FeastField
from feast.feature_logging import LoggingConfig
from feast.infra.offline_stores.file_source import FileLoggingDestination
from feast.labeling.label_view import LabelView
from feast.stream_feature_view import StreamFeatureView
from tests.feast_repo import USER, repository, source, view

from sunup.errors import FeaturesRefused
from sunup.lookup.compile.service import changed_since, compile_service
from sunup.lookup.plan import ReadPlan
from sunup.types import Field

REQUEST = [Field("user_id", "int64"), Field("buyer_id", "int64")]
# Feast says so of any; the test wants one in order to see it refused.
pytestmark = pytest.mark.filterwarnings("ignore:Stream feature views are experimental features:RuntimeWarning")


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("views")
    store = repository(folder, "{type: sqlite, path: data/online.db}")
    empty = source(folder)
    users = view("users", [USER], {"count": types.Int64, "mean": types.Float64}, source=empty, ttl=timedelta(hours=1))
    clicks = StreamFeatureView(
        name="clicks",
        entities=[USER],
        schema=[FeastField(name="user_id", dtype=types.Int64), FeastField(name="clicks", dtype=types.Int64)],
        source=PushSource(name="pushed", batch_source=empty),
        ttl=timedelta(hours=1),
    )
    labels = LabelView(
        name="labels",
        entities=[USER],
        schema=[
            FeastField(name="user_id", dtype=types.Int64),
            FeastField(name="fraud", dtype=types.Int64),
            FeastField(name="labeler", dtype=types.String),
        ],
        source=PushSource(name="labelled", batch_source=empty),
    )
    off = view("off", [USER], {"old": types.Float64}, source=empty, enabled=False)
    logged = LoggingConfig(destination=FileLoggingDestination(path=str(folder / "log")))
    services = [
        FeatureService(name="two", features=[users[["count"]], users[["mean"]].with_name("people")]),
        FeatureService(name="again", features=[users, users.with_name("people")], logging_config=logged),
        FeatureService(
            name="sides", features=[users.with_name("buyer").with_join_key_map({"user_id": "buyer_id"}), users]
        ),
        FeatureService(name="streamed", features=[clicks]),
        FeatureService(name="labelled", features=[labels]),
        FeatureService(name="off", features=[off]),
    ]
    store.apply([USER, users, clicks, labels, off, *services])
    return folder


def compiled(repo: Path, service: str, **change: Any) -> ReadPlan:
    given: dict[str, Any] = {
        "request": REQUEST, "defaults": {}, "max_age": {}, "deadline_ms": 20.0, "on_missing": "default",
    }  # fmt: skip
    return compile_service(repo, service, **{**given, **change})[0]


def test_a_view_is_read_once_per_key(repo: Path) -> None:
    (view,) = compiled(repo, "two").views
    assert [(f.name, f.column) for f in view.features] == [("count", "count"), ("mean", "mean")]


def test_a_bound_on_the_age_is_of_one_name(repo: Path) -> None:
    plan = compiled(repo, "two", max_age={"people": 60})
    assert [(view.name, view.stored, view.max_age_s) for view in plan.views] == [
        ("users", "users", None), ("people", "users", 60.0),
    ]  # fmt: skip
    assert len(plan.entities) == 1  # still one round trip, of one key


def test_a_feature_under_two_names_is_one_round_trip(repo: Path) -> None:
    plan = compiled(repo, "again")
    assert len(plan.entities) == 1
    assert [f.column for view in plan.views for f in view.features] == [
        "users__count", "users__mean", "people__count", "people__mean",
    ]  # fmt: skip


def test_a_view_under_two_names_with_two_keys(repo: Path) -> None:
    plan = compiled(repo, "sides")
    assert [[(key.name, key.field) for key in entity.join_keys] for entity in plan.entities] == [
        [("user_id", "buyer_id")], [("user_id", "user_id")],
    ]  # fmt: skip
    assert {view.stored for view in plan.views} == {"users"}


@pytest.mark.parametrize(
    ("service", "says"),
    [
        ("streamed", "clicks cannot be aggregated: its PushSource names no topic"),
        ("labelled", "labels is a LabelView, which is not read from the online store"),
        ("off", "off is disabled"),
    ],
)
def test_views_that_are_not_stored_are_refused(repo: Path, service: str, says: str) -> None:
    with pytest.raises(FeaturesRefused, match=says):
        compiled(repo, service)


def test_a_plan_says_of_itself_how_it_was_made(repo: Path) -> None:
    """So whoever has it can tell whether it would be made again."""
    for service in ("two", "again", "sides"):
        full = {"max_age": {"users": 30.0}} if service == "sides" else {"deadline_ms": 7.0}
        plan = compiled(repo, service, **full)
        assert changed_since(repo, plan, REQUEST) == ""
    assert "would be refused now: The join key" in changed_since(repo, plan, REQUEST[:1])
