"""`platform keys` and the flags of `platform up`, as they are typed."""

import json
from pathlib import Path

import pytest

from sunup.access import keys
from sunup.access.guard import Guard
from sunup.cli.main import run


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "functions").mkdir()
    return tmp_path


def test_a_key_is_printed_once(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["keys", "new", "--name", "web", "--functions", "fraud, recommend", "--project", str(project)]) == 0
    said = capsys.readouterr()
    text = said.out.strip()
    (kept,) = keys.read(project / ".sunup" / "keys.jsonl")
    assert Guard([kept], None).find(text.encode()) == kept
    assert (kept.name, kept.functions) == ("web", ("fraud", "recommend"))
    assert text not in said.err
    assert kept.id in said.err
    assert run(["keys", "list", "--project", str(project)]) == 0
    listed = capsys.readouterr().out
    assert "fraud, recommend" in listed
    assert text not in listed
    assert kept.sha256 not in listed


def test_keys_in_a_file_of_ones_own(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = ["--file", str(project / "of-ours"), "--project", str(project)]
    assert run(["keys", "list", *file]) == 0
    assert "`platform keys new` makes one" in capsys.readouterr().err
    assert run(["keys", "new", "--json", *file]) == 0
    made = json.loads(capsys.readouterr().out)
    assert run(["keys", "list", "--json", *file]) == 0
    listed = json.loads(capsys.readouterr().out)["keys"]
    assert [(key["id"], key["functions"]) for key in listed] == [(made["id"], None)]
    assert run(["keys", "revoke", made["id"], *file]) == 0
    assert made["id"] in capsys.readouterr().out
    assert run(["keys", "revoke", made["id"], *file]) == 2
    assert "There is no key" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "code", "reason"),
    [
        (["--host", "0.0.0.0"], 2, "--api-keys FILE"),
        (["--host", "0.0.0.0", "--open", "--api-keys", "x"], 2, "Give one of them"),
        (["--api-keys", "absent"], 1, "cannot be read"),
        (["--user", "no-such-user"], 2, "user"),
    ],
)
def test_up_says_what_is_missing(
    project: Path, capsys: pytest.CaptureFixture[str], flags: list[str], code: int, reason: str
) -> None:
    assert run(["up", "--detach", "--project", str(project), *flags]) == code
    assert reason in capsys.readouterr().err
    assert not (project / ".sunup" / "rules.json").exists()
