"""One connection to the echo function, on both event loops."""

from collections.abc import Iterator

import pytest
from tests.unit.serving import LOOPS, Echo, Loop, Passed, running


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
