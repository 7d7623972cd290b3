"""What the bench of streams makes of what it saw."""

import math

import pytest
from tests.bench.bench_stream import bodies, check
from tests.bench.stream.arrivals import Arrived, collect, latency, per_second


class Played:
    """Arrivals that come at given times of a clock of their own."""

    def __init__(self, batches: list[list[Arrived]]) -> None:
        self._batches = batches

    def take(self, seconds: float) -> list[Arrived]:  # noqa: ARG002 - none waits
        return self._batches.pop(0) if self._batches else []


def seen(count: int, at: float, first: int = 0) -> list[Arrived]:
    return [Arrived(str(first + n).encode(), b'{"score":0.5}', at) for n in range(count)]


def test_a_rate_is_of_whole_intervals_between_bursts() -> None:
    steady = [one for n in range(11) for one in seen(10, n / 10)]
    assert per_second(steady) == pytest.approx(100)
    bursts = [*seen(400, 1.0), *seen(100, 1.1), *seen(500, 6.0)]  # 500 records each 5 s
    assert per_second(bursts) == pytest.approx(100)


def test_collecting_ends_with_the_first_records_after_the_time() -> None:
    batches = [seen(5, 1.0), [], seen(5, 2.5), seen(5, 4.0), seen(5, 5.0)]
    found = collect(Played(batches), 100, 2.0, lambda: "", patience=math.inf)  # type: ignore[arg-type]
    assert len(found) == 15
    batches = [seen(5, 1.0), seen(5, 1.5), seen(5, 1.7)]
    assert len(collect(Played(batches), 10, 2.0, lambda: "")) == 10  # type: ignore[arg-type]


def test_collecting_gives_up_where_nothing_comes() -> None:
    with pytest.raises(TimeoutError, match=r"0 of 10 records.*it sleeps"):
        collect(Played([]), 10, 1.0, lambda: "it sleeps", patience=0.0)  # type: ignore[arg-type]


def test_latency_runs_from_when_a_record_was_due() -> None:
    due = [10 + n / 1000 for n in range(200)]
    found = [Arrived(str(n).encode(), b"", due[n] + (0.5 if n == 150 else 0.005)) for n in range(199)]
    found.append(found[-1]._replace(at=99.0))  # a second time: the first counts
    p50, p99, lost, late = latency(due, found, [0.001] * 200, skip=100)
    assert (round(p50, 6), lost, late) == (5.0, 1, 1.0)
    assert p99 == math.inf  # of 100, one never came and one was late
    assert latency(due, found, [0.0] * 200, skip=0).p99_ms == pytest.approx(500)


def test_wrong_doubled_and_defaulted_answers_end_the_bench() -> None:
    right = [0.5, 0.25]
    check([Arrived(b"0", b'{"score":0.5}', 0.0), Arrived(b"3", b'{"score":0.2500001}', 0.0)], right)
    for bad in (b'{"score":0.51}', b'{"score":0.5,"defaulted":["f10"]}', b'{"score":0.5,"stale":["f10"]}'):
        with pytest.raises(SystemExit, match="record b'0'"):
            check([Arrived(b"0", bad, 0.0)], right)
    with pytest.raises(SystemExit, match="twice"):
        check(seen(1, 0.0) * 2, right)


def test_records_differ() -> None:
    assert len({*bodies()}) == len(bodies())
