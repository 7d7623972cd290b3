"""From zero to an answer and back to zero, on the test cluster: no call fails, and it is known where the time goes."""

import statistics
from pathlib import Path
from typing import Final

import pytest
from tests.cluster.cold import STAGES, call_at_zero
from tests.cluster.functions import Platform, bundle, platform, runtime

from sunup.bundle.manifest import Scale

__all__ = ["platform", "runtime"]

pytestmark = pytest.mark.timeout(900)

STARTS: Final = 5
POD_SECONDS_MAX: Final = 1.0


def test_calls_at_zero_are_answered_and_their_time_is_accounted_for(platform: Platform, tmp_path: Path) -> None:
    names = [f"score{number}" for number in range(STARTS)]  # they go to zero side by side: each takes 40 s
    for name in names:
        platform.deploy(bundle(tmp_path, 1, function=name, scale=Scale(max=1, idle_s=6.0)))
    colds = [call_at_zero(platform, name) for name in names]
    for cold in colds:
        print(f"{cold.seconds:.2f} s:", {name: round(cold.stages[name], 2) for name in STAGES}, cold.pod)
        assert all(seconds > -0.01 for seconds in cold.stages.values()), "stages follow each other"
        assert {"import", "load", "prove", "listen", "total"} <= cold.pod.keys()
    assert statistics.median(cold.pod["total"] for cold in colds) <= 1000 * POD_SECONDS_MAX
