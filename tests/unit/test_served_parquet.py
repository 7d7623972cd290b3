"""Spooled rows as Parquet: every dtype, lists, bytes, what is missing; and the worker's end in front of it."""

import asyncio
import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from sunup.batch.assemble import Ready
from sunup.clock import ManualClock
from sunup.errors import FeaturesMissing
from sunup.limits import SERVED_PENDING_BYTES_MAX
from sunup.serve.recording.served import ServedLog
from sunup.served import parquet
from sunup.served.parquet import ParquetFile, arrow_schema
from sunup.served.schema import Heading, Noted
from sunup.served.spool import Group, SegmentReader, SpoolWriter
from sunup.types import Call, Field

VALUES: dict[str, Any] = {
    "bool": True,
    "int32": -5,
    "int64": 2**62,
    "float32": 0.5,
    "float64": math.pi,
    "string": "größe",
    "bytes": b"\x00\xff",
}
INPUTS = tuple(Field(f"one_{dtype}", dtype) for dtype in VALUES) + tuple(
    Field(f"many_{dtype}", f"{dtype}[]", (-1,)) for dtype in VALUES
)
OUTPUTS = (Field("score", "float64"), Field("parts", "float32", (2,)), Field("grid", "float64", (1, 2)))
HEADING = Heading("fraud", 3, "7", INPUTS, ("cards", "shops"), OUTPUTS)
ARROW = {
    "bool": pa.bool_(), "int32": pa.int32(), "int64": pa.int64(), "float32": pa.float32(), "float64": pa.float64(),
    "string": pa.string(), "bytes": pa.binary(),
}  # fmt: skip
ROW = (*VALUES.values(), *([value, value] for value in VALUES.values()))
AT = 1_700_000_000_123_456


def call_of(*rows: tuple[Any, ...], **more: Any) -> Noted:
    outputs: list[list[Any]] = [[0.25] * len(rows), [[0.5, 0.5]] * len(rows), [[[1.0, 2.0]]] * len(rows)]
    fields = {"places": None, "origins": None, "ages": None, "defaulted": None, "stale": None} | more
    return Noted("r1", AT, list(rows), outputs, **fields)


def written(folder: Path, *calls: Noted) -> "pa.Table":
    file = ParquetFile(folder / "x.parquet", HEADING)
    file.add(calls)
    file.close()
    return pyarrow.parquet.ParquetFile(folder / "x.parquet").read()


def test_every_type_has_its_own(tmp_path: Path) -> None:
    schema = arrow_schema(HEADING)
    for name, kind in ARROW.items():
        assert schema.field(f"one_{name}").type == kind
        assert schema.field(f"many_{name}").type == pa.list_(kind)
    assert schema.field("event_timestamp").type == pa.timestamp("us", tz="UTC")
    assert (schema.field("record").type, schema.field("revision").type) == (pa.int32(), pa.int32())
    assert schema.field("parts").type == pa.list_(pa.float32())
    assert schema.field("grid").type == pa.list_(pa.list_(pa.float64()))
    got = written(tmp_path, call_of(ROW, places=[4], ages=[[1.5, None]], defaulted=[["a"]], stale=[["b"]]))
    assert got.schema.equals(schema)
    (row,) = got.to_pylist()
    assert list(row) == [
        "request_id", "record", "event_timestamp", "model_version", "revision", *(field.name for field in INPUTS),
        "cards__age_s", "shops__age_s", "defaulted", "stale", "score", "parts", "grid",
    ]  # fmt: skip
    assert [row[field.name] for field in INPUTS] == list(ROW)
    assert (row["record"], row["cards__age_s"], row["shops__age_s"]) == (4, 1.5, None)
    assert (row["defaulted"], row["stale"], row["score"]) == (["a"], ["b"], 0.25)
    assert (row["parts"], row["grid"]) == ([0.5, 0.5], [[1.0, 2.0]])
    assert got["event_timestamp"].cast(pa.int64()).to_pylist() == [AT]


def test_what_is_missing_stays_what_the_model_saw(tmp_path: Path) -> None:
    nothing = (None,) * len(INPUTS)
    nan = (*nothing[:4], math.nan, *nothing[5:])
    rows = written(tmp_path, call_of(nothing, nan)).to_pylist()
    assert all(rows[0][field.name] is None for field in INPUTS)
    assert math.isnan(rows[1]["one_float64"])
    assert rows[1]["defaulted"] == []


def test_rows_come_in_groups_and_one_that_does_not_fit_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "SERVED_GROUP_ROWS", 10)
    bad = (ROW[0], 2**40, *ROW[2:])  # as an int32
    file = ParquetFile(tmp_path / "x.parquet", HEADING)
    for number in range(7):
        file.add([call_of(*[ROW] * 5, bad if number == 3 else ROW)])
    file.close()
    assert (file.rows, file.lost) == (41, 1)
    opened = pyarrow.parquet.ParquetFile(tmp_path / "x.parquet")
    assert opened.read().num_rows == 41
    assert opened.num_row_groups > 3


# --- The worker's end -------------------------------------------------------------------------------------------------


