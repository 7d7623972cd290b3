"""From a Feast repository to a read plan, and every reason for which one is refused."""

import math
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from feast import Entity, FeatureService, FeatureStore, FeatureView, RequestSource, ValueType, types
from feast import Field as FeastField
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.transformation.python_transformation import PythonTransformation
from tests.feast_repo import SHOP, USER, repository, source, view

from sunup.errors import FeaturesRefused
from sunup.lookup.compile.service import compile_service
from sunup.lookup.plan import ReadPlan, digest
from sunup.types import Field

REQUEST = [Field("user_id", "int64"), Field("shop_name", "string"), Field("amount", "float64")]
# Feast says so whenever such a view is applied; the test wants one in order to see it refused.
pytestmark = pytest.mark.filterwarnings(
    "ignore:On demand feature view is an experimental feature. This API is stable, but the functionality does not "
    "scale well for offline retrieval:RuntimeWarning"
)

ANY_STORE = "{type: sqlite, path: data/online.db}"


def doubled(inputs: dict[str, Any]) -> dict[str, Any]:
    return {"twice": [each * 2 for each in inputs["amount"]]}


def applied(folder: Path) -> FeatureStore:
    """Services: stats (two views, two keys), clash (one feature name twice), and ones that must be refused."""
    store = repository(folder, ANY_STORE)
    empty = source(folder)
    users = view("users", [USER], {"count": types.Int64, "mean": types.Float64}, source=empty, ttl=timedelta(hours=1))
    shops = view("shops", [SHOP], {"size": types.Int32, "tags": types.Array(types.String)}, source=empty)
    other = view("other", [SHOP], {"count": types.Int64}, source=empty)
    offline = view("offline", [USER], {"cold": types.Int64}, source=empty, online=False)
    mapped = view("mapped", [USER], {"many": types.Map}, source=empty)
    amount = view("amounts", [USER], {"amount": types.Float64}, source=empty)
    flagged = Entity(name="flag", join_keys=["flag"], value_type=ValueType.BOOL)
    flags = FeatureView(
        name="flags",
        entities=[flagged],
        schema=[FeastField(name="flag", dtype=types.Bool), FeastField(name="up", dtype=types.Int64)],
        source=empty,
    )
    twice = OnDemandFeatureView(
        name="twice_view",
        sources=[RequestSource(name="asked", schema=[FeastField(name="amount", dtype=types.Float64)])],
        schema=[FeastField(name="twice", dtype=types.Float64)],
        feature_transformation=PythonTransformation(udf=doubled, udf_string="doubled"),
        mode="python",
    )
    views = {
        "stats": [users, shops], "clash": [users, other], "cold": [users, offline], "maps": [mapped],
        "amounts": [amount], "flags": [flags], "demand": [users, twice], "plain": [users],
    }  # fmt: skip
    services = [FeatureService(name=name, features=each) for name, each in views.items()]
    store.apply([USER, SHOP, flagged, users, shops, other, offline, mapped, amount, flags, twice, *services])
    return store


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compiled")
    applied(folder)
    return folder


def compiled(repo: Path, service: str = "stats", **change: Any) -> ReadPlan:
    given: dict[str, Any] = {
        "request": REQUEST, "defaults": {}, "max_age": {}, "deadline_ms": 20.0, "on_missing": "default",
    }  # fmt: skip
    return compile_service(repo, service, **{**given, **change})[0]


def test_a_service_becomes_a_plan(repo: Path) -> None:
    defaults = {"count": 0, "mean": 1, "tags": ["none"], "size": -1}
    plan = compiled(repo, defaults=defaults, max_age={"users": 900})
    assert [(c.name, c.dtype, c.shape) for c in plan.columns] == [
        ("count", "int64", ()), ("mean", "float64", ()), ("size", "int32", ()), ("tags", "string[]", (-1,)),
    ]  # fmt: skip
    (users,), (shops,) = (entity.views for entity in plan.entities)
    assert (users.ttl_s, users.max_age_s, users.age_s_max) == (3600.0, 900.0, 900.0)
    assert (shops.ttl_s, shops.max_age_s, shops.age_s_max) == (None, None, math.inf)
    assert [feature.stand_in for feature in users.features] == [0, 1.0]
    assert (plan.deadline_ms, plan.on_missing, plan.project) == (20.0, "default", "dïff")


def test_the_same_repository_elsewhere_gives_the_same_digest(repo: Path, tmp_path: Path) -> None:
    applied(tmp_path / "again")
    assert digest(compiled(repo)) == digest(compiled(tmp_path / "again"))
    assert digest(compiled(repo)) != digest(compiled(repo, deadline_ms=10.0))


def test_colliding_names_are_spelt_in_full_as_feast_does(repo: Path) -> None:
    assert [c.name for c in compiled(repo, "clash").columns] == ["users__count", "users__mean", "other__count"]
    assert [c.name for c in compiled(repo, "plain", full_names=True).columns] == ["users__count", "users__mean"]
    assert compiled(repo, "clash", defaults={"other__count": 3}).entities[1].views[0].features[0].default == 3


