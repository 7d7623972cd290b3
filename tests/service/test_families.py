"""Every family of models, from an MLflow registry to the served answer: MLflow's own, or refused with a reason.

`python -m tests.service.test_families` writes the table in platform/docs/models.md again.
"""

import json
import logging
import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema
from tests.engine_fixture import Engine
from tests.families import CASES, Table, tables
from tests.models import MLFLOW_TYPES, MODULES, fields_of

from sunup.bundle.pack import inspect
from sunup.bundle.packager import Packager
from sunup.bundle.store import Store
from sunup.cli.compose import build
from sunup.errors import ConversionRefused, ParityFailed
from sunup.registry.mlflow import use
from sunup.settings import Project

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of importing MLflow and what it imports: theirs
    import mlflow

PAGE = Path(__file__).resolve().parents[2] / "platform" / "docs" / "models.md"
TABLE = re.compile(r"(<!-- models: .*? -->\n)(.*?)(<!-- end of models -->)", re.DOTALL)
ASKED = 60  # rows asked per model, most of which the proof has not seen
SINGLE = 1e-5  # what float32 libraries and MLflow's answers may be off

pytestmark = [
    pytest.mark.timeout(300),  # the first test waits for all of them
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),  # in MLflow 3.17's own tables
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),  # MLflow's own
]


class Outcome(NamedTuple):
    """What became of a model. `digest` is "" for one that was refused, `reason` for one that was not."""

    digest: str = ""
    reason: str = ""


