"""A function with code of its own and a package from the registry, deployed and called as people do it."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.registry_fixture import packages_or_skip
from tests.service.test_cli import platform

from sunup.settings import Project

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project with the model and the function of examples/handler."""
    packages_or_skip()
    root = tmp_path_factory.mktemp("handler")
    shutil.copytree(EXAMPLES / "handler" / "functions", root / "functions")
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    script = str(EXAMPLES / "handler" / "train.py")
    subprocess.run([sys.executable, script], cwd=root, check=True, capture_output=True, env=environment)
    yield Project(root)
    platform(root, "down")


def test_a_function_with_a_handler_is_deployed_called_and_inspected(project: Project) -> None:
    root = project.root
    deployed = platform(root, "deploy", "reviews", "--json").json
    answered = subprocess.run(shlex.split(deployed["curl"]), capture_output=True, text=True, check=True)
    (prediction,) = json.loads(answered.stdout)["predictions"]
    assert prediction == {"opinion": "good", "words": 3, "sure": pytest.approx(prediction["sure"])}
    angry = json.dumps({"text": "Schröcklich, furchtbar, nie wieder"})
    bad = platform(root, "call", "reviews", angry, "--json").json
    assert bad["predictions"][0]["opinion"] == "bad"
    shown = platform(root, "inspect", deployed["digest"])
    assert "preprocess, postprocess" in shown.out
    assert "lib/text_unidecode/__init__.py" in shown.out
    assert "text-unidecode==1.3" in shown.out
    again = platform(root, "deploy", "reviews", "--json").json
    assert again["unchanged"]
    assert again["seconds"] < 3.0
    # What it prints and raises is in its log; every protocol knows its columns.
    described = platform(root, "call", "reviews", json.dumps([{"text": ""}, {"text": "gut"}]), "--json").json
    assert [one["words"] for one in described["predictions"]] == [0, 1]
