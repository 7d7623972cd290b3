"""What the scaler looks at: not what is at zero, until something happens to it or its set time comes."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.small_bundle import logistic, make_bundle

from sunup.bundle.manifest import Manifest, Scale, Warm
from sunup.bundle.store import read_manifest
from sunup.engine.local.live import Live
from sunup.engine.local.scaler import Scaler
from sunup.engine.local.state import Revision
from sunup.limits import WARM_CHECK_SECONDS

NAMES = [f"f{number}" for number in range(100)]


class Nobody:
    """Workers and supervisor of an engine in which none is born."""

    able = True

    def __init__(self) -> None:
        self.born: list[str] = []

    def of(self, *_: Any) -> list[Any]:
        return []

    serving = of

    def bear(self, revision: Revision, *_: Any) -> None:
        self.born.append(revision.function)

    def announce(self, _: Live) -> None: ...


class Counting(Live):
    """How often it was looked at."""

    __slots__ = ("looks",)

    def __init__(self, *given: Any) -> None:
        self.looks = 0
        super().__init__(*given)

    def rests(self, now: float, workers: int) -> bool:
        self.looks += 1
        return super().rests(now, workers)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return read_manifest(tmp_path / make_bundle(tmp_path, logistic(1), np.zeros((1, 1))))


def scaled(manifest: Manifest, check: Callable[[Scaler, dict[str, Counting], Nobody], None]) -> None:
    """Run `check` on a scaler of functions at zero that were all looked at once."""

    async def run() -> None:
        nobody = Nobody()
        lives = {name: Counting(Revision(name, 1, "0" * 64, "m/1", {}, 0.0), manifest) for name in NAMES}
        scaler = Scaler(lives, nobody, nobody, lambda: 0.0)  # type: ignore[arg-type]
        for name in lives:
            scaler.later(name)
        scaler.tick()
        check(scaler, lives, nobody)

    asyncio.run(run())


def test_what_is_at_zero_is_looked_at_once(manifest: Manifest) -> None:
    def check(scaler: Scaler, lives: dict[str, Counting], nobody: Nobody) -> None:
        assert [live.looks for live in lives.values()] == [1] * len(NAMES)
        scaler.tick()
        scaler.tick()
        assert [live.looks for live in lives.values()] == [1] * len(NAMES)
        scaler.later("f7")
        scaler.tick()
        assert [name for name, live in lives.items() if live.looks > 1] == ["f7"]
        lives["f8"].waiting = 1
        scaler.later("f8")
        scaler.tick()
        scaler.tick()  # it has none yet, so it is looked at until it has
        assert nobody.born == ["f8", "f8"]
        assert [name for name, live in lives.items() if live.looks > 1] == ["f7", "f8"]
        del lives["f8"]
        scaler.tick()
        assert nobody.born == ["f8", "f8"]

    scaled(manifest, check)


def test_a_set_time_is_not_missed(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    set_times = msgspec.structs.replace(manifest, scale=Scale(warm=(Warm("0 12 * * *", 1, 600.0),)))
    noon = time.mktime((2026, 3, 2, 12, 0, 0, 0, 0, -1))
    wall = [noon - 3600.0]
    monkeypatch.setattr("sunup.engine.local.scaler.time.time", lambda: wall[0])

    def check(scaler: Scaler, lives: dict[str, Counting], nobody: Nobody) -> None:
        scaler.tick()
        assert [live.looks for live in lives.values()] == [1] * len(NAMES)
        now = [asyncio.get_running_loop().time() + WARM_CHECK_SECONDS]
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now[0])
        scaler.tick()
        assert [live.looks for live in lives.values()] == [2] * len(NAMES)
        assert nobody.born == []
        wall[0] = noon
        now[0] += WARM_CHECK_SECONDS
        scaler.tick()
        assert nobody.born == NAMES

    scaled(set_times, check)
