"""The spool of the served-feature log: frames torn anywhere, bounds, locks; and how rows get into files once."""

import os
from pathlib import Path

import msgspec
import pytest

from sunup.errors import UsageError
from sunup.limits import SERVED_SPOOL_SIZES
from sunup.served import spool
from sunup.served.schema import Heading, Noted, check, table
from sunup.served.spool import Damaged, Group, SegmentReader, SpoolWriter
from sunup.types import Field

GROUP = Group("fraud", 3, "a" * 64)
HEADING = Heading(
    "fraud", 3, "7", (Field("card", "int64"), Field("mean", "float64")), ("cards",), (Field("score", "float64"),)
)
AT = 1_700_000_000_000_000


def noted(id: str, *cards: int) -> Noted:
    rows = [(card, card / 4) for card in cards]
    return Noted(id, AT, rows, [[card / 8 for card in cards]], None, None, [(1.5,)] * len(cards), None, None)


def payload(*calls: Noted) -> bytes:
    return msgspec.msgpack.encode(calls)


def writer(folder: Path, size: int = 1 << 20, rotate_s: float = 3600.0) -> SpoolWriter:
    return SpoolWriter(folder, GROUP, HEADING, size=size, rotate_s=rotate_s)


def only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def calls_in(path: Path) -> list[Noted]:
    return [call for calls in SegmentReader(path) for call in calls]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    out = writer(tmp_path)
    assert out.write(payload(noted("a", 1), noted("b", 2, 3)))
    assert out.write(payload(noted("c", 4)))
    assert calls_in(only(tmp_path, "*.open")) == [noted("a", 1), noted("b", 2, 3), noted("c", 4)]
    out.close()
    path = only(tmp_path, "*")
    assert SegmentReader(path).heading == HEADING
    assert path.suffix == ".rows"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_segment_cut_at_any_byte_gives_the_frames_before(tmp_path: Path) -> None:
    out = writer(tmp_path)
    ends = []
    for number in range(3):
        out.write(payload(noted(str(number), number)))
        ends.append(only(tmp_path, "*.open").stat().st_size)
    out.close()
    data = only(tmp_path, "*.rows").read_bytes()
    cut = tmp_path / "cut"
    for length in range(len(data) + 1):
        cut.write_bytes(data[:length])
        reader = SegmentReader(cut)
        if reader.heading is None:
            assert length < ends[0]
        assert [call.id for calls in reader for call in calls] == [
            str(n) for n, end in enumerate(ends) if end <= length
        ]


def test_a_changed_byte_is_never_read_as_rows(tmp_path: Path) -> None:
    out = writer(tmp_path)
    out.write(payload(noted("a", 1)))
    out.write(payload(noted("b", 2)))
    out.close()
    path = only(tmp_path, "*.rows")
    data = path.read_bytes()
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :])
        got: list[Noted] = []
        try:
            for calls in SegmentReader(path):
                got += calls
        except Damaged:
            pass
        assert got in ([], [noted("a", 1)]), at


def test_the_bound_holds_over_all_writers_and_rows_fit_again_when_some_are_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "SERVED_LOOK_SECONDS", 0.0)
    one, other = writer(tmp_path, size=4000), writer(tmp_path / ".", size=4000)
    data = payload(noted("a", *range(40)))
    taken = 0
    while one.write(data) and other.write(data):
        taken += 2
    total = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert SERVED_SPOOL_SIZES * 4000 - len(data) - 20 < total <= SERVED_SPOOL_SIZES * 4000
    assert not one.write(data)
    for path in tmp_path.glob("*.rows"):
        path.unlink()
    assert one.write(data)


def test_a_disk_that_is_full_costs_what_did_not_fit_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = writer(tmp_path)
    assert out.write(payload(noted("a", 1)))
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:10]))
    assert not out.write(payload(noted("b", 2)))
    assert not out.write(payload(noted("b", 2))), "nor is there room for another segment's head"
    monkeypatch.setattr(os, "write", write)
    assert out.write(payload(noted("c", 3)))
    out.close()
    assert [call.id for path in sorted(tmp_path.glob("*.rows")) for call in calls_in(path)] == ["a", "c"]


def test_a_spool_that_cannot_be_written_refuses(tmp_path: Path) -> None:
    assert not writer(tmp_path / "gone").write(payload(noted("a", 1)))


def test_a_name_that_two_columns_would_have_is_refused() -> None:
    check(HEADING)
    for name in ("card", "record", "defaulted", "cards__age_s"):
        with pytest.raises(UsageError, match=f"'{name}'.*Rename"):
            check(msgspec.structs.replace(HEADING, outputs=(Field(name, "float64"),)))


def test_rows_of_several_records_keep_whose_they_are() -> None:
    ranked = Noted("r", AT, [(1, 0.5), (2, 0.5)], [[0.1, 0.2]], None, [("r", 4), ("r", 4)], None, [("mean",), ()], None)
    some = Noted("s", AT, [(3, 0.5)], [[0.3]], [7], None, [(None,)], None, [("mean",)])
    columns = dict(zip([field.name for field in HEADING.columns], table(HEADING, [ranked, some]), strict=True))
    assert columns["request_id"] == ["r", "r", "s"]
    assert columns["record"] == [4, 4, 7]
    assert columns["card"] == [1, 2, 3]
    assert columns["cards__age_s"] == [None, None, None]
    assert columns["defaulted"] == [("mean",), (), ()]
    assert columns["stale"] == [(), (), ("mean",)]
    assert columns["score"] == [0.1, 0.2, 0.3]
    assert set(columns["revision"]) == {3}
    assert set(columns["model_version"]) == {"7"}
