"""Feast's value types: each is read by workers, or refused by its name when the function is deployed."""

from pathlib import Path
from typing import Any

import pytest
from feast import FeatureService, ValueType, types
from tests.feast_repo import USER, repository, source, view

from sunup.errors import FeaturesRefused
from sunup.lookup.compile.service import compile_service
from sunup.lookup.plan import VALUE_TYPES
from sunup.types import Field

# No feature is of these: what is absent, and what Feast does not know.
NOBODYS = {"UNKNOWN", "NULL"}
NESTED: dict[str, Any] = {
    "STRUCT": types.Struct({"a": types.Int64}),
    "STRUCT_LIST": types.Array(types.Struct({"a": types.Int64})),
    "VALUE_LIST": types.Array(types.Array(types.Int64)),
    "VALUE_SET": types.Set(types.Array(types.Int64)),
}
REFUSED = sorted(kind.name for kind in ValueType if kind.name not in {*VALUE_TYPES, *NOBODYS})


def dtype(kind: str) -> Any:
    return NESTED.get(kind) or types.VALUE_TYPES_TO_FEAST_TYPES[ValueType[kind]]


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A service for each type, of a view with a feature that is read and one of that type."""
    folder = tmp_path_factory.mktemp("types")
    store = repository(folder, "{type: sqlite, path: data/online.db}")
    empty = source(folder)
    views = [
        view(f"view_of_{kind}", [USER], {"fine": types.Int64, "odd_one": dtype(kind)}, source=empty)
        for kind in [*REFUSED, *VALUE_TYPES]
    ]
    services = [FeatureService(name=each.name.removeprefix("view_of_"), features=[each]) for each in views]
    store.apply([USER, *views, *services])
    return folder


def compiled(repo: Path, kind: str) -> list[tuple[str, str]]:
    plan, *_ = compile_service(
        repo, kind, request=[Field("user_id", "int64")], defaults={}, max_age={}, deadline_ms=20, on_missing="default"
    )
    return [(column.name, column.dtype) for column in plan.columns]


@pytest.mark.parametrize("kind", REFUSED)
def test_a_type_that_workers_do_not_read_is_refused_by_name(repo: Path, kind: str) -> None:
    with pytest.raises(FeaturesRefused) as refused:
        compiled(repo, kind)
    assert f"Feature odd_one of view view_of_{kind} is {kind}, which workers do not read" in refused.value.message
    assert "They read BYTES, STRING, INT32" in refused.value.message


@pytest.mark.parametrize("kind", list(VALUE_TYPES))
def test_a_type_that_workers_read_is_read(repo: Path, kind: str) -> None:
    assert compiled(repo, kind) == [("fine", "int64"), ("odd_one", VALUE_TYPES[kind][1])]


def test_no_type_of_feasts_is_unknown_here() -> None:
    """The numbers are those of the wire format; a new Feast's new types come up in the tests above."""
    assert {kind.name: kind.value for kind in ValueType if kind.name in VALUE_TYPES} == {
        name: number for name, (number, _) in VALUE_TYPES.items()
    }
