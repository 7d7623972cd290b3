"""[features] log of function.toml: what is read, what is written back, what is refused."""

from typing import Any

import msgspec
import pytest

from sunup.bundle.declare.file import parse
from sunup.bundle.declare.write import write
from sunup.bundle.manifest import LogSpec
from sunup.errors import UsageError


def log_of(text: str) -> LogSpec | None:
    spec = parse(f"[features]\nservice = 's'\nlog = {{ {text} }}\n", source="f.toml", name="fraud")
    assert parse(write(spec), source="again", name="fraud") == spec
    assert spec.features is not None
    return spec.features.log


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        ("path = 'served/'", {"path": "served/"}),
        ("path = 'a/b_c'", {"path": "a/b_c"}),
        ("path = 'a', rotate = '15m', size = '1MiB', sample = 0.5", {"rotate_s": 900.0, "size": 2**20, "sample": 0.5}),
        ("path = 'a', sample = 1", {}),
    ],
)
def test_what_is_declared_is_read_and_reads_back(text: str, changes: dict[str, Any]) -> None:
    assert log_of(text) == msgspec.structs.replace(LogSpec("a"), **changes)


def test_there_is_none_unless_it_is_declared() -> None:
    spec = parse("[features]\nservice = 's'\n", source="f.toml", name="fraud")
    assert spec.features is not None
    assert spec.features.log is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rotate = '1h'", "missing required field `path`"),
        ("path = '/srv'", "matching regex"),
        ("path = 'a/../b'", "matching regex"),
        ("path = '.sunup/run'", "matching regex"),
        ("path = 'a', sizes = '1MiB'", "unknown field `sizes`"),
        ("path = 'a', size = '1KiB'", "size is 64KiB to 1GiB"),
        ("path = 'a', rotate = '1ms'", "rotate a second at least"),
        ("path = 'a', size = '1h'", "is not a size"),
        ("path = 'a', sample = 0", "`float` > 0"),
    ],
)
def test_what_cannot_be_is_refused_with_its_line(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        log_of(text)
    assert "line 3" in caught.value.message
    assert said in caught.value.message
