"""What a stream worker tells of the views it aggregates, and when."""

from pathlib import Path
from typing import Any

from sunup.link.counters import Segment
from sunup.serve.streams.features import FeatureNews
from sunup.serve.telemetry.meter import StreamMeter, stream_series
from sunup.stream.aggregate.partition import Counts, Facts

VIEW = "velocity"


class Slow:
    """Aggregates whose entities take a while to count. Also the clock."""

    def __init__(self) -> None:
        self.seconds = 100.0
        self.is_written = True

    def now(self) -> float:
        return self.seconds

    wall = now

    def facts(self) -> list[Facts]:
        self.seconds += 0.5
        return [Facts(10, 0, 0.0, "", 0)]


def test_the_last_word_has_all_that_was_counted(tmp_path: Path) -> None:
    slow = Slow()
    meter = StreamMeter(Segment.create(tmp_path / "f.seg", stream_series("f", [], [], [], aggregated=[VIEW])))
    news = FeatureNews([VIEW], meter, slow)
    news.aggregates = slow  # type: ignore[assignment]

    def count(late: int) -> None:
        news.aggregated(VIEW, Counts(1, late, 0))
        news.committed([0], [""], [0], 0.01)

    def told() -> dict[str, Any]:
        return {word["op"]: word for word in news.words()}

    count(2)
    news.polled(None, [0])
    assert told()["features"]["views"][VIEW]["late"] == 2
    count(3)
    news.polled(None, [0])
    assert "features" not in told(), "counting entities took long, so it is not done again soon"
    news.polled(None, [0], last=True)
    news.settled()
    words = told()
    assert words["features"]["views"][VIEW]["late"] == 5
    assert list(words)[-1] == "settled"
