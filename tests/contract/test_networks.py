"""Networks: refused with the extra they need where it is absent, exported and proven where it is installed."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sunup.bundle.convert.original import load
from sunup.bundle.convert.task import run
from sunup.bundle.evidence import read_proof
from sunup.bundle.job import Job
from sunup.errors import ConversionRefused
from sunup.registry.signature import Column, Signature
from sunup.types import Field

# MLflow warns about its own type hints when it is imported.
pytestmark = pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning")

FIELDS = tuple(Field(f"x{i}", "float32") for i in range(4))
ROWS = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
EXTRAS = {"pytorch": ("torch", "torch"), "tensorflow": ("keras", "tensorflow"), "keras": ("keras", "tensorflow")}


@pytest.mark.parametrize("flavor", EXTRAS)
def test_an_absent_library_is_named_with_its_extra(flavor: str, tmp_path: Path) -> None:
    extra, package = EXTRAS[flavor]
    if find_spec(package):
        pytest.skip(f"{package} is installed here")
    with pytest.raises(ConversionRefused, match=rf"flavour {flavor}.*pip install 'sunup\[{extra}\]'.*mlflow\.onnx"):
        load(tmp_path, flavor, FIELDS)


@pytest.mark.parametrize(("name", "first"), [("", "x0"), ("dense", "dense0")])
def test_a_tensor_of_k_columns_becomes_k_fields(name: str, first: str) -> None:
    def fields(shape: tuple[int, ...]) -> tuple[Field, ...]:
        column = Column(name, "float32", True, shape)
        return Signature("tensorflow", {}, (column,), (), (), None).fields()

    assert len(fields((-1, 4))) == 4
    assert fields((-1, 4))[0] == Field(first, "float32")
    assert fields((-1, 1))[0].name == (name or "x0")


def proven(flavor: str, folder: Path) -> None:
    stages: list[str] = []
    (folder / "out").mkdir()
    task = Job(str(folder / "model"), flavor, FIELDS, (), 1e-5, str(folder / "out"))
    result = run(task, lambda stage, _: stages.append(stage))
    assert [(output.name, output.shape) for output in result.outputs] == [("output", (-1, 3))]
    proof = read_proof(folder / "out")
    assert proof is not None
    assert proof.max_difference < 1e-5
    assert "exported by" in proof.how
    assert "missing values" in proof.refused


def test_a_keras_network(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    keras: Any = pytest.importorskip("keras")
    import mlflow.tensorflow

    layers = keras.layers
    model = keras.Sequential([keras.Input((4,)), layers.Dense(8, "relu"), layers.Dense(3, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(ROWS, np.arange(60) % 3, verbose=0)
    signature = mlflow.models.infer_signature(ROWS, model.predict(ROWS, verbose=0))
    mlflow.tensorflow.save_model(
        model, str(tmp_path / "model"), signature=signature, input_example=ROWS[:5], pip_requirements=["mlflow"]
    )
    proven("tensorflow", tmp_path)


def test_a_pytorch_network(tmp_path: Path) -> None:
    torch: Any = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    import mlflow.pytorch

    layers = torch.nn
    model = layers.Sequential(layers.Linear(4, 8), layers.ReLU(), layers.Linear(8, 3), layers.Softmax(dim=1))
    signature = mlflow.models.infer_signature(ROWS, model(torch.from_numpy(ROWS)).detach().numpy())
    mlflow.pytorch.save_model(
        model, str(tmp_path / "model"), signature=signature, input_example=ROWS[:5], pip_requirements=["mlflow"]
    )
    proven("pytorch", tmp_path)
