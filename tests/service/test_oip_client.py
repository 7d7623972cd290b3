"""examples/oip_client.py beside a deployed recommend."""

import shutil
import subprocess
import sys

import pytest
from tests.engine_fixture import Engine
from tests.fraud_fixture import ROOT
from tests.recommend_fixture import Recommending
from tests.service.test_cli import platform

pytestmark = pytest.mark.timeout(900)  # waits for a whole training


def ask(engine: Engine, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "examples" / "oip_client.py"), *arguments]
    command += ["--url", f"127.0.0.1:{engine.port}"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_tritons_client_asks_for_items(recommending: Recommending, engine: Engine) -> None:
    root = engine.project.root
    shutil.copytree(
        recommending.project.root, root, ignore=shutil.ignore_patterns("run", "bundles"), dirs_exist_ok=True
    )
    platform(root, "deploy", "recommend", KAFKA_BOOTSTRAP="")
    named = [line.split("\t") for line in ask(engine, "7").stdout.splitlines()]
    assert len(named) == 10
    assert [float(score) for _, score in named] == sorted((float(score) for _, score in named), reverse=True)
    ranked = ask(engine, "7", "--candidates", *(item for item, _ in reversed(named)))
    assert [line.split("\t") for line in ranked.stdout.splitlines()] == named
    refused = ask(engine, "7", "--candidates", *map(str, range(501)))
    assert refused.returncode == 1
    assert "500" in refused.stderr
    platform(root, "down")
