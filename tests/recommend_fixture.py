"""A project after the training flow of functions/recommend, made once per test session: both models registered,
features materialised into SQLite, a week of views held out."""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.fraud_fixture import checkout, run

from sunup.settings import Project


@dataclass(frozen=True)
class Recommending:
    """A project after the training flow, and what the flow printed."""

    project: Project
    printed: str

    @property
    def metrics(self) -> dict[str, float]:
        """What the flow says of the hold-out week."""
        return {name: float(value) for name, value in re.findall(r"(\w+) (0\.\d{4})", self.printed)}


def training(project: Path, *arguments: str, **environment: str) -> str:
    return run(project, sys.executable, "-m", "functions.recommend.train", *arguments, **environment)


@pytest.fixture(scope="session")
def recommending(tmp_path_factory: pytest.TempPathFactory) -> Recommending:
    root = checkout(tmp_path_factory.mktemp("recommending"))
    return Recommending(Project(root), training(root))