class Registry:
    """A registry with all the models, and a project that deploys from it."""

    def __init__(self, root: Path) -> None:
        self.engine = Engine(root)
        self.project: Project = self.engine.project
        self.tables = tables()
        self.packager = Packager(root / "packager.log")
        self.packager.start()  # imports its libraries while the models are trained
        logging.getLogger("mlflow").setLevel(logging.ERROR)
        logging.getLogger("mlflow.utils.environment").setLevel(logging.ERROR)
        use(self.project)

    def outcome(self, name: str) -> Outcome:
        """Train, register, build."""
        model, table = CASES[name].model, self.tables[CASES[name].table]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of scikit-learn, about models this small
            if table.targets is None:
                model.fit(table.columns)
            else:
                model.fit(table.columns, table.targets)
            register(registered(name), model, table)
        try:
            facts = build(self.project, name=registered(name), packager=self.packager, on_stage=lambda *_: None)
        except (ConversionRefused, ParityFailed) as error:
            return Outcome(reason=str(error))
        return Outcome(digest=facts["digest"])

    def original(self, name: str, rows: pd.DataFrame) -> Any:
        """What MLflow itself answers."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of libraries, about tables and types
            answers = mlflow.pyfunc.load_model(f"models:/{registered(name)}/1").predict(rows)
        return np.asarray(answers).reshape(len(rows), -1)

    def served(self, name: str, digest: str, rows: pd.DataFrame) -> list[dict[str, Any]]:
        """What the deployed bundle answers over HTTP."""
        function = registered(name)
        self.engine.deploy(function, digest, settings={}, on_event=lambda _: None)
        answer = self.engine.ask("POST", f"/functions/{function}", body_of(rows))
        self.engine.remove(function)
        assert answer.status == 200, answer
        predictions: list[dict[str, Any]] = answer.json["predictions"]
        return predictions

    def close(self) -> None:
        self.packager.close()


def registered(name: str) -> str:
    """The name a model is registered under."""
    return re.sub(r"[^A-Za-z0-9]+", "-", name)


def register(name: str, model: Any, table: Table) -> None:
    """Log a fitted model with the flavour of its library, a signature and a few rows."""
    flavor = type(model).__module__.split(".")[0]
    flavor = flavor if flavor in MODULES else "sklearn"
    columns = [ColSpec(MLFLOW_TYPES.get(f.dtype, f.dtype), f.name) for f in fields_of(table.columns)]
    pickled = {"serialization_format": "cloudpickle"} if flavor in ("sklearn", "lightgbm") else {}
    MODULES[flavor].log_model(
        model,
        name="model",
        registered_model_name=name,
        signature=ModelSignature(Schema(columns)),
        input_example=table.columns.iloc[::8],
        pip_requirements=["mlflow"],
        **pickled,
    )


def rows_of(table: Table) -> pd.DataFrame:
    """The rows to ask."""
    chosen = np.linspace(0, len(table.columns) - 1, ASKED).astype(int)
    return table.columns.iloc[chosen].reset_index(drop=True)


def body_of(rows: pd.DataFrame) -> bytes:
    """Records as a caller writes them; what is missing is null."""
    records = [{k: None if pd.isna(v) else v for k, v in row.items()} for row in rows.to_dict("records")]
    return json.dumps(records).encode()


def check(served: list[dict[str, Any]], original: Any) -> None:
    """Fail unless what was served is what MLflow answers."""
    if "label" in served[0]:
        assert [answer["label"] for answer in served] == original[:, 0].tolist()
    else:
        given = np.array([answer["prediction"] for answer in served])
        np.testing.assert_allclose(given, original[:, 0].astype(np.float64), rtol=SINGLE, atol=SINGLE)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    registry = Registry(tmp_path_factory.mktemp("families") / "p")
    registry.engine.up()
    yield registry
    registry.engine.down()
    registry.close()


@pytest.fixture(scope="module")
def outcomes(registry: Registry) -> Mapping[str, Outcome]:
    return {name: registry.outcome(name) for name in CASES}


def test_there_are_enough_models(outcomes: Mapping[str, Outcome]) -> None:
    served = [name for name, outcome in outcomes.items() if outcome.digest]
    assert len([name for name in served if not re.match("LGBM|XGB|CatBoost", name)]) >= 40
    assert {name[:4] for name in served} >= {"LGBM", "XGBC", "XGBR", "CatB"}


@pytest.mark.parametrize("name", CASES)
def test_the_served_answer_is_mlflows(registry: Registry, outcomes: Mapping[str, Outcome], name: str) -> None:
    if outcomes[name].reason:
        assert "failed unexpectedly" not in outcomes[name].reason
        return
    rows = rows_of(registry.tables[CASES[name].table])
    check(registry.served(name, outcomes[name].digest, rows), registry.original(name, rows))


def test_another_process_makes_the_same_bundles(registry: Registry, outcomes: Mapping[str, Outcome]) -> None:
    names = [
        "XGBClassifier, categories",
        "CatBoostClassifier",
        "OneHotEncoder",
        "TfidfVectorizer",
        "IsolationForest",
        "SVR",
    ]
    other = Packager(registry.project.root / "other.log")
    try:
        for name in names:
            Store(registry.project.bundles).remove(outcomes[name].digest)
            facts = build(registry.project, name=registered(name), packager=other, on_stage=lambda *_: None)
            assert (facts["unchanged"], facts["digest"]) == (False, outcomes[name].digest)
    finally:
        other.close()


def test_the_table_in_the_docs_is_current(registry: Registry, outcomes: Mapping[str, Outcome]) -> None:
    found = TABLE.search(PAGE.read_text("utf-8"))
    assert found is not None
    assert found[2] == page_table(registry, outcomes), "write it again: python -m tests.service.test_families"


def page_table(registry: Registry, outcomes: Mapping[str, Outcome]) -> str:
    """The table of models.md: nothing in it depends on the machine."""
    store = Store(registry.project.bundles)
    lines = ["| model | columns | served as | the original refuses |", "| --- | --- | --- | --- |"]
    for name, outcome in outcomes.items():
        if outcome.digest:
            facts = inspect(store.open(outcome.digest))
            outputs = ", ".join(f"`{output['name']}`" for output in facts["manifest"]["outputs"])
            refused = ", ".join(facts["parity"]["refused"]) or "nothing"
            lines.append(f"| {name} | {registry.tables[CASES[name].table].about} | {outputs} | {refused} |")
    lines += ["", "| refused | columns | the reason it prints |", "| --- | --- | --- |"]
    for name, outcome in outcomes.items():
        if outcome.reason:
            lines.append(f"| {name} | {registry.tables[CASES[name].table].about} | {shown(outcome.reason)} |")
    return "\n".join(lines) + "\n"


def shown(reason: str) -> str:
    """A reason up to the row that shows it, whose numbers may differ between machines."""
    text = re.sub(r"on \d+ of \d+ rows(, asked \d+ at a time)?", "on some rows", reason)
    return re.split(r" \(largest difference|\. At row", text)[0].replace("|", "/").rstrip(".") + "."


def write() -> None:
    """Write the table into models.md."""
    with tempfile.TemporaryDirectory() as folder:
        registry = Registry(Path(folder) / "p")
        table = page_table(registry, {name: registry.outcome(name) for name in CASES})
        registry.close()
    text = PAGE.read_text("utf-8")
    PAGE.write_text(TABLE.sub(lambda found: found[1] + table + found[3], text), "utf-8")


if __name__ == "__main__":
    write()
