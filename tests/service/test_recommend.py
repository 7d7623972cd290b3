"""The function recommend: registry to answers, equal to the registered models' on the features Feast reads."""

import json
import shutil
import statistics
import time
import warnings
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.engine_fixture import Engine, until
from tests.fraud_fixture import ROOT
from tests.recommend_fixture import Recommending, training
from tests.service.test_cli import platform
from tests.topics import EmbeddedTopics, sources

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of importing Feast, MLflow, the clients and what they import: theirs
    import mlflow.lightgbm
    import mlflow.pyfunc
    import pandas as pd
    import tritonclient.http as triton  # type: ignore[import-untyped, unused-ignore]
    from feast import FeatureStore
    from mlflow.pyfunc.scoring_server.client import ScoringServerClient
    from tritonclient.utils import InferenceServerException  # type: ignore[import-untyped, unused-ignore]

    from functions.recommend import train
    from functions.recommend.build_features import Data
    from functions.recommend.history import VIEWS
    from functions.recommend.simulate import FIRST_ITEM, ITEMS
    from sunup.settings import Project

TOP, USERS = 10, 30
CALLS = 200  # that p50 is of

pytestmark = [
    pytest.mark.timeout(900),  # the first test waits for a whole training
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),  # in MLflow 3.17's own tables
]


class Served:
    """The trained project with an engine, its features in one kind of online store, and recommend deployed."""

    def __init__(self, engine: Engine, kind: str, environment: dict[str, str], deployed: dict[str, Any]) -> None:
        self.engine, self.kind, self.environment, self.deployed = engine, kind, environment, deployed

    def ask(self, body: Any, connection: Any = None) -> Any:
        answer = self.engine.ask("POST", "/functions/recommend", json.dumps(body).encode(), connection)
        assert answer.status == 200, answer
        return answer.json["predictions"]

    def refused(self, body: Any) -> dict[str, Any]:
        answer = self.engine.ask("POST", "/functions/recommend", json.dumps(body).encode())
        assert answer.status == 400, answer
        return dict(answer.json["error"])


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def served(request: Any, recommending: Recommending, tmp_path_factory: Any, redis_url: str) -> Iterator[Served]:
    root = tmp_path_factory.mktemp(request.param) / "p"
    shutil.copytree(recommending.project.root, root, ignore=shutil.ignore_patterns("run", "bundles"))
    declared = root / "functions" / "recommend" / "function.toml"
    # Equality is what is looked for here: no feature may be defaulted because the machine is busy.
    declared.write_text(declared.read_text().replace("deadline_ms = 20", "deadline_ms = 500"))
    environment: dict[str, str] = {"KAFKA_BOOTSTRAP": ""}
    if request.param == "redis":
        setting = root / "redis.yaml"
        text = (ROOT / "features" / "feature_store.redis.yaml").read_text()
        setting.write_text(text.replace("localhost:6379", redis_url.removeprefix("redis://").removesuffix("/0")))
        environment["FEAST_FS_YAML_FILE_PATH"] = str(setting)
        training(root, **environment)  # trains nothing twice, but fills the new store
    engine = Engine(root)
    engine.up()
    yield Served(
        engine, request.param, environment, platform(root, "deploy", "recommend", "--json", **environment).json
    )
    platform(root, "down")


class Originals:
    """Both registered models, asked through MLflow, on the features Feast's SDK reads online."""

    def __init__(self, root: Path) -> None:
        mlflow.set_tracking_uri(f"sqlite:///{root / '.sunup' / 'mlflow' / 'mlflow.db'}")
        self._retrieval: Any = mlflow.pyfunc.load_model(f"models:/{train.RETRIEVAL}/1")
        self._ranker: Any = mlflow.pyfunc.load_model(f"models:/{train.NAME}/1")
        self._store = FeatureStore(repo_path=str(root / "features"))
        self._missing = train.defaults(Project(root))

    def named(self, users: list[int]) -> list[list[int]]:
        """The candidates the retrieval names."""
        given: NDArray[np.int64] = self._retrieval.predict(pd.DataFrame({"user_id": users})).to_numpy()
        named: list[list[int]] = given.reshape(len(users), -1).tolist()
        return named

    def ranked(self, user: int, items: list[int]) -> tuple[list[int], list[float]]:
        """The best of `items`, and their scores."""
        known = {}
        for view, ids in (("user_stats", [user]), ("item_stats", items)):
            keys = [{train.KEYS[view]: one} for one in ids]
            names = [f"{view}:{feature}" for feature in VIEWS[view]]
            known[view] = self._store.get_online_features(features=names, entity_rows=keys).to_df()
            known[view] = known[view].set_index(train.KEYS[view])[VIEWS[view]]
        pairs = pd.DataFrame({"user_id": user, "item_id": items})
        scores = np.asarray(self._ranker.predict(train.inputs(pairs, known, self._missing)))
        order = np.argsort(-scores, kind="stable")[:TOP]
        return [items[place] for place in order], scores[order].tolist()


