"""Dead letters as they are read: what was wrong with which record, and the record again, to be sent once more.

What a letter says is in its headers that begin with PREFIX; everything else of it is the record as it was.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import NamedTuple

from sunup.limits import STREAM_BATCH_RECORDS_MAX
from sunup.stream.admin import Admin
from sunup.stream.broker import Output, Record
from sunup.stream.scoring.letters import ATTEMPT, PREFIX


class Letter(NamedTuple):
    """One dead letter. `source`: (topic, partition, offset) of the record. `attempt`: how often it has become a letter.
    `at`: when it did, in seconds since the epoch. `size`: bytes of its value, also of one that was cut off."""

    record: Record
    function: str
    code: str
    message: str
    field: str
    hint: str
    source: tuple[str, int, int]
    attempt: int
    at: float
    size: int

    @property
    def is_cut(self) -> bool:
        """Whether the value was too large to be kept: there is nothing to send again."""
        return self.size != len(self.record.value or b"")

    def again(self) -> Output:
        """The record as it was, for the topic it was in; the next letter of it counts on."""
        headers = [header for header in self.record.headers if not header[0].startswith(PREFIX)]
        count = (ATTEMPT, str(self.attempt).encode())
        return Output(self.source[0], self.record.key, self.record.value, [*headers, count])


def letter_of(record: Record) -> Letter | None:
    """What a record of a dead-letter topic says; None for one that is no letter."""
    said = {name: value.decode("utf-8", "replace") for name, value in record.headers if name.startswith(PREFIX)}
    said = {name.removeprefix(PREFIX): value for name, value in said.items()}
    if not said.get("topic") or "error_code" not in said:
        return None
    return Letter(
        record,
        function=said.get("function", ""),
        code=said["error_code"],
        message=said.get("error_message", ""),
        field=said.get("error_field", ""),
        hint=said.get("error_hint", ""),
        source=(said["topic"], _number(said.get("partition")), _number(said.get("offset"))),
        attempt=max(1, _number(said.get("attempt"))),
        at=_moment(said.get("time"), record.timestamp),
        size=_number(said.get("value_bytes")) if "value_bytes" in said else len(record.value or b""),
    )


def scan(admin: Admin, topic: str, starts: Mapping[int, int], ends: Mapping[int, int]) -> Iterator[Record]:
    """The records of each partition of `starts` from there to `ends`, partition by partition."""
    for partition, start in sorted(starts.items()):
        at = start
        while at < ends[partition]:
            records = admin.read(topic, partition, at, STREAM_BATCH_RECORDS_MAX)
            if not records:  # what is left are markers of transactions
                break
            yield from (record for record in records if record.offset < ends[partition])
            at = records[-1].offset + 1


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() and len(text) < 20 else 0


def _moment(text: str | None, otherwise: float) -> float:
    try:
        return datetime.fromisoformat(text or "").timestamp()
    except (ValueError, OverflowError):
        return otherwise
