"""One contract for every registry: a folder, MLflow on SQLite through its client, the same file read directly, and a
real MLflow server. All hold what `fill` registers, and must give the same answers."""

import json
import os
import runpy
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from tests.mlflow_fixture import MlflowServer
from tests.ports import free_port

from sunup.errors import RegistryError, UsageError
from sunup.registry.alias import open_aliases
from sunup.registry.folder import FolderSource
from sunup.registry.signature import read, read_example
from sunup.registry.source import Resolved, Source, parse
from sunup.registry.sqlite import open_sqlite
from sunup.settings import Project

OWN_MODEL = Path(__file__).resolve().parents[2] / "examples" / "own_model.py"
KINDS = ["folder", "mlflow-sqlite", "sqlite", "mlflow-server"]
NAMES = ["fraud", "fraud-v3", "fraud-v2@latest", "fraud@champion", "models:/fraud/1", "models:/fraud@best", "cancer"]

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of importing MLflow and what it imports: theirs
    import mlflow
    from mlflow import MlflowClient

    from sunup.registry import mlflow as backend

pytestmark = [
    pytest.mark.timeout(600),  # the first test waits for a server to start and two trainings
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),  # in MLflow 3.17's own tables
]


def own_model(project: Path, uri: str | None) -> None:
    """Run examples/own_model.py in `project`."""
    project.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MLflow and scikit-learn: theirs
        patch.chdir(project)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        if uri:
            patch.setenv("MLFLOW_TRACKING_URI", uri)
        runpy.run_path(str(OWN_MODEL))


def fill(uri: str) -> None:
    """Register the model of examples/own_model.py under more names: fraud 1-3 with aliases and a deleted 4, fraud-v2,
    fraud-v3."""
    mlflow.set_tracking_uri(uri)
    client = MlflowClient()
    source = client.get_model_version("cancer", "1").source
    for name, versions in {"fraud": 4, "fraud-v2": 2, "fraud-v3": 1}.items():
        for _ in range(versions):
            mlflow.register_model(source, name)
    client.delete_model_version("fraud", "4")
    client.set_registered_model_alias("fraud", "champion", "3")
    client.set_registered_model_alias("fraud", "best", "3")