class Spooled:
    """A worker's log, and what got into its spool."""

    def __init__(self, folder: Path, **more: Any) -> None:
        group = Group("fraud", 3, "a" * 64)
        self.folder, self.dropped = folder, 0
        self.spool = SpoolWriter(folder, group, HEADING, size=1 << 20, rotate_s=60.0)
        given: dict[str, Any] = {"sample": 1.0, "clock": ManualClock(wall=AT / 1e6)} | more
        self.log = ServedLog(self.spool, dropped=self.drop, **given)

    def drop(self, rows: int) -> None:
        self.dropped += rows

    @property
    def calls(self) -> list[Noted]:
        paths = sorted(self.folder.glob("*.*.*.*.*.*"))
        return [call for path in paths for calls in SegmentReader(path) for call in calls]


def ready(*rows: tuple[Any, ...], failed: dict[int, Any] | None = None, **more: Any) -> Ready:
    count = len(rows) + len(failed or {})
    positions: Any = [place for place in range(count) if place not in failed] if failed else range(count)
    return Ready(rows, positions, failed or {}, None, None, **more)


def columns(count: int) -> dict[str, Any]:
    return {"score": np.full(count, 0.25), "parts": np.full((count, 2), 0.5), "grid": np.full((count, 1, 2), 1.0)}


def call(count: int, id: str = "r1", **more: Any) -> Call:
    return Call(id=id, rows=[ROW] * count, count=count, deadline=0.0, **more)


async def spooled(out: Spooled, *noted: tuple[Call, Ready, dict[str, Any]]) -> list[Noted]:
    for one in noted:
        out.log.note(*one)
    out.log.close()
    return out.calls


def test_a_call_is_spooled_as_it_was(tmp_path: Path) -> None:
    out = Spooled(tmp_path)
    one = (call(1), ready(ROW, ages=[(1.5, None)]), columns(1))
    some = (call(3, "r2"), ready(ROW, ROW, failed={1: FeaturesMissing("none")}), columns(2))
    first, second = asyncio.run(spooled(out, one, some))
    assert (first.id, first.at, first.places, first.ages) == ("r1", AT, None, [(1.5, None)])
    assert first.rows == [ROW]
    assert first.outputs == [[0.25], [[0.5, 0.5]], [[[1.0, 1.0]]]]
    assert (second.id, second.places, len(second.rows)) == ("r2", [0, 2], 2)
    assert out.dropped == 0


def test_numpys_own_values_are_values(tmp_path: Path) -> None:
    row = (np.bool_(True), np.int32(1), *ROW[2:])
    (one,) = asyncio.run(spooled(Spooled(tmp_path), (call(1), ready(row), columns(1))))
    assert one.rows[0][:2] == (True, 1)


def test_a_record_of_which_a_candidate_failed_has_no_rows(tmp_path: Path) -> None:
    ranked = call(4, origins=[("r1", 0), ("r1", 0), ("r1", 1), ("r1", 1)])
    answered = ready(ROW, ROW, ROW, failed={1: FeaturesMissing("none")})
    (one,) = asyncio.run(spooled(Spooled(tmp_path), (ranked, answered, columns(3))))
    assert one.origins == [("r1", 1), ("r1", 1)]
    assert len(one.rows) == len(one.outputs[0]) == 2


def test_what_cannot_be_kept_is_dropped_and_counted_and_no_call_fails(tmp_path: Path) -> None:
    odd = (object(), *ROW[1:])
    out = Spooled(tmp_path)
    (one,) = asyncio.run(spooled(out, (call(1), ready(odd), columns(1)), (call(1, "r2"), ready(ROW), columns(1))))
    assert (one.id, out.dropped) == ("r2", 1)
    away = Spooled(tmp_path / "gone")
    assert asyncio.run(spooled(away, (call(2), ready(ROW, ROW), columns(2)))) == []
    assert away.dropped == 2
    slow = Spooled(tmp_path)
    slow.log._pending = SERVED_PENDING_BYTES_MAX
    slow.log.note(call(1), ready(ROW), columns(1))
    assert slow.dropped == 1


def test_a_share_is_kept(tmp_path: Path) -> None:
    out = Spooled(tmp_path, sample=0.5)
    kept = asyncio.run(spooled(out, *[(call(1, str(n)), ready(ROW), columns(1)) for n in range(2000)]))
    assert 850 < len(kept) < 1150
    assert out.dropped == 0


def test_rows_reach_the_spool_soon_and_a_segment_ends_in_time(tmp_path: Path) -> None:
    async def until(there: Any) -> None:
        while not there():
            await asyncio.sleep(0.01)

    async def run() -> None:
        out = Spooled(tmp_path)
        out.spool.seconds_max = 0.2
        out.log.note(call(1), ready(ROW), columns(1))
        async with asyncio.timeout(10):
            await until(lambda: any(path.stat().st_size > 400 for path in tmp_path.glob("*.open")))
            await until(lambda: list(tmp_path.glob("*.rows")))
        out.log.note(call(1, "r2"), ready(ROW), columns(1))
        out.log.close()
        assert [one.id for one in out.calls] == ["r1", "r2"]

    asyncio.run(run())


def test_the_heading_is_read_as_written() -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(HEADING), type=Heading) == HEADING
