"""The example of a web application, started as it says, beside an engine that wants a key."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.engine_fixture import Engine, until
from tests.fraud_fixture import ROOT, Trained
from tests.ports import free_port
from tests.service.test_cli import platform

from sunup.access import keys
from sunup.engine.access import Rules

pytestmark = pytest.mark.timeout(900)  # the first test waits for a whole training
USUAL, UNUSUAL = {"amount": "12.50", "km_from_home": "2"}, {"amount": "4000", "km_from_home": "9000"}


@pytest.fixture
def guarded(trained: Trained, tmp_path: Path) -> Iterator[tuple[Engine, str]]:
    """An engine that serves fraud to callers with a key, and the shop's."""
    root = tmp_path / "p"
    shutil.copytree(trained.project.root, root, ignore=shutil.ignore_patterns("run", "bundles", "log.db*"))
    text, key = keys.make(name="shop", functions=["fraud"])
    keys.add(root / ".sunup" / "keys.jsonl", key)
    engine = Engine(root)
    engine.up(Rules(api_keys=str(root / ".sunup" / "keys.jsonl")))
    platform(root, "deploy", "fraud-v3", "--json")
    yield engine, text
    platform(root, "down")


@pytest.fixture
def shop(guarded: tuple[Engine, str]) -> Iterator[httpx.Client]:
    engine, key = guarded
    port = free_port()
    url = f"http://127.0.0.1:{engine.port}/functions/fraud"
    command = [sys.executable, "-m", "uvicorn", "examples.web_app.app:app", "--port", str(port)]
    env = os.environ | {"FUNCTION_URL": url, "SUNUP_API_KEY": key}
    with (
        subprocess.Popen(command, cwd=ROOT, env=env) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}") as web,
    ):
        until(lambda: answers(web), "the shop to open")
        yield web
        process.terminate()


def answers(web: httpx.Client) -> bool:
    try:
        return "<form" in web.get("/").text
    except httpx.ConnectError:
        return False


def test_the_shop_asks_before_it_takes_a_payment(guarded: tuple[Engine, str], shop: httpx.Client) -> None:
    engine, _ = guarded
    assert 'class="allow"' in shop.post("/pay", data=USUAL).text
    blocked = shop.post("/pay", data=UNUSUAL, headers={"x-request-id": "order-7"}).text
    assert 'class="block"' in blocked
    assert "order-7" in blocked
    assert shop.post("/pay", data={"amount": "much"}).status_code == 400
    engine.remove("fraud")
    assert 'class="review"' in shop.post("/pay", data=USUAL).text
