"""skops files: read without pickle, and no type that nobody here trusts is made."""

import logging
from pathlib import Path
from typing import Any

import mlflow
import msgspec
import pytest
from mlflow.models.signature import ModelSignature
from mlflow.types import ColSpec, Schema
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from tests.models import convert, table

from sunup.bundle.convert.task import run
from sunup.bundle.declare.file import parse
from sunup.bundle.declare.write import write
from sunup.bundle.job import Job
from sunup.errors import ConversionRefused
from sunup.types import Field

# MLflow warns about its own type hints when it is imported.
pytestmark = pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning")

FRAME, LABELS = table(columns=3, classes=2)


class Marker:
    """A type of one's own that a model carries along."""


def marked(folder: Path) -> Job:
    """A logged model that names Marker and says in its own MLmodel file that it may."""
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    model: Any = LogisticRegression().fit(FRAME, LABELS)
    model.marker_ = Marker()
    columns = [ColSpec("double", name) for name in FRAME.columns]
    mlflow.sklearn.save_model(
        model,
        str(folder / "model"),
        signature=ModelSignature(Schema(columns)),
        input_example=FRAME.head(5),
        pip_requirements=["mlflow"],
        serialization_format="skops",
        skops_trusted_types=[f"{__name__}.Marker"],
    )
    (folder / "out").mkdir()
    fields = tuple(Field(name, "float64") for name in FRAME.columns)
    return Job(str(folder / "model"), "sklearn", fields, (), 1e-5, str(folder / "out"))


def test_types_of_the_libraries_are_read_and_shown(tmp_path: Path) -> None:
    _, proof = convert(RandomForestClassifier(3).fit(FRAME, LABELS), FRAME, tmp_path)
    assert proof["types"] == ["sklearn.tree._tree.Tree"]


def test_a_type_the_model_alone_trusts_is_refused_by_name(tmp_path: Path) -> None:
    task = marked(tmp_path)
    with pytest.raises(ConversionRefused, match=rf'{__name__}\.Marker.*trusted = \["{__name__}\.Marker"\]'):
        run(task, lambda *_: None)


def test_a_type_the_deployer_trusts_is_read(tmp_path: Path) -> None:
    stages: list[str] = []
    run(msgspec.structs.replace(marked(tmp_path), trusted=(f"{__name__}.Marker",)), lambda name, _: stages.append(name))
    assert stages == ["convert", "prove"]


def test_a_broken_file_is_refused(tmp_path: Path) -> None:
    task = marked(tmp_path)
    (tmp_path / "model" / "model.skops").write_bytes(b"no skops file")
    with pytest.raises(ConversionRefused, match=r"model\.skops cannot be read as a skops file"):
        run(task, lambda *_: None)


def test_the_key_is_read_and_written() -> None:
    spec = parse('[function]\ntrusted = ["a.B"]\n[request]\nx = "float64"\n', source="f", name="f")
    assert spec.trusted == ("a.B",)
    assert parse(write(spec), source="f", name="f") == spec
