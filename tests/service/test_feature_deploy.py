"""From a Feast repository to answers: a view under two names, composite keys, code of on-demand views; and what of a
changed repository makes another revision."""

import inspect
import json
import math
import subprocess
import sys
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.engine_fixture import until
from tests.feast_repo import SHOP, USER, repository, source, view, write
from tests.service.test_cli import platform
from tests.topics import EmbeddedTopics

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of importing Feast: its own
    from feast import FeatureService, FeatureStore, RequestSource, types
    from feast import Field as FeastField
    from feast.on_demand_feature_view import OnDemandFeatureView
    from feast.protos.feast.types.Value_pb2 import Value

from sunup.settings import Project

pytestmark = pytest.mark.timeout(400)  # a model is trained, a repository applied and an engine started first

FUNCTION = """
[request]
amount = "float64"
buyer_id = "int64"
seller_id = "int64"
user_id = "int64"
shop_name = "string"

[features]
service = "deal"
deadline_ms = 500

[features.defaults]
pairs__bought = 0.0

[stream]
broker = "embedded"
input = "deals"
guarantee = "at-least-once"
"""

RANKING = (
    FUNCTION.partition("[stream]")[0]
    .replace('seller_id = "int64"', 'sellers = "int64[]"')
    .replace("deadline_ms", 'entities = { seller_id = "sellers" }\ndeadline_ms')
)
RANKING += """
[function]
name = "pick"
model = "deal"

[response]
score = "probability:1"

[rank]
by = "score"
top = 3
"""


def per_visit(inputs: dict[str, Any]) -> dict[str, Any]:
    if inputs["bought"] is None:
        return {"per_visit": -1.0}
    return {"per_visit": inputs["amount"] / inputs["bought"]}


