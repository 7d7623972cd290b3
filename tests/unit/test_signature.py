"""Reading an MLflow model folder: what it says, and what is refused with a reason."""

from pathlib import Path

import pytest

from sunup.errors import RegistryError
from sunup.registry.signature import Column, read, read_example

COLUMNS = """
  inputs: '[{"type": "double", "name": "amount", "required": true}, {"type": "long", "name": "n", "required": false}]'
  outputs: '[{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 3]}}]'
"""


def model(folder: Path, text: str, **files: str) -> Path:
    (folder / "MLmodel").write_text(text)
    for name, content in files.items():
        (folder / name.replace("_", ".", 1)).write_text(content)
    return folder


def test_columns_flavour_requirements_and_example(tmp_path: Path) -> None:
    text = (
        "flavors:\n  python_function: {loader_module: mlflow.lightgbm}\n  lightgbm: {model_class: X}\n"
        f"signature:{COLUMNS}saved_input_example_info: {{artifact_path: example.json}}\n"
    )
    requirements = "# made by hand\nmlflow==3.0 # pinned\n\nnumpy>=1\n-r more.txt\n"
    found = read(model(tmp_path, text, requirements_txt=requirements, example_json='{"columns": ["a"], "data": [[1]]}'))
    assert (found.flavor, found.settings) == ("lightgbm", {"model_class": "X"})
    assert found.inputs == (Column("amount", "double"), Column("n", "long", required=False))
    assert found.outputs == (Column("", "float32", shape=(-1, 3)),)
    assert found.requirements == ("mlflow==3.0", "numpy>=1", "-r more.txt")
    assert [(field.name, field.dtype) for field in found.fields()] == [("amount", "float64"), ("n", "int64")]
    assert found.example == tmp_path / "example.json"
    assert read_example(found.example) == {"a": [1]}


def test_a_model_without_a_signature_has_no_columns(tmp_path: Path) -> None:
    found = read(model(tmp_path, "flavors: {python_function: {loader_module: mine}}\nsignature: null\n"))
    assert (found.flavor, found.inputs, found.outputs) == ("python_function", (), ())
    assert (found.requirements, found.example) == ((), None)


@pytest.mark.parametrize(
    ("kind", "name"), [("datetime", "at"), ("array", "list"), ("any", "x"), ("tensor", ""), ("double", "")]
)
def test_an_input_that_is_no_scalar_field_is_named(tmp_path: Path, kind: str, name: str) -> None:
    spec = ', "tensor-spec": {"dtype": "float64", "shape": [-1, 4, 4]}' if kind == "tensor" else ""
    text = f'flavors: {{sklearn: {{}}}}\nsignature:\n  inputs: \'[{{"type": "{kind}", "name": "{name}"{spec}}}]\'\n'
    found = read(model(tmp_path, text))
    with pytest.raises(RegistryError, match=name or "unnamed"):
        found.fields()


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "a: [", "flavors: 3", "signature: {}", "!!python/object:os.x {}", "flavors: {a: {}}\n1"),
        "flavors: {a: {}}\nsignature: {inputs: '{'}",
        "flavors: {a: {}}\nsignature: {inputs: '[{}]'}",
        "flavors: {a: {}}\nsignature: 7",
    ],
)
def test_a_file_that_is_not_understood_is_a_clear_failure(tmp_path: Path, text: str) -> None:
    with pytest.raises(RegistryError, match="MLmodel is not understood"):
        read(model(tmp_path, text))


def test_a_folder_without_a_model_is_a_clear_failure(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="holds no MLmodel"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["../secret.json", "/etc/passwd", "absent.json", "7"])
def test_an_example_outside_the_folder_is_none(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.json").write_text("{}")
    folder = tmp_path / "model"
    folder.mkdir()
    text = f"flavors: {{sklearn: {{}}}}\nsaved_input_example_info: {{artifact_path: {name}}}\n"
    assert read(model(folder, text)).example is None


@pytest.mark.parametrize("text", ["{", "[1, 2]", '{"columns": ["a", "b"], "data": [[1]]}', '{"inputs": [[1.0]]}'])
def test_an_example_of_another_form_is_a_clear_failure(tmp_path: Path, text: str) -> None:
    (tmp_path / "example.json").write_text(text)
    with pytest.raises(RegistryError, match="is not a data frame"):
        read_example(tmp_path / "example.json")
