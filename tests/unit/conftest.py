"""One connection to the echo function, on both event loops; and a worker of a small bundle."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.small_bundle import logistic, make_bundle
from tests.unit.serving import LOOPS, Echo, Loop, Passed, running
from tests.unit.working import ROWS, Worker


@pytest.fixture(params=sorted(LOOPS))
def loop(request: pytest.FixtureRequest) -> Iterator[Loop]:
    with running(request.param) as loop:
        yield loop


@pytest.fixture
def echo(loop: Loop) -> Echo:
    return loop.call(Echo)


@pytest.fixture
def passed(loop: Loop, echo: Echo) -> Iterator[Passed]:
    with Passed(loop, echo) as passed:
        yield passed
    assert not echo.open


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    return folder / make_bundle(folder, logistic(3), ROWS)


@pytest.fixture
def worker(bundle: Path, tmp_path: Path) -> Worker:
    return Worker(bundle, tmp_path)
