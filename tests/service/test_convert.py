"""From an MLflow model folder to a bundle in the store, through the packager's real child."""

import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.models import boosted, fields_of, save, table

from sunup.bundle.convert.original import check_requirements
from sunup.bundle.declare.file import parse
from sunup.bundle.declare.spec import Spec
from sunup.bundle.declare.write import derive
from sunup.bundle.manifest import Manifest
from sunup.bundle.pack import SourceModel, inspect, pack
from sunup.bundle.packager import Packager
from sunup.bundle.store import Store, read_manifest
from sunup.errors import ConversionRefused, UsageError
from sunup.function import load
from sunup.types import Field

# MLflow warns about its own type hints when it is imported.
pytestmark = pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning")

FRAME, LABELS = table(columns=30, classes=2)


FEATURED = """
[request]
card_id = "int64"
c0 = "float64"
[features]
service = "fraud"
[response]
s = "probability:1"
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> SourceModel:
    """LightGBM over 30 columns, saved by MLflow."""
    folder = tmp_path_factory.mktemp("registry") / "fraud"
    flavor = save(boosted().fit(FRAME, LABELS), FRAME, folder)
    return SourceModel("fraud", "3", "run", flavor, folder, fields_of(FRAME), ("lightgbm==4.7.0",))


def spec_of(model: SourceModel) -> Spec:
    return derive(model.name, model.columns)


def packed(store: Store, model: SourceModel, packager: Packager, **more: Any) -> tuple[str, list[str]]:
    """The digest and the stages that were told."""
    stages: list[str] = []
    spec = more.pop("spec", spec_of(model))
    digest = pack(
        store, spec=spec, model=model, packager=packager, on_stage=lambda name, _: stages.append(name), **more
    )
    return digest, stages


def test_a_model_becomes_a_bundle_that_a_worker_loads(tmp_path: Path, model: SourceModel, packager: Packager) -> None:
    store = Store(tmp_path / "bundles")
    digest, stages = packed(store, model, packager)
    assert stages == ["convert", "prove", "freeze"]
    path = store.open(digest)
    manifest = read_manifest(path)
    assert isinstance(manifest, Manifest)
    assert manifest.function == "fraud"
    assert sorted(manifest.files) == ["model.onnx", "parity.json", "training.json", "warmup.npz"]
    assert manifest.inputs[0].columns == tuple(FRAME.columns)
    assert manifest.example == FRAME.iloc[0].to_dict()
    function = load(path, settings={}, prove=True)
    assert function.manifest == manifest
    facts = inspect(path)
    assert facts["digest"] == digest
    assert facts["parity"]["max_abs"] < 1e-9
    assert facts["files"]["model.onnx"] > 1000


def test_the_same_inputs_give_the_same_bytes_in_another_process(
    tmp_path: Path, model: SourceModel, packager: Packager
) -> None:
    first, _ = packed(Store(tmp_path / "a"), model, packager)
    other = Packager(tmp_path / "log")
    try:
        assert packed(Store(tmp_path / "b"), model, other)[0] == first
    finally:
        other.close()


def test_what_is_unchanged_is_not_converted_again(tmp_path: Path, model: SourceModel, packager: Packager) -> None:
    store = Store(tmp_path / "bundles")
    digest, _ = packed(store, model, packager)
    started = time.perf_counter()
    assert packed(store, model, packager) == (digest, [])
    assert time.perf_counter() - started < 0.5
    changed = msgspec.structs.replace(spec_of(model), tolerance=1e-6)
    other, stages = packed(store, model, packager, spec=changed)
    assert other != digest
    assert stages == ["convert", "prove", "freeze"]
    store.remove(digest)
    assert packed(store, model, packager) == (digest, ["convert", "prove", "freeze"])


def test_features_are_bound_into_the_bundle(tmp_path: Path, model: SourceModel, packager: Packager) -> None:
    store = Store(tmp_path / "bundles")
    text = (
        '[request]\ncard_id = "int64"\nc0 = "float64"\n[features]\nservice = "fraud"\n[response]\ns = "probability:1"'
    )
    spec = parse(text, source="function.toml", name="fraud")
    features = [field for field in model.columns if field.name != "c0"]
    digest, _ = packed(
        store,
        model,
        packager,
        spec=spec,
        features_json=b'{"views":[]}',
        feature_columns=features,
        example={"card_id": 7},
    )
    path = store.open(digest)
    manifest = read_manifest(path)
    assert (path / "features.json").read_bytes() == b'{"views":[]}'
    assert manifest.request == (Field("card_id", "int64"), Field("c0", "float64"))
    assert manifest.example == {"card_id": 7, "c0": FRAME["c0"].iloc[0]}
    assert [field.name for field in manifest.response] == ["s"]
    with pytest.raises(UsageError, match="`c1`"):
        packed(store, model, packager, spec=spec, features_json=b"{}", feature_columns=features[1:])


def test_more_rows_are_proven_when_they_are_given(tmp_path: Path, model: SourceModel, packager: Packager) -> None:
    store = Store(tmp_path / "bundles")
    np.savez(tmp_path / "rows.npz", allow_pickle=False, **{str(c): FRAME[c].to_numpy() for c in FRAME})
    FRAME.to_parquet(tmp_path / "rows.parquet")
    for name in ("rows.npz", "rows.parquet"):
        digest, _ = packed(store, model, packager, rows=tmp_path / name)
        assert inspect(store.open(digest))["parity"]["real_rows"] == 20 + len(FRAME)


def test_another_minor_version_of_the_library_is_refused_where_it_cannot_be_had() -> None:
    with pytest.raises(ConversionRefused, match=r"lightgbm 3\.3\.5.*4\.7\.0.*pip install lightgbm==3\.3\.5"):
        check_requirements(("mlflow==1.0", "lightgbm==3.3.5"))
    check_requirements(("mlflow==1.0", "lightgbm==4.7.5"))
