"""A model made with another scikit-learn: its environment is solved and made, it is converted there and served here."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.registry_fixture import packages_or_skip
from tests.service.test_cli import platform

from sunup.bundle.environment.pins import differing, installed_version
from sunup.bundle.environment.solve import _forget_oldest, environment, wanted
from sunup.errors import ConversionRefused
from sunup.limits import ENVIRONMENTS_MAX
from sunup.settings import Project

OTHER = "1.6.1"
REQUIREMENTS = (f"scikit-learn=={OTHER}", "cloudpickle")
TRAIN = """
import json, sys, mlflow, sklearn
from sklearn.datasets import load_iris
from sklearn.ensemble import GradientBoostingClassifier

table, target = load_iris(as_frame=True, return_X_y=True)
table.columns = ["a", "b", "c", "d"]
model = GradientBoostingClassifier(n_estimators=12, random_state=0).fit(table, target)
mlflow.sklearn.log_model(
    model,
    name="model",
    registered_model_name="iris",
    signature=mlflow.models.infer_signature(table, model.predict(table)),
    input_example=table.head(20),
    pip_requirements=["mlflow", f"scikit-learn=={sklearn.__version__}", "cloudpickle"],
    serialization_format="cloudpickle",
)
rows = table.iloc[::7]
print(json.dumps([sklearn.__version__, rows.to_dict("records"), model.predict_proba(rows).tolist()]))
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An environment variable's worth of empty cache for environments; what uv has downloaded stays where it is."""
    packages_or_skip()
    uv = str(Path(sys.executable).with_name("uv"))
    kept = subprocess.run([uv, "cache", "dir"], check=True, capture_output=True, text=True).stdout.strip()
    given = {"XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache")), "UV_CACHE_DIR": kept}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in given.items():
            patch.setenv(name, value)
        yield given


@pytest.fixture(scope="module")
def python(cache: dict[str, str]) -> Path:
    """The other environment's Python."""
    root = Path(cache["XDG_CACHE_HOME"]) / "sunup" / "environments"
    return environment(REQUIREMENTS, differing(REQUIREMENTS), root)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, python: Path) -> Iterator[tuple[Project, Any]]:
    """A project whose one model was trained over there, and what it answered there."""
    root = tmp_path_factory.mktemp("other")
    project = Project(root)
    project.functions.mkdir()
    store = root / ".sunup" / "mlflow"
    store.mkdir(parents=True)
    given = {"HOME": str(root), "PATH": os.environ["PATH"], "MLFLOW_TRACKING_URI": project.tracking_uri}
    ran = subprocess.run([str(python), "-c", TRAIN], cwd=root, capture_output=True, text=True, check=False, env=given)
    assert ran.returncode == 0, ran.stderr
    yield project, json.loads(ran.stdout.splitlines()[-1])
    platform(root, "down")


@pytest.mark.timeout(600)
def test_a_model_of_another_version_is_converted_where_it_was_made(project: tuple[Project, Any]) -> None:
    place, (version, rows, expected) = project
    assert version == OTHER != installed_version("scikit-learn")
    deployed = platform(place.root, "deploy", "iris", "--json").json
    answer = platform(place.root, "call", "iris", json.dumps(rows), "--json").json
    for given, want in zip(answer["predictions"], expected, strict=True):
        assert given["probability"] == pytest.approx(want, abs=1e-5)
    assert deployed["parity"]["label_differences"] == 0
    assert platform(place.root, "deploy", "iris", "--json").json["unchanged"]


def test_an_environment_is_made_once(cache: dict[str, str], python: Path) -> None:
    root = Path(cache["XDG_CACHE_HOME"]) / "sunup" / "environments"
    before = python.parent.parent.stat().st_ino
    assert environment(REQUIREMENTS, differing(REQUIREMENTS), root) == python
    assert python.parent.parent.stat().st_ino == before
    assert [path.name for path in root.iterdir() if path.name.startswith(".making")] == []


def test_what_cannot_be_solved_is_refused_with_the_reason(cache: dict[str, str]) -> None:
    root = Path(cache["XDG_CACHE_HOME"]) / "sunup" / "environments"
    old = ("scikit-learn==0.19.0",)  # long before this Python
    with pytest.raises(
        ConversionRefused, match=r"made with scikit-learn 0\.19\.0 .*for Python 3\.\d+.*scikit-learn"
    ) as refused:
        environment(old, differing(old), root)
    assert "\n" not in refused.value.message


def test_equal_versions_need_no_environment() -> None:
    here = f"scikit-learn=={installed_version('scikit-learn')}"
    assert differing((here, "mlflow==1.0", "numpy")) == []
    (pin,) = differing((f"scikit_learn=={OTHER}",))
    assert (pin.name, pin.wanted) == ("scikit-learn", OTHER)


def test_the_models_requirements_come_first_and_ours_are_added() -> None:
    lines = wanted(("scikit-learn==1.6.1", "mlflow==2.0", "--index-url x", "xgboost==2.1.0"))
    assert lines[:2] == ["scikit-learn==1.6.1", "xgboost==2.1.0"]
    assert f"onnxruntime=={installed_version('onnxruntime')}" in lines
    assert not {"mlflow==2.0", "scikit-learn", "xgboost-cpu", "--index-url x"} & set(lines)


def test_the_longest_unused_environments_go(tmp_path: Path) -> None:
    for number in range(ENVIRONMENTS_MAX + 2):
        home = tmp_path / f"{number:064x}"
        home.mkdir()
        os.utime(home, (number, number))
    (tmp_path / ".making-left").mkdir()
    _forget_oldest(tmp_path)
    assert sorted(int(home.name, 16) for home in tmp_path.iterdir()) == list(range(2, ENVIRONMENTS_MAX + 2))
