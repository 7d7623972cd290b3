"""Dead letters sent again, on the embedded log and on a real Kafka: each once, none lost, and it ends."""

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from tests.contract.test_brokers import Place, place

from sunup.settings import STREAM_BROKER
from sunup.stream.admin import Admin
from sunup.stream.broker import Reader, Record, Stream
from sunup.stream.letters import letter_of
from sunup.stream.open import open_admin, open_broker
from sunup.stream.replay import Chosen, Plan, plan, replay, replay_stream

__all__ = ["place"]
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
ME = Chosen("f")
Entry = tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]


class Replays:
    """The letters of one stream, and replays of them."""

    def __init__(self, place: Place, stream: Stream, log: Path) -> None:
        self.place = place
        self.stream = stream
        self.log = log
        self.settings = {STREAM_BROKER: place.url}

    @property
    def admin(self) -> Admin:
        return open_admin(self.settings, self.log)

    def letters(self, codes: list[str], start: int = 0, **more: bytes) -> None:
        """One for each code; the record's value is its number."""
        entries = [letter(self.stream.input, start + number, code, **more) for number, code in enumerate(codes)]
        self.place.write(self.stream.dead_letter, entries)

    def plan(self, chosen: Chosen = ME, letters_max: int | None = None) -> Plan:
        with closing(self.admin) as admin:
            return plan(admin, self.stream, chosen, letters_max)

    def run(self, chosen: Chosen = ME, planned: Plan | None = None) -> Counter[str]:
        planned = planned or self.plan(chosen)
        broker = open_broker(self.settings, replay_stream(self.stream), self.log, Reader("f-replay"))
        with closing(broker):
            return replay(broker, self.stream, chosen, planned, lambda _: None)

    def sent(self) -> list[Record]:
        found: list[Record] = self.place.read(self.stream.input)
        return found

    def dead(self) -> list[Record]:
        found: list[Record] = self.place.read(self.stream.dead_letter)
        return found


def letter(topic: str, number: int, code: str, *, function: bytes = b"f", **more: bytes) -> Entry:
    headers = {
        "sunup_error_code": code.encode(),
        "sunup_error_message": b"it is wrong",
        "sunup_topic": topic.encode(),
        "sunup_partition": b"3",
        "sunup_offset": b"%d" % number,
        "sunup_time": b"2026-11-22T10:00:00.000Z",
        "sunup_function": function,
        **{f"sunup_{name}": value for name, value in more.items()},
    }
    return b"key %d" % (number % 7), b"%d" % number, [("trace", b"t"), *headers.items()]


@pytest.fixture
def replays(place: Place, stream: Stream, tmp_path: Path) -> Replays:
    place.write(stream.dead_letter, [])
    place.write(stream.input, [])
    return Replays(place, stream, tmp_path / "log" / "stream.db")


def numbers(records: list[Record]) -> list[int]:
    return sorted(int(record.value or b"") for record in records)


def test_every_letter_is_sent_again_as_it_was(replays: Replays) -> None:
    replays.letters(["bad"] * 30, attempt=b"4")
    replays.letters(["worse"] * 20, start=30)
    planned = replays.plan()
    assert (planned.codes, planned.topics) == ({"bad": 30, "worse": 20}, {replays.stream.input: 50})
    assert replays.run(planned=planned) == Counter(sent=50)
    sent = replays.sent()
    assert numbers(sent) == list(range(50))
    assert {record.key for record in sent} == {b"key %d" % number for number in range(7)}
    for record in sent:
        count = b"4" if int(record.value or b"") < 30 else b"1"
        assert sorted(record.headers) == [("sunup_attempt", count), ("trace", b"t")]
    assert len(replays.dead()) == 50  # letters stay where they are


def test_what_was_sent_is_not_sent_again(replays: Replays) -> None:
    replays.letters(["bad"] * 10)
    assert replays.run() == Counter(sent=10)
    assert replays.plan().letters == 0
    assert replays.run() == Counter()
    replays.letters(["bad"] * 10, start=10)
    assert replays.run() == Counter(sent=10)
    assert numbers(replays.sent()) == list(range(20))


