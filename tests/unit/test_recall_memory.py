"""What batch/recall.py remembers of rows and pictures, how it is bounded, and what makes two of them the same."""

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from sunup.batch.recall import Recall
from sunup.clock import ManualClock
from sunup.errors import CallError
from sunup.types import CacheSpec, Call, Field, Row, Timings

FIELDS = (Field("amount", "float64"), Field("age", "float64"), Field("town", "string"), Field("note", "string"))
IDENTICAL = CacheSpec(identical_s=5.0)


def row(amount: float, age: float = 1.0, town: str = "oslo", note: str = "") -> Row:
    return (amount, age, town, note)


def recall(**more: Any) -> Recall:
    return Recall(IDENTICAL, FIELDS, None, clock=ManualClock(), tell=lambda *_: None, **more)


def kept(memory: Recall, *rows: Row) -> list[bool]:
    """Which of `rows` were known; those that were not are from now on."""
    seen = memory.look(rows, Timings())
    memory.finish(seen, [np.arange(float(len(seen.rows)))])
    return [known is not None for known in seen.known]


def test_it_is_bounded_in_rows_and_the_longest_unused_goes() -> None:
    memory = recall(rows_max=2)
    for one in (row(1), row(2), row(1), row(3)):
        kept(memory, one)
    assert kept(memory, row(1)) == [True]
    assert kept(memory, row(2)) == [False]
    assert "2 of 2" in repr(memory)


def test_it_is_bounded_in_bytes_and_long_rows_are_kept_short() -> None:
    memory = recall(bytes_max=10_000)
    long = "x" * 1_000_000
    kept(memory, row(1, town=long), row(1, town=long + "y"))
    assert kept(memory, row(1, town=long), row(1, town=long + "y")) == [True, True]
    kept(memory, *[row(n) for n in range(500)])
    assert kept(memory, row(499)) == [True]
    assert kept(memory, row(0)) == [False]


def test_what_is_kept_is_no_view_of_a_whole_run() -> None:
    memory = recall()
    outputs = [np.zeros((100, 10))]
    seen = memory.look([row(n) for n in range(100)], Timings())
    assert memory.finish(seen, outputs)[0] is outputs[0]
    (again,) = memory.finish(memory.look([row(7)], Timings()), [])
    assert (again.shape, again.base) == ((1, 10), None)


@pytest.mark.parametrize(
    ("one", "other"),
    [(1, 1.0), (True, 1), ("1", b"1"), ("", None), ([1, 2], [12]), (["a", "b"], ["ab"]), (0.0, -0.0)],
)
def test_values_of_different_kinds_never_meet(one: Any, other: Any) -> None:
    memory = recall()
    assert kept(memory, (one, 0, "", ""), (other, 0, "", "")) == [False, False]
    assert kept(memory, (one, 0, "", ""), (other, 0, "", "")) == [True, True]


def test_values_out_of_arrays_make_keys() -> None:
    memory = recall()
    rows = [(np.float32(1.5), np.arange(3), np.array(["a"], dtype=object), b"")]
    assert kept(memory, *rows) == [False]
    assert kept(memory, *rows) == [True]
    with pytest.raises(TypeError, match="no key"):
        kept(memory, (object(), 0, "", ""))


# --- Pictures ---------------------------------------------------------------------------------------------------------


class Decoder:
    """Stands for wire/image: counts pictures; b"bad" is none."""

    def __init__(self) -> None:
        self.decoded: list[bytes] = []

    async def __call__(self, call: Call, _: Timings) -> Call:
        rows, failed = [], {}
        for place, (data, *_rest) in enumerate(call.rows):
            self.decoded.append(data)
            if data == b"bad":
                failed[place] = CallError("no picture")
            else:
                rows.append((len(data),))
        return msgspec.structs.replace(call, rows=rows, failed=failed)


def pictured() -> tuple[Decoder, Callable[..., tuple[Call, list[float]]]]:
    memory, decoder = Recall(IDENTICAL, FIELDS[:1], None, clock=ManualClock(), tell=lambda *_: None), Decoder()

    async def run(_: Call, rows: Sequence[Row], __: Timings) -> list[NDArray[Any]]:
        return [np.array([float(size) for (size,) in rows])] if rows else []

    def ask(*pictures: bytes, failed: Mapping[int, CallError] = {}) -> tuple[Call, list[float]]:
        call = Call("id", [(data,) for data in pictures], len(pictures) + len(failed), math.inf, failed)
        call, outputs = asyncio.run(memory.pictures(call, Timings(), decoder, run))
        return call, outputs[0].tolist() if outputs else []

    return decoder, ask


def test_a_picture_is_known_before_it_is_decoded() -> None:
    decoder, ask = pictured()
    assert ask(b"one", b"three", b"one")[1] == [3.0, 5.0, 3.0]
    assert ask(b"three", b"seven!!", b"one")[1] == [5.0, 7.0, 3.0]
    assert decoder.decoded == [b"one", b"three", b"seven!!"]


def test_pictures_that_are_none_fail_alone_each_time() -> None:
    decoder, ask = pictured()
    ask(b"one")
    call, scores = ask(b"one", b"bad", b"five!", b"bad", failed={1: CallError("before")})
    assert (scores, sorted(call.failed)) == ([3.0, 5.0], [1, 2, 4])
    assert [data for (data,) in call.rows] == [b"one", b"five!"]
    call, scores = ask(b"bad")
    assert (scores, sorted(call.failed)) == ([], [0])
    assert decoder.decoded.count(b"bad") == 2
