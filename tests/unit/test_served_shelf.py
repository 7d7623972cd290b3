"""How spooled rows get into files: when they are due, and exactly once whatever is killed in between."""

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from tests.unit.test_served_spool import GROUP, HEADING, noted, payload, writer

from sunup.clock import ManualClock
from sunup.served.schema import Heading, Noted
from sunup.served.shelf import File, Shelf, Terms
from sunup.served.spool import SpoolWriter


class Lines(File):
    """A file of request ids, one a line."""

    def __init__(self, path: Path, heading: Heading) -> None:
        assert heading == HEADING
        self._path, self._ids, self.rows, self.lost = path, list[str](), 0, 0

    def add(self, calls: Sequence[Noted]) -> None:
        for call in calls:
            self._ids += [call.id] * len(call.rows)
            self.rows += len(call.rows)

    def close(self) -> None:
        self._path.write_text("\n".join(self._ids))


class Killed(BaseException):
    """As if the process had ended."""


class Place:
    """A spool, its shelf, and the files."""

    def __init__(self, root: Path, size: int = 1 << 20, rotate_s: float = 60.0) -> None:
        self.notes, self.spool, self.folder = root / "notes", root / "notes" / "spool", root / "served"
        self.spool.mkdir(parents=True, exist_ok=True)
        self.size, self.rotate_s = size, rotate_s
        self.clock = ManualClock()

    def shelf(self) -> Shelf:
        terms = Terms(self.folder, self.rotate_s, self.size)
        return Shelf(self.notes, self.spool, terms=lambda group: terms if group == GROUP else None, make=Lines)

    def writer(self) -> SpoolWriter:
        return writer(self.spool, self.size, self.rotate_s)

    def move(self, wall: float | None = None, *, everything: bool = False) -> list[list[str]]:
        """The ids of the files that come of it."""
        shelf = self.shelf()
        shelf.recover()
        moved = list(shelf.move(self.clock.wall() if wall is None else wall, everything=everything))
        return [one.path.read_text().split() for one in moved]

    @property
    def ids(self) -> list[str]:
        return [id for path in sorted(self.folder.rglob("*.parquet")) for id in path.read_text().split()]


def begun(place: Place) -> float:
    return min(int(path.suffixes[-2][1:]) / 1000 for path in place.spool.glob("*.rows"))


def test_rows_are_in_a_file_when_they_are_old_enough(tmp_path: Path) -> None:
    place = Place(tmp_path)
    out = place.writer()
    out.write(payload(noted("a", 1)))
    assert place.move(1e12) == [], "a segment that is open is its writer's"
    out.seal()
    at = begun(place)
    assert place.move(at + 59.9) == []
    assert place.move(at + 60.0) == [["a"]]
    assert place.move(1e12) == []
    out.close()
    assert place.shelf().empty()


def test_rows_are_in_a_file_when_they_are_many_enough(tmp_path: Path) -> None:
    place = Place(tmp_path, size=2000)
    out = place.writer()
    for number in range(20):
        assert out.write(payload(noted(str(number), *range(10))))
    files = place.move(0.0)
    assert len(files) >= 2
    assert [id for ids in files for id in ids] == place.ids
    left = place.move(0.0, everything=True)
    out.close()
    rest = [id for ids in left + place.move(0.0) for id in ids]
    assert [id for ids in files for id in ids] + rest == [str(n) for n in range(20) for _ in range(10)]


def test_rows_are_in_a_file_when_nobody_writes_any_more(tmp_path: Path) -> None:
    place = Place(tmp_path)
    one, other = place.writer(), place.writer()
    one.write(payload(noted("a", 1)))
    other.write(payload(noted("b", 2)))
    one.close()
    assert place.move(0.0) == []
    os.close(other._live)  # it is killed: its lock goes, its segment stays open
    assert place.move(0.0) == [["a", "b"]]
    assert place.shelf().empty()
    (path,) = place.folder.rglob("*.parquet")
    assert path.parent == place.folder / "fraud" / "3"
    assert path.stat().st_mode & 0o777 == 0o600