@pytest.fixture(scope="module")
def uris(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Tracking addresses of two filled registries: a SQLite file and a server."""
    root = tmp_path_factory.mktemp("registry")
    server = MlflowServer(root)
    server.start()
    try:
        project = Project(root / "local")
        own_model(project.root, None)
        server.wait()
        own_model(root / "remote", server.url)
        fill(project.tracking_uri)
        fill(server.url)
        mlflow.set_tracking_uri(None)
        yield {"sqlite": project.tracking_uri, "server": server.url}
    finally:
        server.stop()


@pytest.fixture(scope="module")
def tree(uris: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same models as a folder tree."""
    root = tmp_path_factory.mktemp("tree")
    files = backend.MlflowSource(uris["sqlite"]).fetch(Resolved("cancer", "1", "", ""), root / "fetched")
    for name, versions in {"cancer": 1, "fraud": 3, "fraud-v2": 2, "fraud-v3": 1}.items():
        for version in range(1, versions + 1):
            shutil.copytree(files, root / "models" / name / str(version))
    (root / "models" / "fraud" / "aliases.json").write_text(json.dumps({"champion": "3", "best": "3"}))
    (root / "models" / "notes").mkdir()
    return root / "models"


def make(kind: str, uris: dict[str, str], tree: Path) -> Source:
    if kind == "folder":
        return FolderSource(tree)
    if kind == "sqlite":
        direct = open_sqlite(uris["sqlite"], lambda: pytest.fail("everything is on this disk"))
        assert direct is not None
        return direct
    return backend.MlflowSource(uris[kind.removeprefix("mlflow-")])


@pytest.fixture(params=KINDS)
def source(request: pytest.FixtureRequest, uris: dict[str, str], tree: Path) -> Source:
    return make(request.param, uris, tree)


def test_models_are_listed_in_order(source: Source) -> None:
    assert source.models() == ["cancer", "fraud", "fraud-v2", "fraud-v3"]


@pytest.mark.parametrize(
    ("text", "name", "version", "aliases"),
    [
        ("fraud", "fraud", "3", ("best", "champion")),
        ("fraud-v1", "fraud", "1", ()),
        ("fraud@champion", "fraud", "3", ("best", "champion")),
        ("models:/fraud/2", "fraud", "2", ()),
        ("models:/fraud@best", "fraud", "3", ("best", "champion")),
        ("fraud-v2@latest", "fraud-v2", "2", ()),
        ("fraud-v3", "fraud-v3", "1", ()),
    ],
)
def test_a_name_becomes_a_version(source: Source, text: str, name: str, version: str, aliases: tuple[str, ...]) -> None:
    found = source.resolve(parse(text))
    assert (found.name, found.version, found.aliases) == (name, version, aliases)
    assert bool(found.note) == (text == "fraud-v3")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("fruad", "Closest: fraud"),
        ("fraud-v9", "It has 1, 2, 3."),
        ("models:/fraud/4", "It has 1, 2, 3."),
        ("fraud@champ", "Closest: fraud@champion"),
        ("..", "There is no model .."),
        ("fraud'--", "There is no model fraud'--"),
        ("a\"b'c", "There is no model"),
    ],
)
def test_what_is_not_there_is_a_wrong_name(source: Source, text: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        source.resolve(parse(text))
    assert says in caught.value.message


def test_files_are_fetched_and_say_what_the_model_is(source: Source, tmp_path: Path) -> None:
    folder = source.fetch(source.resolve(parse("fraud@champion")), tmp_path / "new")
    assert folder.is_relative_to(tmp_path / "new")
    signature = read(folder)
    assert (signature.flavor, len(signature.inputs)) == ("sklearn", 30)
    assert {(column.type, column.required) for column in signature.inputs} == {("double", True)}
    assert [(c.name, c.type, c.shape) for c in signature.outputs] == [("", "int64", (-1,))]
    assert signature.settings["serialization_format"] == "skops"
    assert signature.requirements == ("mlflow", "scikit-learn", "pandas")
    assert (signature.fields()[0].name, signature.fields()[0].dtype) == ("mean radius", "float64")
    assert signature.example is not None
    example = read_example(signature.example)
    assert list(example) == [column.name for column in signature.inputs]
    assert {len(values) for values in example.values()} == {200}
    assert (folder / str(signature.settings["pickled_model"])).is_file()


def test_nothing_is_printed(source: Source, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source.models()
    source.fetch(source.resolve(parse("fraud")), tmp_path)
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_a_file_read_directly_gives_what_the_client_gives(uris: dict[str, str], tree: Path, tmp_path: Path) -> None:
    client, direct = make("mlflow-sqlite", uris, tree), make("sqlite", uris, tree)
    for text in NAMES:
        assert client.resolve(parse(text)) == direct.resolve(parse(text))
    found = client.resolve(parse("fraud"))
    one, other = client.fetch(found, tmp_path / "client"), direct.fetch(found, tmp_path / "direct")
    files = {path.name: path.read_bytes() for path in other.iterdir()}
    assert {path.name: path.read_bytes() for path in one.iterdir() if path.name in files} == files
    assert {path.name for path in one.iterdir()} - files.keys() <= {"registered_model_meta"}


def test_files_that_are_gone_are_a_clear_failure(uris: dict[str, str], tree: Path, tmp_path: Path) -> None:
    shutil.copytree(tree / "fraud", tmp_path / "tree" / "fraud")
    source = FolderSource(tmp_path / "tree")
    found = source.resolve(parse("fraud-v1"))
    shutil.rmtree(tmp_path / "tree" / "fraud" / "1")
    with pytest.raises(RegistryError, match="Register it again"):
        source.fetch(found, tmp_path / "into")
    server = make("mlflow-server", uris, tree)
    with pytest.raises(RegistryError):
        server.fetch(replace(found, version="77"), tmp_path / "into")


@pytest.mark.parametrize("text", ["[]", "{", '{"champion": 3}'])
def test_an_alias_file_that_is_none_is_a_clear_failure(tree: Path, tmp_path: Path, text: str) -> None:
    shutil.copytree(tree / "fraud", tmp_path / "fraud")
    (tmp_path / "fraud" / "aliases.json").write_text(text)
    with pytest.raises(RegistryError, match=r"aliases\.json"):
        FolderSource(tmp_path).resolve(parse("fraud"))


def test_a_server_that_is_not_there_is_said_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    source = backend.MlflowSource(f"http://somebody:secret@127.0.0.1:{free_port()}")
    with pytest.raises(RegistryError, match=r"does not answer.*MLFLOW_TRACKING_URI") as caught:
        source.resolve(parse("fraud"))
    assert caught.value.exit_code == 1
    assert "secret" not in caught.value.message


def test_requests_are_bounded_unless_the_environment_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT", raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "5")
    backend.bound_requests()
    assert (os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"], os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"]) == ("10", "5")


def test_a_registry_that_was_never_made_holds_nothing_and_is_not_made(tmp_path: Path) -> None:
    uri = Project(tmp_path).tracking_uri if "MLFLOW_TRACKING_URI" not in os.environ else f"sqlite:///{tmp_path}/m.db"
    source = backend.MlflowSource(uri)
    assert source.models() == []
    with pytest.raises(UsageError, match="holds no models"):
        source.resolve(parse("fraud"))
    assert open_sqlite(uri, lambda: source) is None
    assert not any(tmp_path.rglob("*.db"))


@pytest.mark.parametrize("content", [b"", b"not a database at all, but long enough to be looked at as one" * 20])
def test_a_file_that_is_no_registry_is_left_to_mlflow(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.db").write_bytes(content)
    assert open_sqlite(f"sqlite:///{tmp_path}/m.db", lambda: pytest.fail("not asked")) is None


@pytest.mark.parametrize("uri", ["http://127.0.0.1:5000", "postgresql://db/mlflow", "sqlite:///a.db?mode=ro", "mlruns"])
def test_other_addresses_are_left_to_mlflow(uri: str) -> None:
    assert open_sqlite(uri, lambda: pytest.fail("not asked")) is None


def test_a_broken_database_is_explained(tmp_path: Path) -> None:
    (tmp_path / "m.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(RegistryError, match="file is not a database"):
        backend.MlflowSource(f"sqlite:///{tmp_path}/m.db").resolve(parse("fraud"))


def test_training_code_is_pointed_at_the_projects_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    project = Project(tmp_path)
    module: ModuleType = mlflow
    try:
        backend.use(project)
        backend.use(project)  # the second time finds the experiment
        experiment = module.get_experiment_by_name("sunup")
        assert experiment.artifact_location == project.artifacts.as_uri()
        assert [path.name for path in tmp_path.iterdir()] == [".sunup"]
    finally:
        module.set_tracking_uri(None)


@pytest.mark.parametrize("kind", ["sqlite", "server"])
def test_an_alias_is_the_same_version_without_mlflow(kind: str, uris: dict[str, str]) -> None:
    aliases = open_aliases(uris[kind], {"HOME": "/nowhere"})
    assert aliases is not None
    assert aliases.version("fraud", "champion") == "3"
    assert aliases.version("fraud", "best") == "3"
    for model, alias in (("fraud", "nobody"), ("nobody", "champion")):
        with pytest.raises(UsageError, match="nobody"):
            aliases.version(model, alias)
    aliases.close()
