"""--accept-difference and the proof, as a person meets them: a real registry, a real engine."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.service.test_cli import platform

from sunup.settings import Project

ROOT = Path(__file__).resolve().parents[2]
STRICT = "[parity]\ntolerance = 1e-30\n"  # which no conversion keeps


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project with a registered model, whose function demands more than a conversion can give."""
    root = tmp_path_factory.mktemp("accept")
    project = Project(root)
    (project.functions / "cancer").mkdir(parents=True)
    (project.functions / "cancer" / "function.toml").write_text(STRICT)
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    script = str(ROOT / "examples" / "own_model.py")
    subprocess.run([sys.executable, script], cwd=root, check=True, capture_output=True, env=environment)
    yield project
    platform(root, "down")


def test_a_difference_is_refused_accepted_and_shown(project: Project) -> None:
    root = project.root
    refused = platform(root, "deploy", "cancer").refused(1)
    needed = refused.split("--accept-difference ")[1].split(",")[0]
    assert platform(root, "deploy", "cancer", "--accept-difference", "1e-29").refused(1).split()[-1]
    assert "is not between the tolerance" in platform(root, "bundle", "cancer", "--accept-difference", "1e-31").refused(
        2
    )
    assert "--accept-difference" in platform(root, "bundle", "cancer", "--accept-difference", "2").refused(2)

    deployed = platform(root, "deploy", "cancer", "--accept-difference", needed)
    assert f"accepted up to {float(needed):g}" in deployed.out
    assert "rows compared, largest difference" in deployed.out
    facts: dict[str, Any] = platform(root, "status", "cancer", "--json").json["functions"][0]
    assert facts["accept_difference"] == float(needed)
    assert "accepted" in platform(root, "status").out
    shown = platform(root, "inspect", facts["digest"])
    assert "difference accepted" in shown.out
    proof = platform(root, "inspect", facts["digest"], "--json").json
    assert proof["parity"]["accepted"] == proof["manifest"]["accept_difference"] == float(needed)
    assert proof["parity"]["tolerance"] == 1e-30

    # Asked for again without it, it is refused again: what was accepted once is no rule.
    assert "--accept-difference" in platform(root, "deploy", "cancer").refused(1)
    again = platform(root, "deploy", "cancer", "--accept-difference", needed, "--json").json
    assert again["unchanged"]
    assert again["parity"]["accepted"] == float(needed)


def test_what_needs_no_acceptance_is_not_marked(project: Project, tmp_path: Path) -> None:
    declared = project.functions / "cancer" / "function.toml"
    declared.write_text("")
    try:
        plain = platform(project.root, "bundle", "cancer", "--json").json
        same = platform(project.root, "bundle", "cancer", "--accept-difference", "0.5", "--json").json
        assert same["digest"] == plain["digest"]
        assert same["parity"]["accepted"] == 0.0
        folder = tmp_path / "out"
        assert "proven: " in platform(project.root, "bundle", "cancer", "--out", str(folder)).out
        made = platform(project.root, "deploy", str(folder), "--accept-difference", "0.5")
        assert "platform bundle" in made.refused(2)
        assert "largest difference" in platform(project.root, "inspect", str(folder)).out
    finally:
        declared.write_text(STRICT)