def test_files_that_begin_in_one_second_have_names_of_their_own(tmp_path: Path) -> None:
    place = Place(tmp_path, rotate_s=0.0)
    out = place.writer()
    for number in range(3):
        out.write(payload(noted(str(number), 1)))
        out.seal()
        place.move(1e12)
    out.close()
    names = sorted(path.name for path in place.folder.rglob("*.parquet"))
    assert len(names) == 3
    assert all(name.count("-") == 1 and len(name.partition("-")[0]) == 16 for name in names)


@pytest.mark.parametrize("step", range(12))
def test_a_kill_at_any_step_neither_loses_nor_doubles_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    place = Place(tmp_path)
    out = place.writer()
    for number in range(3):
        out.write(payload(noted(str(number), 1)))
        out.seal()
    out.close()
    done = 0

    def counted(name: str) -> None:
        real = getattr(Path, name)

        def call(path: Path, *given: object, **more: object) -> object:
            nonlocal done
            done += 1
            if done > step:
                raise Killed
            return real(path, *given, **more)

        monkeypatch.setattr(Path, name, call)

    for name in ("rename", "unlink", "chmod"):
        counted(name)
    try:
        place.move(0.0)
    except Killed:
        monkeypatch.undo()
        assert len(place.ids) in (0, 3)
        place.move(0.0)
    else:
        monkeypatch.undo()
        assert step > 8
    assert place.ids == ["0", "1", "2"]
    assert place.shelf().empty()
    assert [path.name for path in place.notes.iterdir()] == ["spool"]


def test_rows_of_another_sunup_are_in_a_file_of_their_own(tmp_path: Path) -> None:
    place = Place(tmp_path)
    terms = Terms(place.folder, 1.0, 1 << 20)
    shelf = Shelf(place.notes, place.spool, terms=lambda _: terms, make=lambda path, _: Lines(path, HEADING))
    for number, heading in enumerate((HEADING, msgspec.structs.replace(HEADING, views=()))):
        out = SpoolWriter(place.spool, GROUP, heading, size=1 << 20, rotate_s=1.0)
        out.write(payload(noted(str(number), 1)))
        out.close()
    assert [moved.rows for moved in shelf.move(0.0)] == [1, 1]


def test_what_is_no_segment_is_left_alone_and_a_damaged_one_says_so(tmp_path: Path) -> None:
    place = Place(tmp_path)
    (place.spool / "notes.txt").write_text("mine")
    (place.spool / f"{GROUP}.0-1.5.rows").write_bytes(b"something else")
    (place.spool / f"{GROUP}.0-1.6.rows").symlink_to("/etc/passwd")
    (place.spool / "../../x.rows").write_bytes(b"")
    (moved,) = place.shelf().move(0.0)
    assert moved.rows == 0
    assert "does not begin as one" in moved.damaged[0]
    assert sorted(path.suffix for path in place.spool.iterdir()) == [".rows", ".txt"]


def test_what_cannot_be_written_stays_and_is_written_later(tmp_path: Path) -> None:
    place = Place(tmp_path)
    out = place.writer()
    out.write(payload(noted("a", 1)))
    out.close()
    full = True

    class Full(Lines):
        def close(self) -> None:
            super().close()
            if full:
                raise OSError(28, "No space left on device")

    terms = Terms(place.folder, 60.0, 1 << 20)
    shelf = Shelf(place.notes, place.spool, terms=lambda _: terms, make=Full)
    for _ in range(2):
        with pytest.raises(OSError, match="No space"):
            list(shelf.move(0.0))
    assert not list(place.folder.rglob("*.*"))
    full = False
    assert [moved.rows for moved in shelf.move(0.0)] == [1]
    assert place.ids == ["a"]


def test_rows_of_a_bundle_that_is_gone_are_kept(tmp_path: Path) -> None:
    place = Place(tmp_path)
    out = SpoolWriter(place.spool, GROUP._replace(revision=4), HEADING, size=1 << 20, rotate_s=1.0)
    out.write(payload(noted("a", 1)))
    out.close()
    assert place.move(1e12, everything=True) == []
    assert not place.shelf().empty()
