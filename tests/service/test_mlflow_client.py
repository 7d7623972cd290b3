"""MLflow's own client calls a deployed model unchanged, and gets what MLflow's own scoring server answers for it."""

import json
import os
import subprocess
import sys
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
from tests.ports import free_port
from tests.service.test_cli import platform

from sunup.settings import Project

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of importing MLflow and what it imports: theirs
    import mlflow.pyfunc
    from mlflow.pyfunc import scoring_server
    from mlflow.pyfunc.scoring_server.client import ScoringServerClient
    from sklearn.datasets import load_breast_cancer

ROOT = Path(__file__).resolve().parents[2]
ROWS = load_breast_cancer(as_frame=True).data.sample(20, random_state=1)
BODIES = {
    "split": json.dumps({"dataframe_split": ROWS.to_dict(orient="split")}),
    "records": json.dumps({"dataframe_records": ROWS.to_dict(orient="records"), "params": {}}),
    "shuffled": json.dumps({"dataframe_split": ROWS[ROWS.columns[::-1]].assign(more=1).to_dict(orient="split")}),
    "instances": json.dumps({"instances": ROWS.to_dict(orient="records")}),
    "inputs": json.dumps({"inputs": ROWS.to_dict(orient="list")}),
    "csv": ROWS.to_csv(index=False),
    "csv with index": ROWS.to_csv(),
    "two kinds": json.dumps({"instances": [[1]], "inputs": [[1]]}),
    "no kind": json.dumps({"rows": [[1]]}),
    "list": "[[1]]",
    "missing column": json.dumps({"dataframe_split": ROWS.iloc[:, :3].to_dict(orient="split")}),
    "no JSON": "{",
}


class Served(NamedTuple):
    """The model as MLflow loads it, and where Sunup serves it."""

    model: Any
    url: str


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The model of examples/own_model.py, deployed from its registry."""
    root = tmp_path_factory.mktemp("served")
    (root / "functions").mkdir()
    script = str(ROOT / "examples" / "own_model.py")
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    subprocess.run([sys.executable, script], cwd=root, check=True, capture_output=True, env=environment)
    platform(root, "up", "--detach", "--port", str(free_port()), "--metrics-port", str(free_port()))
    url = platform(root, "deploy", "cancer", "--json").json["url"]
    (found,) = Project(root).artifacts.rglob("MLmodel")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's, of its own model
        yield Served(mlflow.pyfunc.load_model(str(found.parent)), url)
    platform(root, "down")


def test_mlflows_own_client(served: Served) -> None:
    place = urlsplit(served.url)
    client = ScoringServerClient(place.hostname, f"{place.port}{place.path}")
    client.ping()
    assert client.get_version()
    expected = served.model.predict(ROWS).tolist()
    answer = client.invoke(ROWS)
    assert answer["predictions"] == expected
    assert answer.get_predictions()[0].tolist() == expected
    assert client.invoke(ROWS, params={"x": 1})["predictions"] == expected
    with pytest.raises(Exception, match="error code 400"):
        client.invoke(ROWS.iloc[:, :3])


@pytest.mark.parametrize("name", BODIES)
def test_the_answer_is_that_of_mlflows_server(served: Served, name: str) -> None:
    kind = "text/csv" if name.startswith("csv") else "application/json"
    status, said = ask(served.url, BODIES[name], kind)
    expected_status, expected = mlflows(served.model, BODIES[name], kind)
    assert status == expected_status
    if status == 200:
        assert said == expected
    else:
        assert (said["error_code"], set(said)) == (expected["error_code"], {"error_code", "message"})


@pytest.mark.parametrize("kind", ["text/plain", "application/json; charset=latin-1", "application/json; format=split"])
def test_other_content_is_refused_as_there(served: Served, kind: str) -> None:
    schema = served.model.metadata.get_input_schema()
    expected = scoring_server.invocations(b"{}", kind, served.model, schema)
    status, text = ask(served.url, "{}", kind)
    assert (status, expected.mimetype) == (expected.status, "text/plain")
    assert isinstance(text, str)


def mlflows(model: Any, body: str, kind: str) -> tuple[int, Any]:
    """Status and decoded body of MLflow's own server, whose handler this is."""
    try:
        answer = scoring_server.invocations(body.encode(), kind, model, model.metadata.get_input_schema())
    except mlflow.exceptions.MlflowException as error:
        return error.get_http_status_code(), json.loads(error.serialize_as_json())
    return answer.status, json.loads(answer.response)


def ask(url: str, body: str, kind: str) -> tuple[int, Any]:
    """Status and body of one call to /invocations; decoded where it is JSON."""
    asked = urllib.request.Request(f"{url}/invocations", body.encode(), {"content-type": kind})
    try:
        with urllib.request.urlopen(asked, timeout=20) as answer:
            status, headers, text = answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as refused:
        with refused:
            status, headers, text = refused.code, refused.headers, refused.read()
    return status, json.loads(text) if headers.get_content_type() == "application/json" else text.decode()