@pytest.fixture(scope="module")
def originals(served: Served) -> Iterator[Originals]:
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's, of its own models
        for name, value in served.environment.items():
            patch.setenv(name, value)
        yield Originals(served.engine.project.root)


def sample(served: Served) -> list[tuple[int, list[int]]]:
    """Users of the hold-out week, each with 500 items in any order, some of them unknown."""
    rng = np.random.default_rng(5)
    users = pd.read_parquet(Data(served.engine.project).holdout)["user_id"].unique()[: USERS - 1].tolist()
    items = [(FIRST_ITEM + rng.permutation(ITEMS + 100)[:500]).tolist() for _ in range(USERS)]
    return list(zip([*users, 10**9], items, strict=True))


def check(prediction: dict[str, Any], items: list[int], scores: list[float]) -> None:
    assert prediction["item_id"] == items
    np.testing.assert_allclose(prediction["score"], scores, atol=1e-5)


# --- The answers are the models' --------------------------------------------------------------------------------------


def test_training_finds_more_than_popularity(recommending: Recommending) -> None:
    found = recommending.metrics
    print(found)
    assert found["recall_200"] > found["recall_200_popular"] + 0.05
    assert found["ndcg_10"] > 1.5 * found["ndcg_10_popular"]
    assert found["ndcg_10"] > found["ndcg_10_retrieved"] - 0.005


def test_500_candidates_are_ranked_as_the_model_does(served: Served, originals: Originals) -> None:
    records = sample(served)
    predictions = served.ask([{"user_id": user, "candidates": items} for user, items in records])
    for prediction, (user, items) in zip(predictions, records, strict=True):
        check(prediction, *originals.ranked(user, items))
    assert predictions[-1]["defaulted"][: len(VIEWS["user_stats"])] == VIEWS["user_stats"]


def test_without_candidates_the_retrieval_names_them(served: Served, originals: Originals) -> None:
    users = [user for user, _ in sample(served)] + [-1]
    named = originals.named(users)
    assert named[-1] == named[-2], "nobody knows either of them: they get what is popular"
    records = [{"user_id": user} if user % 2 else {"user_id": user, "candidates": []} for user in users]
    for prediction, user, items in zip(served.ask(records), users, named, strict=True):
        check(prediction, *originals.ranked(user, items))
    assert served.ask({"user_id": users[0], "candidates": None}) == served.ask({"user_id": users[0]})


def test_what_is_refused_says_why(served: Served) -> None:
    assert served.refused({"candidates": [1]})["code"] == "missing_field"
    assert served.refused({"user_id": 1, "candidates": ["a"]})["code"] == "wrong_type"
    assert "500" in served.refused({"user_id": 1, "candidates": list(range(501))})["message"]
    many = [{"user_id": 1, "candidates": list(range(500))}] * 101
    assert served.refused(many)["code"] == "too_many_candidates"
    mixed = served.ask([{"user_id": 1, "candidates": list(range(501))}, {"user_id": 1, "candidates": [FIRST_ITEM]}])
    assert mixed[0]["error"]["code"] == "too_many_candidates"
    assert mixed[1]["item_id"] == [FIRST_ITEM]


def test_both_proofs_are_shown_and_the_same_inputs_are_the_same_bundle(served: Served) -> None:
    project, digest = served.engine.project, served.deployed["digest"]
    root = project.root
    facts = platform(root, "inspect", digest, "--json").json
    assert facts["manifest"]["rank"]["retrieval"]["model"]["name"] == train.RETRIEVAL
    assert {"retrieve.onnx", "retrieve.npz", "retrieve.json"} <= set(facts["files"])
    assert min(facts["parity"]["rows"], facts["retrieval"]["rows"]) > 500
    assert f"{train.RETRIEVAL}/1 (onnx" in platform(root, "inspect", digest).out
    again = platform(root, "deploy", "recommend@latest", "--json", **served.environment).json
    assert (again["digest"], again["unchanged"]) == (digest, True)
    shutil.rmtree(project.bundles / ".index")  # what was made of which inputs: it is made once more
    built = platform(root, "bundle", "recommend", "--json", **served.environment).json
    assert (built["digest"], built["unchanged"]) == (digest, False)


def test_a_retrieval_that_is_not_there_is_named(served: Served) -> None:
    path = served.engine.project.functions / "recommend" / "function.toml"
    text = path.read_text()
    try:
        path.write_text(text.replace('"recommend-retrieval"', '"recommend-retrieval-v9"'))
        ran = platform(served.engine.project.root, "deploy", "recommend", **served.environment)
        assert ran.code == 2
        assert "recommend-retrieval has no version 9" in ran.err
    finally:
        path.write_text(text)


