"""What came of every record of an input topic: scored once, a dead letter once, or what else.

It is told every record of the three topics, each partition's in order, and compares: the same for a run of an engine
and for any other program that writes outputs with `ce_id`, `ce_revision` and {"y": x * factor}. A record's place in the
input topic (partition, offset) is its identity; its number, which rises within each key, is its value.
"""

import json
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec
from tests.topics import Entry, malformed

from sunup.stream.broker import Record

KEYS: Final = 1000
SHOWN: Final = 8  # examples of each kind of fault
_BAD: Final = -1  # stands for the number of a malformed record, _NONE for a place without a record
_NONE: Final = -2

Place = tuple[int, int]


class _Answer(msgspec.Struct):
    y: float


_answer: Final = msgspec.json.Decoder(_Answer)


def key_of(number: int) -> bytes:
    return b"k%d" % (number % KEYS)


def entry(number: int) -> Entry:
    """The record of a number."""
    return key_of(number), b'{"x": %d}' % number, []


def entries(numbers: range, bad: float = 0.0) -> Iterator[tuple[Entry, str | None]]:
    """The records of some numbers; of each 100 of them 100 * `bad` are malformed instead, each with the error code it
    must get and a key of its own. They are of ten kinds in turn."""
    kinds = malformed()
    every = round(1 / bad) if bad else 0
    for number in numbers:
        if every and number % every == every // 2:
            code, (_, value, headers) = kinds[number // every % len(kinds)]
            yield (b"bad-%d" % number, value, headers), code
        else:
            yield entry(number), None


@dataclass
class Faults:
    """What is not as it must be; empty when all is. Places are of the input topic."""

    lost: list[Place] = field(default_factory=list)  # neither scored nor a dead letter
    doubled: list[Place] = field(default_factory=list)  # once for each time too many
    wrong: list[str] = field(default_factory=list)  # value, key, revision, error code or original bytes
    unordered: list[str] = field(default_factory=list)  # after a later one of its key, or in another partition
    strange: list[str] = field(default_factory=list)  # of no record of the input topic; input that was written twice

    def __bool__(self) -> bool:
        return any((self.lost, self.doubled, self.wrong, self.unordered, self.strange))

    def __str__(self) -> str:
        said = [f"{len(self.lost)} lost{_where(self.lost)}, {len(self.doubled)} doubled{_where(self.doubled)}"]
        for name in ("wrong", "unordered", "strange"):
            found = getattr(self, name)
            said.append(f"{len(found)} {name}" + "".join(f"\n    {each}" for each in found[:SHOWN]))
        return "\n  ".join(said)


def _where(places: Iterable[Place]) -> str:
    """As runs of offsets: a batch that is lost or doubled is one."""
    runs: list[list[int]] = []
    for partition, offset in sorted(set(places)):
        if runs and runs[-1][0] == partition and runs[-1][2] == offset - 1:
            runs[-1][2] = offset
        else:
            runs.append([partition, offset, offset])
    shown = "; ".join(f"partition {p}: {first}-{last}" for p, first, last in runs[:SHOWN])
    return f" ({shown}{'; ...' if len(runs) > SHOWN else ''})" if runs else ""


class Ledger:
    """Call `sent` for every record of the input topic first, then `scored` and `refused`."""

    def __init__(self, factors: Mapping[int, float], codes: Mapping[bytes, str] | None = None) -> None:
        self.records = 0  # of the input topic
        self.letters = 0
        self.by_revision: Counter[int] = Counter()
        self._factors = factors  # of each revision
        self._codes = codes or {}  # key of a malformed record -> its error code
        self._numbers: dict[int, array[int]] = defaultdict(lambda: array("q"))
        self._bad: dict[Place, tuple[bytes | None, bytes | None, str]] = {}
        self._times: dict[int, array[int]] = {}  # how often each record came out
        self._seen: set[int] = set()
        self._last: dict[bytes, tuple[int, int]] = {}  # key -> output partition and number of its newest output
        self._faults = Faults()

    def sent(self, record: Record) -> None:
        """A record of the input topic."""
        numbers = self._numbers[record.partition]
        numbers.extend([_NONE] * (record.offset - len(numbers)))
        code = self._codes.get(record.key or b"")
        number = _BAD if code is not None else int(json.loads(record.value or b"")["x"])
        if code is not None:
            self._bad[record.partition, record.offset] = record.key, record.value, code
        elif number in self._seen:
            self._faults.strange.append(f"{number} was written twice into the input topic")
        self._seen.add(number)
        numbers.append(number)
        self.records += 1

    def scored(self, record: Record) -> None:
        """A record of the output topic."""
        headers = dict(record.headers)
        *_, partition, offset = headers["ce_id"].rsplit(b"-", 2)
        number = self._count((int(partition), int(offset)), f"an output of {headers['ce_id']!r}")
        if number is None:
            return
        revision = int(headers["ce_revision"])
        self.by_revision[revision] += 1
        factor = self._factors.get(revision)
        if number == _BAD or factor is None or _answer.decode(record.value or b"").y != number * factor:
            self._faults.wrong.append(f"{number} scored {record.value!r} by revision {revision}, factor {factor}")
            return
        if record.key != key_of(number):
            self._faults.wrong.append(f"{number} has the key {record.key!r}")
            return
        if self._times[int(partition)][int(offset)] > 1:
            return  # it is doubled, and of the order the first one tells
        at, last = self._last.get(record.key, (record.partition, -1))
        if at != record.partition or last > number:
            self._faults.unordered.append(f"{record.key!r}: {number} in partition {record.partition}, {last} in {at}")
        self._last[record.key] = record.partition, max(last, number)

    def refused(self, record: Record) -> None:
        """A dead letter."""
        headers = dict(record.headers)
        place = int(headers["sunup_partition"]), int(headers["sunup_offset"])
        code = headers["sunup_error_code"].decode()
        self.letters += 1
        if self._count(place, f"a dead letter of {place}") is None:
            return
        if self._bad.get(place) != (record.key, record.value, code):
            self._faults.wrong.append(f"{place} became a dead letter: {code}, {headers.get('sunup_error_message')!r}")

    def faults(self) -> Faults:
        """After everything was told."""
        found = self._faults
        for partition, numbers in self._numbers.items():
            times = self._times.get(partition, array("q", bytes(8 * len(numbers))))
            for offset, (number, count) in enumerate(zip(numbers, times, strict=True)):
                if number != _NONE and count == 0:
                    found.lost.append((partition, offset))
                found.doubled.extend([(partition, offset)] * (count - 1))
        return found

    def _count(self, place: Place, what: str) -> int | None:
        """The number of the record it is of."""
        partition, offset = place
        numbers = self._numbers.get(partition, ())
        number = numbers[offset] if offset < len(numbers) else _NONE
        if number == _NONE:
            self._faults.strange.append(f"{what}, which is not in the input topic")
            return None
        if partition not in self._times:
            self._times[partition] = array("q", bytes(8 * len(numbers)))
        self._times[partition][offset] += 1
        return number


def tell(ledger: Ledger, sent: Iterable[Record], scored: Iterable[Record], refused: Iterable[Record]) -> Faults:
    """All of three topics at once."""
    for record in sent:
        ledger.sent(record)
    for record in scored:
        ledger.scored(record)
    for record in refused:
        ledger.refused(record)
    return ledger.faults()
