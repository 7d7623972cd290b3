"""What a bundle says of its training sample, and what it must not say."""

import time
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.small_bundle import logistic, make_bundle

from sunup.bundle.manifest import LogSpec
from sunup.cli.features.skew import log_folder
from sunup.errors import BundleDamaged, CommandError
from sunup.limits import TRAINING_CATEGORIES_MAX, TRAINING_ROWS_MIN
from sunup.served.skew.compare import compare
from sunup.served.skew.plot import plot
from sunup.served.skew.profile import Profile, dump, load, measure
from sunup.served.skew.reading import Log
from sunup.settings import Project
from sunup.types import Field

NUMBERS = (Field("a", "float64"), Field("b", "float64"))
START = datetime(2026, 1, 1, tzinfo=UTC).timestamp()


def normal(count: int, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {"a": rng.normal(size=count), "b": rng.normal(size=count)}


def write(path: Path, columns: dict[str, Any], *, begin: float = START, group: int = 500, **more: Any) -> None:
    """A file of the served-feature log, a row a second."""
    count = len(columns["a"])
    times = pa.array([int((begin + at) * 1e6) for at in range(count)], pa.timestamp("us", "UTC"))
    noted = {name: [[] for _ in range(count)] for name in ("defaulted", "stale")} | more
    lists = {name: pa.array(each, pa.list_(pa.string())) for name, each in noted.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"request_id": ["r"] * count, "event_timestamp": times, **columns, **lists, "score": columns["a"]})
    pq.write_table(table, path, row_group_size=group)


@pytest.fixture
def profile() -> Profile:
    return measure(NUMBERS, normal(5000), source="training.parquet")


def test_it_is_read_as_it_was_written(profile: Profile) -> None:
    assert load(dump(profile)) == profile
    assert dump(measure(NUMBERS, normal(5000), source="training.parquet")) == dump(profile)
    assert profile.columns[0].counts == (500,) * 10
    assert profile.columns[0].quantiles[0] == normal(5000)["a"].min()


@pytest.mark.parametrize("data", [b"", b"{}", b'{"version": 2, "rows": 1, "source": "x"}', b"[]"])
def test_another_file_is_damage(data: bytes) -> None:
    with pytest.raises(BundleDamaged, match=r"training\.json"):
        load(data)


def test_odd_numbers_are_profiled() -> None:
    odd = np.array([np.inf, -np.inf, np.nan, 1e308, -1e308, 0.0] * 20)
    found = measure(NUMBERS, {"a": odd, "b": np.full(120, np.nan)}, source="x")
    assert load(dump(found)) == found
    a, b = found.columns
    assert (a.count, a.missing, sum(a.counts)) == (120, 20, 100)
    assert (b.missing, b.quantiles, b.edges, b.counts) == (120, (), (), (0,))


def test_few_rows_have_no_profile() -> None:
    found = measure(NUMBERS, normal(TRAINING_ROWS_MIN - 1), source="input example")
    assert (found.rows, found.columns) == (TRAINING_ROWS_MIN - 1, ())
    assert "too few" in found.problem


def test_no_rare_or_long_text_is_in_it() -> None:
    rng = np.random.default_rng(0)
    names = [f"person {n}" for n in range(1000)]
    often = [f"country {n}" for n in range(30) for _ in range(100 + n)]
    texts = np.array([*names, *often, *["secret" * 20] * 500, *[None] * 7], dtype=object)
    found = measure((Field("t", "string"),), {"t": rng.permutation(texts)}, source="x")
    (column,) = found.columns
    data = dump(found).decode()
    assert "person" not in data
    assert "secret" not in data
    assert len(column.categories) == TRAINING_CATEGORIES_MAX
    assert column.categories[0] == "country 29"
    assert sum(column.counts) + column.missing == len(texts)
    assert column.missing == 7


def test_a_large_sample_is_quick() -> None:
    columns = tuple(Field(f"c{n}", "float64") for n in range(30))
    rows = {column.name: np.random.default_rng(0).normal(size=100_000) for column in columns}

    def seconds() -> float:
        began = time.perf_counter()
        measure(columns, rows, source="x")
        return time.perf_counter() - began

    assert min(seconds() for _ in range(3)) < 0.5