# --- Other protocols, by other projects' clients ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[Any]:
    url = f"127.0.0.1:{served.engine.port}"
    with triton.InferenceServerClient(url, connection_timeout=20, network_timeout=20) as client:
        yield client


def tensors(binary: bool, **inputs: list[Any]) -> list[Any]:
    made = []
    for name, values in inputs.items():
        array = np.array(values, np.int64)
        made.append(triton.InferInput(name, list(array.shape), "INT64").set_data_from_numpy(array, binary_data=binary))
    return made


@pytest.mark.parametrize("binary", [False, True])
def test_triton_ranks(served: Served, client: Any, binary: bool) -> None:
    records = sample(served)[:5]
    expected = served.ask([{"user_id": user, "candidates": items} for user, items in records])
    wanted = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("item_id", "score")]
    users, items = [user for user, _ in records], [items for _, items in records]
    given = client.infer("recommend", tensors(binary, user_id=users, candidates=items), outputs=wanted)
    assert given.as_numpy("item_id").tolist() == [p["item_id"] for p in expected]
    np.testing.assert_allclose(given.as_numpy("score"), [p["score"] for p in expected])
    retrieved = client.infer("recommend", tensors(binary, user_id=users), outputs=wanted)
    assert retrieved.as_numpy("item_id").tolist() == [p["item_id"] for p in served.ask([{"user_id": u} for u in users])]
    assert client.get_model_metadata("recommend")["outputs"][0]["shape"] == [-1, -1]
    with pytest.raises(InferenceServerException, match="candidates"):
        client.infer("recommend", tensors(binary, user_id=[1], candidates=[list(range(501))]))


def test_mlflows_own_client_ranks(served: Served) -> None:
    place = urlsplit(served.deployed["url"])
    client = ScoringServerClient(place.hostname, f"{place.port}{place.path}")
    records = sample(served)[:4]
    frame = pd.DataFrame({"user_id": [user for user, _ in records], "candidates": [items for _, items in records]})
    expected = [
        {"item_id": p["item_id"], "score": p["score"]} for p in served.ask(json.loads(frame.to_json(orient="records")))
    ]
    assert client.invoke(frame)["predictions"] == expected
    users = frame[["user_id"]]
    assert [p["item_id"] for p in client.invoke(users)["predictions"]] == [
        p["item_id"] for p in served.ask(json.loads(users.to_json(orient="records")))
    ]


def test_kserve_ranks(served: Served) -> None:
    user, items = sample(served)[0]
    (expected,) = served.ask([{"user_id": user, "candidates": items}])
    body = json.dumps({"instances": [{"user_id": user, "candidates": items}]}).encode()
    answer = served.engine.ask("POST", "/v1/models/recommend:predict", body)
    assert answer.json["predictions"] == [{name: expected[name] for name in ("item_id", "score")}]


# --- A topic, and how long it takes -----------------------------------------------------------------------------------


def test_a_topic_gets_the_lists_that_calls_get(served: Served) -> None:
    topics = EmbeddedTopics(served.engine.project.embedded_log)
    records = [{"user_id": user, "candidates": items} for user, items in sample(served)]
    records += [{"user_id": record["user_id"]} for record in records]
    bad = [b'{"user_id": 1, "candidates": [%s1]}' % (b"1," * 500), b"{"]
    values = [json.dumps(record).encode() for record in records] + bad
    topics.send("visits", [(b"key", value, []) for value in values])

    def read() -> int:
        stream = served.engine.status("recommend")["functions"][0]["stream"]
        return int(stream["scored"] + stream["dead"])

    until(lambda: read() == len(values), "every record to be read", 60)
    sent = {f"{r.topic}-{r.partition}-{r.offset}": r.value for r in topics.read("visits")}
    outputs = topics.read("recommendations")
    given = {sent[id]: json.loads(r.value or b"") for id, r in zip(sources(outputs), outputs, strict=True)}
    assert len(outputs) == len(records)
    for record, expected in zip(records, served.ask(records), strict=True):
        assert given[json.dumps(record).encode()] == expected
    codes = [dict(r.headers)["sunup_error_code"] for r in topics.read("recommend-dead")]
    assert sorted(codes) == [b"invalid_json", b"too_many_candidates"]


def test_how_long_500_candidates_take(served: Served) -> None:
    bodies = [{"user_id": user, "candidates": items} for user, items in sample(served)]
    took = []
    with closing(served.engine.open()) as connection:
        for number in range(CALLS):
            began = time.perf_counter()
            served.ask(bodies[number % len(bodies)], connection)
            took.append(time.perf_counter() - began)
    p50 = statistics.median(took)
    print(f"{served.kind}: 500 candidates, p50 {1000 * p50:.1f} ms")
    assert p50 < 0.5  # the bench measures it properly
