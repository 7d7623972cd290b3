"""What the product promises first: a deployed function gives the original model's answers, on the same features."""

import http.client
import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.engine_fixture import Engine
from tests.fraud_fixture import ROOT, Trained
from tests.postgres_fixture import PASSWORD, USER
from tests.service.test_cli import platform

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of importing Feast, MLflow and what they import: theirs
    import mlflow
    import pandas as pd
    import tritonclient.http as triton
    from feast import FeatureStore
    from mlflow.pyfunc.scoring_server.client import ScoringServerClient
    from sklearn.metrics import roc_auc_score
    from tritonclient.utils import np_to_triton_dtype

    from functions.fraud import train
    from functions.fraud.build_features import Data
    from sunup.settings import Project

ROWS = 5000
ROWS_PER_CALL = 50
TRIES = 10  # of a record whose lookup was late: the machine may be busy
REQUEST = ["card_id", "customer_id", "merchant_id", "amount", "hour", "km_from_home"]
THRESHOLD = 0.5  # of function.toml's decision

pytestmark = [
    pytest.mark.timeout(900),  # the first test waits for a whole training
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),  # in MLflow 3.17's own tables
]


class Served:
    """The trained project with an engine, and its features in one kind of online store."""

    def __init__(self, engine: Engine, environment: dict[str, str]) -> None:
        self.engine = engine
        self.environment = environment

    def deploy(self, name: str) -> dict[str, Any]:
        facts: dict[str, Any] = platform(self.engine.project.root, "deploy", name, "--json", **self.environment).json
        return facts

    def scores(self, records: list[dict[str, Any]]) -> tuple[NDArray[np.float64], list[str]]:
        """Scores and decisions, over HTTP. A record whose lookup passed its deadline says so, and is asked again."""
        answers: list[dict[str, Any]] = []
        connection = self.engine.open()
        for at in range(0, len(records), ROWS_PER_CALL):
            answers += self._ask(connection, records[at : at + ROWS_PER_CALL])
        late = list(range(len(answers)))
        for _ in range(TRIES):
            late = [number for number in late if "defaulted" in answers[number]]
            for number in late:
                (answers[number],) = self._ask(connection, [records[number]])
        connection.close()
        return np.array([a["score"] for a in answers]), [a["decision"] for a in answers]

    def _ask(self, connection: http.client.HTTPConnection, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        answer = self.engine.ask("POST", "/functions/fraud", json.dumps(records).encode(), connection)
        assert answer.status == 200, answer
        predictions: list[dict[str, Any]] = answer.json["predictions"]
        return predictions


def setting(store: str, request: pytest.FixtureRequest) -> str:
    """feature_store.yaml for a server of the tests."""
    text = (ROOT / "features" / f"feature_store.{store}.yaml").read_text()
    if store == "redis":
        url: str = request.getfixturevalue("redis_url")
        return text.replace("localhost:6379", url.removeprefix("redis://").removesuffix("/0"))
    port = request.getfixturevalue("postgres").port
    text = text.replace("host: localhost", "host: 127.0.0.1").replace("port: 5432", f"port: {port}")
    return text.replace("user: sunup", f"user: {USER}").replace("password: sunup", f"password: '{PASSWORD}'")


@pytest.fixture(scope="module", params=["sqlite", "redis", "postgres"])
def served(request: pytest.FixtureRequest, trained: Trained, tmp_path_factory: Any) -> Iterator[Served]:
    root = tmp_path_factory.mktemp(request.param) / "p"
    shutil.copytree(trained.project.root, root, ignore=shutil.ignore_patterns("run", "bundles"))
    environment: dict[str, str] = {}
    if request.param != "sqlite":
        file = root / "other.yaml"
        file.write_text(setting(request.param, request))
        environment["FEAST_FS_YAML_FILE_PATH"] = str(file)
        command = [sys.executable, "-m", "functions.fraud.train"]  # trains nothing twice, but fills the new store
        subprocess.run(command, cwd=root, check=True, capture_output=True, env={**os.environ, **environment})
    engine = Engine(root)
    engine.up()
    yield Served(engine, environment)
    platform(root, "down")


@pytest.mark.parametrize("version", ["1", "2", "3"])
def test_served_scores_are_the_models(served: Served, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    project = served.engine.project
    for name, value in served.environment.items():
        monkeypatch.setenv(name, value)
    deployed = served.deploy(f"fraud-v{version}")
    assert deployed["model"] == f"fraud/{version}"
    rows = pd.read_parquet(Data(project).holdout).head(ROWS)
    assert len(rows) == ROWS
    expected = original(project.root, version, rows)
    scores, decisions = served.scores(rows[REQUEST].to_dict("records"))
    largest = float(np.abs(scores - expected).max())
    assert largest <= 1e-5
    assert decisions == ["block" if p > THRESHOLD else "allow" for p in expected]
    truth = rows["is_fraud"]
    auc, offline = roc_auc_score(truth, scores), roc_auc_score(truth, expected)
    assert round(auc, 6) == round(offline, 6)
    print(f"{deployed['model']}: {ROWS} rows, largest difference {largest:.1e}, AUC {auc:.6f} (offline {offline:.6f})")


def test_other_projects_clients_get_the_same_scores(served: Served) -> None:
    served.deploy("fraud-v3")
    rows = pd.read_parquet(Data(served.engine.project).holdout).head(20)[REQUEST]
    scores, decisions = served.scores(rows.to_dict("records"))
    address = f"127.0.0.1:{served.engine.port}"
    with triton.InferenceServerClient(address, connection_timeout=10, network_timeout=10) as client:
        for binary in (False, True):
            given = []
            for name in REQUEST:
                values = rows[name].to_numpy()
                tensor = triton.InferInput(name, [len(rows)], np_to_triton_dtype(values.dtype))
                given.append(tensor.set_data_from_numpy(values, binary_data=binary))
            answer = client.infer("fraud", given)
            assert answer.as_numpy("score").tolist() == scores.tolist()
            assert [decision.decode() for decision in answer.as_numpy("decision")] == decisions
    said = ScoringServerClient("127.0.0.1", f"{served.engine.port}/functions/fraud").invoke(rows)["predictions"]
    assert [(one["score"], one["decision"]) for one in said] == list(zip(scores.tolist(), decisions, strict=True))


def original(root: Path, version: str, rows: "pd.DataFrame") -> NDArray[np.float64]:
    """The registered model's own probabilities, on the features Feast's SDK reads online."""
    store = FeatureStore(repo_path=str(root / "features"))
    table = train.inputs(train.online(store, rows), train.defaults(Project(root)))
    if connection := getattr(store._get_provider().online_store, "_conn", None):
        connection.close()  # Feast itself never does
    mlflow.set_tracking_uri(f"sqlite:///{root / '.sunup' / 'mlflow' / 'mlflow.db'}")
    flavor = mlflow.lightgbm if version == "3" else mlflow.sklearn
    model = flavor.load_model(f"models:/{train.NAME}/{version}")
    probabilities: NDArray[np.float64] = model.predict_proba(table)[:, 1]
    return probabilities
