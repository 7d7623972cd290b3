"""Dead letters sent again: a stream from the dead-letter topic to the topics the records came from.

It is read as a group of its own, `<group>-replay`, and like any stream: what is sent and how far it has read change in
one step. Killed at any moment, it loses nothing and sends nothing twice; the next one goes on where it was.

A position cannot leave a letter out. Letters before the last one to be sent that were not asked for are written to the
end of the dead-letter topic again, in the same step; those behind it are not read at all. Letters that are cut, other
functions' and what is no letter stay where they are and are passed.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from sunup.limits import STREAM_BATCH_RECORDS_MAX, STREAM_BROKER_SECONDS_MAX
from sunup.stream.admin import Admin
from sunup.stream.broker import Broker, BrokerError, Output, Record, Stream, Trouble
from sunup.stream.letters import Letter, letter_of, scan

_WAIT_SECONDS: Final = 3 * STREAM_BROKER_SECONDS_MAX  # s until letters that are there have to have come


class Chosen(NamedTuple):
    """Which letters: those of `function`, of one error code if it is not None."""

    function: str
    code: str | None = None

    def mine(self, letter: Letter | None) -> bool:
        """Whether it is one that a replay of the function may send at all."""
        return letter is not None and letter.function == self.function and not letter.is_cut

    def takes(self, letter: Letter | None) -> bool:
        return letter is not None and self.mine(letter) and self.code in (None, letter.code)


class Plan(NamedTuple):
    """What is to be done. `goals`: partition -> (offset of the last letter to be sent, records up to it). The rest is
    counted: letters to be sent, by code and by topic; to be written again; cut ones of the function that are passed."""

    partitions: frozenset[int]
    goals: Mapping[int, tuple[int, int]]
    codes: Mapping[str, int]
    topics: Mapping[str, int]
    rewritten: int
    cut: int

    @property
    def letters(self) -> int:
        return sum(self.codes.values())


def replay_stream(stream: Stream) -> Stream:
    """The stream that a replay of `stream` is."""
    return Stream(f"{stream.group}-replay", stream.dead_letter, stream.input, stream.dead_letter)


def plan(admin: Admin, stream: Stream, chosen: Chosen, letters_max: int | None = None) -> Plan:
    """What a replay of `stream` would do with the letters there are now, the oldest of each partition first."""
    spans = admin.span(stream.dead_letter)
    positions = admin.positions(replay_stream(stream).group, stream.dead_letter)
    starts = {number: max(first, positions.get(number, first)) for number, (first, _) in spans.items()}
    ends = {number: end for number, (_, end) in spans.items()}
    goals: dict[int, tuple[int, int]] = {}
    codes, topics, seen = Counter[str](), Counter[str](), Counter[int]()
    passed = {"rewritten": 0, "cut": 0}  # up to the last goal
    since = Counter[str]()  # and behind it, in this partition
    last = -1
    for record in scan(admin, stream.dead_letter, starts, ends):
        if record.partition != last:
            last, since = record.partition, Counter()
        letter = letter_of(record)
        seen[record.partition] += 1
        if letter is not None and chosen.takes(letter):
            goals[record.partition] = record.offset, seen[record.partition]
            codes[letter.code] += 1
            topics[letter.source[0]] += 1
            passed = {name: count + since[name] for name, count in passed.items()}
            since.clear()
        elif chosen.mine(letter):
            since["rewritten"] += 1
        elif letter is not None and letter.function == chosen.function:
            since["cut"] += 1
        if letters_max is not None and codes.total() >= letters_max:
            break
    return Plan(frozenset(spans), goals, codes, topics, **passed)


def replay(broker: Broker, stream: Stream, chosen: Chosen, planned: Plan, told: Callable[[int], None]) -> Counter[str]:
    """Do it: letters sent and written again. `broker`: of `replay_stream(stream)`, not joined. `told`: letters sent so
    far. Raises BrokerError; what was counted then is done, and another replay goes on behind it."""
    done = Counter[str]()
    left = {number: count for number, (_, count) in planned.goals.items()}
    for number in sorted(left):  # one by one: a batch then cannot reach beyond its goal
        broker.join(0, 1, planned.partitions - {number})
        until = time.monotonic() + _WAIT_SECONDS
        while left[number] > 0:
            records = broker.poll(1.0, min(left[number], STREAM_BATCH_RECORDS_MAX))
            if not records and time.monotonic() > until:
                what = f"letters of partition {number} of {stream.dead_letter} are there, and none arrives"
                raise BrokerError(Trouble.FAILED, what)
            if records:
                until = time.monotonic() + _WAIT_SECONDS
                outputs = [made for record in records if (made := _output(record, stream, chosen, planned))]
                broker.commit(outputs)
                rewritten = sum(output.topic == stream.dead_letter for output in outputs)
                done += Counter(sent=len(outputs) - rewritten, rewritten=rewritten)
                told(done["sent"])
            for record in records:
                left[record.partition] = _left(record, planned, left)
    return done


def _output(record: Record, stream: Stream, chosen: Chosen, planned: Plan) -> Output | None:
    """What becomes of a record that the position passes."""
    letter = letter_of(record)
    if letter is None or not chosen.mine(letter):
        return None
    goal, _ = planned.goals.get(record.partition, (-1, 0))
    if chosen.takes(letter) and record.offset <= goal:
        return letter.again()
    return Output(stream.dead_letter, record.key, record.value, record.headers)


def _left(record: Record, planned: Plan, left: Mapping[int, int]) -> int:
    """Records of its partition up to the goal, now that this one was passed. Those that are gone are not waited for."""
    goal, _ = planned.goals.get(record.partition, (-1, 0))
    return 0 if record.offset >= goal else left[record.partition] - 1