def apply(
    folder: Path, *, ttl: timedelta = timedelta(days=1), more: bool = False, called: str = "people"
) -> FeatureStore:
    """The repository as it is after an edit: another ttl, one more feature, a view under another name."""
    store = FeatureStore(repo_path=str(folder))
    empty = source(folder)
    trust = {"trust": types.Float64, **({"age": types.Float64} if more else {})}
    people = view(called, [USER], trust, source=empty, ttl=ttl)
    pairs = view("pairs", [USER, SHOP], {"bought": types.Float64}, source=empty)
    asked = RequestSource(name="asked", schema=[FeastField(name="amount", dtype=types.Float64)])
    schema = [FeastField(name="per_visit", dtype=types.Float64)]
    spent = OnDemandFeatureView(
        name="spent",
        sources=[asked, pairs],
        schema=schema,
        mode="python",
        singleton=True,
        udf=per_visit,
        udf_string=inspect.getsource(per_visit),
    )
    sides = [people.with_name(side).with_join_key_map({"user_id": f"{side}_id"}) for side in ("buyer", "seller")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Feast's own, that such views are an experiment
        services = [FeatureService(name="deal", features=[*sides, pairs, spent])]
        # What the model cannot take: text where it takes a number, and a feature less.
        words = view("words", [USER], {"trust": types.String}, source=empty)
        for name, side in (("words", "seller"), ("less", "vendor")):
            texts = words.with_name(side).with_join_key_map({"user_id": "seller_id"})
            services.append(FeatureService(name=name, features=[sides[0], texts, pairs, spent]))
        store.apply([USER, SHOP, people, words, pairs, spent, *services])
    return store


def fill(store: FeatureStore, name: str = "people") -> None:
    """User n's trust is n / 8; user 1 bought at shop a twice, and at b never."""
    now = datetime.now(UTC)
    for user in range(8):
        write(store, name, [({"user_id": Value(int64_val=user)}, {"trust": Value(double_val=user / 8)}, now)])
    for shop, bought in (("a", 2.0), ("b", 0.0)):
        key = {"shop_name": Value(string_val=shop), "user_id": Value(int64_val=1)}
        write(store, "pairs", [(key, {"bought": Value(double_val=bought)}, now)])


def record(shop: str = "a", **change: Any) -> dict[str, Any]:
    return {"amount": 3.0, "buyer_id": 3, "seller_id": 5, "user_id": 1, "shop_name": shop, **change}


class Place:
    """A project with the repository, the model and a running engine."""

    def __init__(self, root: Path) -> None:
        self.root, self.project = root, Project(root)
        self.features = root / "features"
        self.deployed: dict[str, Any] = {}

    def score(self, body: dict[str, Any], bought: float, per: float) -> Any:
        """What the model says, of the trusts that `fill` wrote."""
        base, *weights = json.loads((self.root / "weights.json").read_text())
        values = [body["amount"], body["buyer_id"] / 8, body["seller_id"] / 8, bought, per]
        total = base + sum(weight * value for weight, value in zip(weights, values, strict=True))
        return pytest.approx(1 / (1 + math.exp(-total)), abs=1e-5)

    def scores(self, body: Any) -> list[float]:
        status, said = self.ask(body)
        assert status == 200, said
        return [each["probability"][1] for each in said["predictions"]]

    def deploy(self, *more: str) -> dict[str, Any]:
        ran = platform(self.root, "deploy", "deal", "--json", *more)
        assert ran.code == 0, ran.err
        self.deployed = ran.json
        return self.deployed

    def ask(self, body: Any, url: str = "") -> tuple[int, Any]:
        request = urllib.request.Request(
            url or self.deployed["url"], json.dumps(body).encode(), {"content-type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as reply:
                return reply.status, json.loads(reply.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    root = tmp_path_factory.mktemp("deal")
    for name, text in (("deal", FUNCTION), ("pick", RANKING)):
        (root / "functions" / name).mkdir(parents=True)
        (root / "functions" / name / "function.toml").write_text(text)
    place = Place(root)
    repository(place.features, "{type: sqlite, path: data/online.db}", project="deal")
    configured = place.features / "feature_store.yaml"
    registry = "{registry_type: file, path: registry.db, enable_online_feature_view_versioning: true}"
    configured.write_text(configured.read_text().replace("registry: registry.db", f"registry: {registry}"))
    fill(apply(place.features))
    register = Path(__file__).parents[1] / "deal_model.py"
    subprocess.run([sys.executable, str(register)], cwd=root, check=True, capture_output=True)
    place.deploy()
    yield place
    platform(root, "down")


def test_one_view_under_two_names_a_pair_and_code(place: Place) -> None:
    assert place.scores(record()) == [place.score(record(), 2, 1.5)]
    rows = [record(buyer_id=n, seller_id=7 - n) for n in range(8)]
    assert place.scores(rows) == [place.score(each, 2, 1.5) for each in rows]


def test_an_absent_pair_is_defaulted_for_the_model_and_the_code(place: Place) -> None:
    status, said = place.ask(record("nowhere"))
    assert (status, said["error"]["code"]) == (500, "features_failed")  # the default, 0.0, is what it divides by
    assert "division" not in json.dumps(said)


def test_failing_code_fails_its_record_alone(place: Place) -> None:
    status, said = place.ask([record("b"), record("a")])
    assert said["predictions"][1]["probability"][1] == place.score(record(), 2, 1.5)
    log = "".join(path.read_text() for path in (place.root / ".sunup").rglob("*.log"))
    assert "on-demand feature view spent failed" in log
    assert "float division by zero" in log
    assert status in (200, 207, 500)


def test_a_topic_gets_what_calls_get(place: Place) -> None:
    topics = EmbeddedTopics(place.project.embedded_log)
    topics.send("deals", [(b"k", json.dumps(record(buyer_id=n)).encode(), []) for n in range(5)])
    topics.send("deals", [(b"k", json.dumps(record("b")).encode(), [])])
    until(
        lambda: len(topics.read("deal-scores")) == 5 and len(topics.read("deal-dead")) == 1,
        "the topic to be scored",
        60,
    )
    scores = sorted(json.loads(r.value or b"")["probability"][1] for r in topics.read("deal-scores"))
    assert scores == sorted(place.scores([record(buyer_id=n) for n in range(5)]))
    (dead,) = topics.read("deal-dead")
    assert dict(dead.headers)["sunup_error_code"] == b"features_failed"


def test_candidates_get_what_records_get(place: Place) -> None:
    """Each candidate is a row: its own key, and a run of the view's code."""
    ran = platform(place.root, "deploy", "pick", "--json")
    assert ran.code == 0, ran.err
    body = {**record(), "sellers": list(range(8))}
    del body["seller_id"]
    status, said = place.ask(body, ran.json["url"])
    assert status == 200, said
    (best,) = said["predictions"]
    one_by_one = sorted(((place.scores(record(seller_id=n))[0], n) for n in range(8)), reverse=True)[:3]
    assert best["seller_id"] == [n for _, n in one_by_one]
    assert best["score"] == pytest.approx([score for score, _ in one_by_one])


def test_changed_features_are_another_revision_and_unchanged_ones_are_not(place: Place) -> None:
    first = place.deploy()
    again = place.deploy()
    assert again["unchanged"]
    assert (again["revision"], again["digest"], again["plan"]) == (first["revision"], first["digest"], first["plan"])
    assert again["seconds"] < 3.0  # the promise is 1 s; a busy test machine gets three times that
    seen = {first["plan"]}
    changes: list[dict[str, Any]] = [{"ttl": timedelta(hours=2)}, {"more": True}, {"called": "folk"}]
    for number, change in enumerate(changes, start=1):
        store = apply(place.features, **change)
        fill(store, str(change.get("called", "people")))
        made = place.deploy()
        assert not made["unchanged"]
        assert made["revision"] == first["revision"] + number
        assert made["model"] == first["model"]
        assert made["plan"] not in seen
        seen.add(made["plan"])
        assert place.scores(record()) == [place.score(record(), 2, 1.5)]
    shown = platform(place.root, "inspect", made["digest"], "--json").json
    assert shown["plan"] == made["plan"]
    assert {"features.json", "features.py"} <= shown["files"].keys()


def test_a_view_with_versions_is_read_where_its_last_one_is(place: Place) -> None:
    store = apply(place.features, called="numbered")
    fill(store, "numbered")
    store = apply(place.features, called="numbered", more=True)
    fill(store, "numbered")
    digest = place.deploy()["digest"]
    plan = json.loads((place.project.bundles / digest / "features.json").read_bytes())
    stored = {view["name"]: view["stored"] for entity in plan["entities"] for view in entity["views"]}
    assert stored == {"buyer": "numbered_v1", "seller": "numbered_v1", "pairs": "pairs"}
    assert place.scores(record()) == [place.score(record(), 2, 1.5)]


def test_a_prepared_bundle_says_that_features_have_changed(place: Place, tmp_path: Path) -> None:
    platform(place.root, "bundle", "deal", "--out", str(tmp_path / "out"))
    ran = platform(place.root, "deploy", str(tmp_path / "out"), "--json")
    assert "features have changed" not in ran.err
    apply(place.features, ttl=timedelta(hours=3), called="folk")
    ran = platform(place.root, "deploy", str(tmp_path / "out"), "--json")
    assert ran.code == 0, ran.err
    assert "features have changed" in ran.err


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('amount = "float64"\n', "", "input amount of on-demand feature view spent is not a request field"),
        ('amount = "float64"', 'amount = "string"', "is DOUBLE in Feast and string in the request"),
        ("pairs__bought", "pairs__buoght", "There is pairs__bought"),
        ('"deal"', '"words"', "gives seller__trust of feature view seller as string, and the model deal takes"),
        ('"deal"', '"less"', "takes `seller__trust`, which [request] and the feature service less"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(place: Place, old: str, new: str, says: str) -> None:
    file = place.root / "functions" / "deal" / "function.toml"
    file.write_text(FUNCTION.replace(old, new))
    try:
        ran = platform(place.root, "deploy", "deal")
        assert ran.code != 0
        assert says in ran.err
    finally:
        file.write_text(FUNCTION)
