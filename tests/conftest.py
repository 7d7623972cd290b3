"""What every test may use."""

import os
import re
from pathlib import Path

import pytest

for _name in ("COLUMNS", "LINES"):  # readline leaves them to the sessions that pytest-xdist starts: nobody meant them
    os.environ.pop(_name, None)

pytest_plugins = [
    "tests.engine_fixture",
    "tests.fraud_fixture",
    "tests.image_parts",
    "tests.kafka_fixture",
    "tests.recommend_fixture",
    "tests.registry_server",
]


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """pytest-xdist calls the folder of a session popen-gw0; with 0 there is more room for what engines have to fit into
    the 108 bytes of a Unix socket's path."""
    if session := os.environ.get("PYTEST_XDIST_WORKER"):
        config.option.basetemp = str(Path(config.option.basetemp).with_name(session.removeprefix("gw")))


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As pytest's own, with less of the test's name in it, for the same reason."""
    return tmp_path_factory.mktemp(re.sub(r"\W", "_", request.node.name)[:16])