def test_the_log_is_read_in_order_and_by_time(tmp_path: Path, profile: Profile) -> None:
    write(tmp_path / "20260101T000000Z-0.parquet", normal(1000, 1))
    write(tmp_path / "20260101T002000Z-0.parquet", normal(1000, 2), begin=START + 1200, defaulted=[["a"]] * 1000)
    (tmp_path / "20260101T004000Z-0.parquet.tmp").write_bytes(b"half")
    whole = compare(profile, Log(tmp_path, profile.columns).batches())
    assert (whole.rows, whole.times) == (2000, (START, START + 2199))
    assert {skew.column.name: skew.defaulted for skew in whole.skews} == {"a": 0.5, "b": 0.0}
    late = compare(profile, Log(tmp_path, profile.columns, since=START + 1700).batches())
    assert (late.rows, late.times) == (500, (START + 1700, START + 2199))


def test_a_damaged_file_is_named_and_the_others_are_read(tmp_path: Path, profile: Profile) -> None:
    write(tmp_path / "a.parquet", normal(3000, 1))
    whole = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "c.parquet").write_bytes(b"")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "d.parquet")
    log = Log(tmp_path, profile.columns)
    assert compare(profile, log.batches()).rows == 3000
    assert [each.path.name for each in log.skipped] == ["b.parquet", "c.parquet", "d.parquet"]
    assert "event_timestamp" in log.skipped[2].reason
    assert all(each.reason and not each.rows for each in log.skipped)


def test_types_of_the_log(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    fields = (Field("a", "float64"), Field("n", "float64"), Field("t", "string"), Field("f", "bool"))
    trained = {"a": rng.normal(size=500), "n": rng.integers(0, 9, 500) * 1.0, "f": rng.integers(0, 2, 500) * 1.0}
    profile = measure(fields, trained | {"t": np.array(["x", "y"] * 250, dtype=object)}, source="x")
    whole = pa.array([1, None, 3] * 100, pa.int64())
    flags = pa.array([True, False, None] * 100)
    write(tmp_path / "1.parquet", {"a": ["1.5"] * 300, "n": whole, "t": pa.array(["x", None, "z"] * 100), "f": flags})
    found = compare(profile, Log(tmp_path, profile.columns).batches())
    served = {skew.column.name: skew.served for skew in found.skews}
    assert list(found.absent) == ["a"]  # text, where the model takes numbers
    assert (served["n"].count, served["n"].missing) == (300, 100)
    assert (served["t"].counts, served["t"].missing) == ((100, 0, 100), 100)
    assert sorted(served["f"].counts) == [0, 100, 100]


def test_memory_does_not_grow_with_the_log(tmp_path: Path, profile: Profile) -> None:
    for name in range(3):
        write(tmp_path / f"{name}.parquet", normal(200_000, name), group=200_000)
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    most = 0
    log = Log(tmp_path, profile.columns)

    def watched() -> Any:
        nonlocal most
        for batch in log.batches():
            most = max(most, pa.total_allocated_bytes() - before)
            yield batch

    assert compare(profile, watched()).rows == 600_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8e6  # numpy's part: a batch and two samples
    assert most < 32e6  # Arrow's part: pages of one batch


def test_the_log_is_where_the_bundle_says(tmp_path: Path) -> None:
    project, model, rows = Project(tmp_path), logistic(2), np.zeros((1, 2))
    kept = tmp_path / make_bundle(tmp_path, model, rows, log=LogSpec("served/features"))
    assert log_folder(project, kept, None) == tmp_path / "served" / "features"
    assert log_folder(project, kept, Path("elsewhere")) == Path("elsewhere")
    none = tmp_path / make_bundle(tmp_path, model, rows)
    with pytest.raises(CommandError, match="--log DIR"):
        log_folder(project, none, None)


def test_the_picture(tmp_path: Path, profile: Profile) -> None:
    moved = normal(1000, 1)
    moved["a"] += 2
    write(tmp_path / "1.parquet", moved)
    skews = compare(profile, Log(tmp_path, profile.columns).batches()).skews
    for name in ("one.png", "two.png"):
        plot(skews, "fraud $revision_1$", tmp_path / name)
    data = (tmp_path / "one.png").read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert 10_000 < len(data) < 1_000_000
    assert data == (tmp_path / "two.png").read_bytes()
    width, height = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))
    assert (width, height) == (1200, 600)
