"""What an MLflow model folder says about itself, read from its files; MLflow is not imported (that costs seconds).

The format is MLflow's "MLmodel" YAML with the signature's inputs and outputs as JSON text inside. YAML comes with
MLflow (PyYAML), which the extra `deploy` installs; no worker imports this file.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from sunup.errors import RegistryError
from sunup.types import PIXELS, SCALARS, Field

DTYPES: Final[Mapping[str, str]] = {
    # MLflow column type -> dtype of function.toml
    "boolean": "bool",
    "integer": "int32",
    "long": "int64",
    "float": "float32",
    "double": "float64",
    "string": "string",
    "binary": "bytes",
}


@dataclass(frozen=True, slots=True)
class Column:
    """One input or output of a signature. `type` is MLflow's name for a column ("double", "long", "array", ...) or
    numpy's for a tensor ("float64"). `shape` is () for a column, the tensor's shape otherwise (-1: any). An unnamed
    tensor has the name ""."""

    name: str
    type: str
    required: bool = True
    shape: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Signature:
    """What is known of a model before anything of it is loaded.

    `flavor`: its native flavour ("sklearn", "lightgbm", ...; "python_function" when it has no other); `settings`: that
    flavour's entries of MLmodel. `inputs` and `outputs` are empty when the model was logged without a signature.
    `requirements`: lines of requirements.txt, without comments. `example`: the input example's file, or None.
    """

    flavor: str
    settings: Mapping[str, Any]
    inputs: tuple[Column, ...]
    outputs: tuple[Column, ...]
    requirements: tuple[str, ...]
    example: Path | None

    def fields(self) -> tuple[Field, ...]:
        """The inputs as request fields; a uint8 tensor [n, height, width, 3] as a field "image" of that shape; one
        tensor [-1, k], as networks are logged with, as k of them: x0 ..., or its own name and a number.

        Raises RegistryError for another input that has no scalar type or no name.
        """
        if len(self.inputs) == 1 and len(self.inputs[0].shape) == 2 and self.inputs[0].shape[1] > 0:
            (tensor,) = self.inputs
            width = tensor.shape[1]
            alone = [tensor.name] if tensor.name and width == 1 else []
            names = alone or [f"{tensor.name or 'x'}{i}" for i in range(width)]
            return tuple(_field(Column(name, tensor.type)) for name in names)
        return tuple(_field(column) for column in self.inputs)


def read(folder: Path) -> Signature:
    """Read `folder`/MLmodel and what stands beside it. Raises RegistryError when it is missing or not understood."""
    path = folder / "MLmodel"
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        flavors = dict(raw["flavors"])
        signature = raw.get("signature") or {}
        inputs, outputs = _columns(signature.get("inputs")), _columns(signature.get("outputs"))
        example = (raw.get("saved_input_example_info") or {}).get("artifact_path")
    except FileNotFoundError as error:
        raise RegistryError(f"{folder} is not an MLflow model: it holds no MLmodel file.") from error
    except (OSError, yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RegistryError(f"{path} is not understood ({error}). Log the model again with MLflow 2 or 3.") from error
    flavor = next((name for name in flavors if name != "python_function"), "python_function")
    return Signature(
        flavor=flavor,
        settings=dict(flavors.get(flavor) or {}),
        inputs=inputs,
        outputs=outputs,
        requirements=_requirements(folder / "requirements.txt"),
        example=_inside(folder, example),
    )


def read_example(path: Path) -> dict[str, list[Any]]:
    """An input example as columns: name -> values, one per row. Understands MLflow's data frame form ("split") only.

    Raises RegistryError when the file is of another form.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        names, rows = raw["columns"], raw["data"]
        return {str(name): [row[i] for row in rows] for i, name in enumerate(names)}
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise RegistryError(f"The input example {path} is not a data frame. Log the model with one.") from error


def _columns(text: str | None) -> tuple[Column, ...]:
    """A signature's JSON text, e.g. [{"type": "double", "name": "amount", "required": true}]."""
    return tuple(_column(item) for item in json.loads(text)) if text else ()


def _column(item: Mapping[str, Any]) -> Column:
    required = bool(item.get("required", True))
    if item["type"] == "tensor":
        spec = item["tensor-spec"]
        return Column(str(item.get("name", "")), str(spec["dtype"]), required, tuple(int(n) for n in spec["shape"]))
    return Column(str(item.get("name", "")), str(item["type"]), required)


def _field(column: Column) -> Field:
    if column.type == PIXELS and len(column.shape) == 4 and column.shape[3] == 3:
        return Field(column.name or "image", PIXELS, column.shape[1:])
    dtype = DTYPES.get(column.type, column.type)
    if not column.name or dtype not in SCALARS:
        known = ", ".join(sorted(DTYPES))
        raise RegistryError(
            f"Input {column.name or '(unnamed)'} of the model has type {column.type}; a request field needs a name and "
            f"one of {known}. Log the model with named columns, or declare [request] in function.toml."
        )
    return Field(column.name, dtype)


def _requirements(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        return ()
    lines = (line.split(" #")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))


def _inside(folder: Path, name: object) -> Path | None:
    """`folder`/`name` if that is a file in the folder: MLmodel is data from elsewhere and may say anything."""
    if not isinstance(name, str):
        return None
    path = folder / name
    return path if path.is_file() and path.resolve().is_relative_to(folder.resolve()) else None