def test_letters_that_come_meanwhile_wait_for_the_next_one(replays: Replays) -> None:
    replays.letters(["bad"] * 10)
    planned = replays.plan()
    replays.letters(["bad"] * 10, start=10)  # as when what was sent fails again
    assert replays.run(planned=planned) == Counter(sent=10)
    assert numbers(replays.sent()) == list(range(10))
    assert replays.run() == Counter(sent=10)
    assert numbers(replays.sent()) == list(range(20))


def test_one_code_leaves_the_others_for_later(replays: Replays) -> None:
    replays.letters(["a", "b", "c"] * 20)
    only = Chosen("f", "b")
    planned = replays.plan(only)
    assert planned.codes == {"b": 20}
    assert replays.run(only, planned) == Counter(sent=20, rewritten=planned.rewritten)
    assert 0 < planned.rewritten <= 40
    assert numbers(replays.sent()) == list(range(1, 60, 3))
    assert replays.plan(only).letters == 0
    rest = replays.plan()
    assert rest.codes == {"a": 20, "c": 20}
    assert replays.run() == Counter(sent=40)
    assert numbers(replays.sent()) == list(range(60))
    letters = [found for record in replays.dead() if (found := letter_of(record))]
    assert Counter(each.code for each in letters)["b"] == 20  # written again was only what had to wait
    assert len(letters) == 60 + planned.rewritten
    again = [each.record.headers for each in letters if each.source[2] == 0]
    assert all(sorted(headers) == sorted(again[0]) for headers in again)


def test_a_code_nobody_has_changes_nothing(replays: Replays) -> None:
    replays.letters(["a"] * 10)
    assert replays.run(Chosen("f", "none")) == Counter()
    assert replays.plan().letters == 10
    assert len(replays.dead()) == 10


def test_a_limit_is_kept_and_the_rest_comes_next(replays: Replays) -> None:
    replays.letters(["a"] * 50)
    found = 0
    while count := replays.run(planned=replays.plan(letters_max=15))["sent"]:
        assert count == min(15, 50 - found)
        found += count
        assert len(replays.sent()) == found
    assert numbers(replays.sent()) == list(range(50))


def test_cut_values_other_functions_and_strangers_are_passed(replays: Replays) -> None:
    replays.letters(["a"] * 5)
    replays.letters(["too_large"] * 5, start=5, value_bytes=b"2000000")
    replays.letters(["a"] * 5, start=10, function=b"another")
    replays.place.write(replays.stream.dead_letter, [(b"key %d" % n, b"no letter", []) for n in range(7)])
    replays.letters(["a"] * 50, start=15)
    planned = replays.plan()
    assert (planned.letters, planned.cut, planned.rewritten) == (55, 5, 0)
    assert replays.run(planned=planned) == Counter(sent=55)
    assert numbers(replays.sent()) == [*range(5), *range(15, 65)]
    other = Chosen("another")
    assert replays.plan(other).letters == 0  # with our group; its own is another one
    assert len(replays.dead()) == 72


def test_more_than_a_batch(replays: Replays) -> None:
    replays.letters(["a", "b"] * 3000)
    only = Chosen("f", "b")
    assert replays.run(only)["sent"] == 3000
    assert replays.run()["sent"] == 3000
    assert numbers(replays.sent()) == list(range(6000))


def test_killed_at_any_moment_nothing_is_lost_or_sent_twice(replays: Replays) -> None:
    replays.letters(["a", "b"] * 3000)
    moments = random.Random(7)
    command = [sys.executable, "-m", "tests.replay_program", replays.place.url, str(replays.log), *replays.stream]
    kills = 0
    while replays.plan().letters:
        with subprocess.Popen([*command, "b" if kills % 2 else ""], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            if process.stdout.readline() and kills < 6:
                time.sleep(moments.uniform(0.0, 0.03))  # into the middle of it
                process.send_signal(signal.SIGKILL)
            process.wait(60)
        kills += 1
    assert kills > 1
    assert numbers(replays.sent()) == list(range(6000))