def test_nan_is_what_a_float_has_anyway(repo: Path) -> None:
    plan = compiled(repo, defaults={"mean": math.nan})
    assert plan == compiled(repo)
    assert math.isnan(plan.entities[0].views[0].features[1].stand_in)


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "missing service": ("stat", {}, r"no feature service stat .* There is stats"),
    "on-demand view": ("demand", {}, "twice_view is stored as source that is no plain function"),
    "offline view": ("cold", {}, "offline has online=False"),
    "value type": ("maps", {}, "many of view mapped is MAP"),
    "key type": ("flags", {"request": [Field("flag", "bool")]}, "flag of feature view flags is BOOL"),
    "absent key": ("stats", {"request": [Field("user", "int64")]}, r"user_id .* is not a request field. There is user"),
    "key of another type": (
        "plain",
        {"request": [Field("user_id", "string")]},
        r'INT64 in Feast and string in the request. Write user_id = "int64"',
    ),
    "unknown default": ("stats", {"defaults": {"cuont": 0}}, r"names cuont, .* There is count"),
    "unknown max_age": ("stats", {"max_age": {"user": 1.0}}, r"names user, .* There is users"),
    "text for a number": ("stats", {"defaults": {"count": "0"}}, "count is '0', and the feature is int64"),
    "fraction for a whole number": ("stats", {"defaults": {"count": 0.5}}, "int64"),
    "true for a number": ("stats", {"defaults": {"mean": True}}, "float64"),
    "too big": ("stats", {"defaults": {"size": 2**31}}, "int32"),
    "infinite": ("stats", {"defaults": {"mean": math.inf}}, "float64"),
    "scalar for a list": ("stats", {"defaults": {"tags": "a"}}, r"string\[\]"),
    "feature and request field": ("amounts", {}, "amount is both a request field and a feature"),
    "on_missing": ("stats", {"on_missing": "guess"}, "on_missing"),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_what_a_worker_cannot_do_is_refused(repo: Path, case: str) -> None:
    service, change, says = REFUSED[case]
    with pytest.raises(FeaturesRefused, match=says) as refused:
        compiled(repo, service, **change)
    assert "\n" not in refused.value.message
    assert refused.value.message.endswith((".", '".'))


def test_a_folder_without_a_repository_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FeaturesRefused, match=r"no feature_store\.yaml"):
        compiled(tmp_path)
    (tmp_path / "feature_store.yaml").write_text("project: x\nprovider: local\nonline_store: {type: sqlight}\n")
    with pytest.raises(FeaturesRefused, match="cannot be opened"):
        compiled(tmp_path)


def test_a_repository_that_was_never_applied_says_so(tmp_path: Path) -> None:
    repo = configured(tmp_path, ANY_STORE)
    with pytest.raises(FeaturesRefused, match="run `feast apply`"):
        compiled(repo)
    yaml = repo / "feature_store.yaml"
    yaml.write_text(yaml.read_text().replace("r.db", "not/here/r.db"))
    with pytest.raises(FeaturesRefused, match="run `feast apply`"):
        compiled(repo)


def configured(tmp_path: Path, online_store: str) -> Path:
    """A repository by its configuration alone."""
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "feature_store.yaml").write_text(
        f"project: x\nprovider: local\nregistry: r.db\nonline_store: {online_store}\n"
        "entity_key_serialization_version: 3\n"
    )
    return tmp_path


def test_another_key_serialization_is_refused(tmp_path: Path) -> None:
    applied(tmp_path)
    text = (tmp_path / "feature_store.yaml").read_text()
    (tmp_path / "feature_store.yaml").write_text(text.replace("version: 3", "version: 2"))
    with pytest.raises(FeaturesRefused, match=r"version 2|cannot be opened"):
        compiled(tmp_path)


def test_versioned_views_are_read_under_their_stored_name(tmp_path: Path) -> None:
    store = repository(tmp_path, ANY_STORE)
    yaml = tmp_path / "feature_store.yaml"
    yaml.write_text(
        yaml.read_text().replace(
            "registry: registry.db",
            "registry: {registry_type: file, path: registry.db, enable_online_feature_view_versioning: true}",
        )
    )
    store = FeatureStore(repo_path=str(tmp_path))
    empty = source(tmp_path)
    for features in ({"count": types.Int64}, {"count": types.Int64, "mean": types.Float64}):
        users = view("users", [USER], features, source=empty)
        store.apply([USER, users, FeatureService(name="plain", features=[users])])
    (stored,) = compiled(tmp_path, "plain").views
    assert stored.name == "users"
    table = store.get_feature_view("users")
    number = table.current_version_number
    assert stored.stored == (f"users_v{number}" if number else "users")
    assert number
