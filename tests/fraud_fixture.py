"""A project after the training flow of functions/fraud, made once per test session: four registered versions, features
materialised into SQLite, held-out transactions."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sunup.registry.sqlite import open_sqlite
from sunup.settings import Project

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Trained:
    """A project after the training flow, and what the flow printed."""

    project: Project
    printed: str

    @property
    def source(self) -> Any:
        found = open_sqlite(self.project.tracking_uri, lambda: pytest.fail("everything is on this disk"))
        assert found is not None
        return found


def run(project: Path, *command: str, **environment: str) -> str:
    """Run `command` in `project` without this session's settings; its output. Fails with its errors."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "FEAST_"))}
    ran = subprocess.run(command, cwd=project, env=clean | environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def training(project: Path, *arguments: str, **environment: str) -> str:
    return run(project, sys.executable, "-m", "functions.fraud.train", *arguments, **environment)


def feast(project: Path, *arguments: str, **environment: str) -> str:
    command = Path(sys.executable).with_name("feast")
    return run(project / "features", str(command), *arguments, **environment)


def checkout(target: Path) -> Path:
    """A fresh project with this repository's functions and features."""
    for name in ("functions", "features"):
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("data", "__pycache__"))
    return target


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    root = checkout(tmp_path_factory.mktemp("trained"))
    return Trained(Project(root), training(root))
