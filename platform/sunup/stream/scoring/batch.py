"""What was polled together, and what is written of it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from sunup.errors import BadRequest, CallError
from sunup.stream.broker import Output, Record
from sunup.stream.scoring.letters import Letters
from sunup.types import Row
from sunup.wire.cloudevent import FRAMED, Event, Outgoing, answering, read, stamp
from sunup.wire.framed import number_of
from sunup.wire.record import RecordCodec

if TYPE_CHECKING:
    from sunup.wire.confluent.schemas import Schemas  # http, ssl: for workers whose records need them


class Batch(NamedTuple):
    """Lists of one length. `rows[i]` is None where nothing is to be scored: record i could not be read, or is ignored.

    `events[i]`: what the record said of itself, None of a plain one. `answers[i]`: the prediction, or why there is
    none; None until record i was scored, and for good where it is ignored. `given[i]`: see types.GivenRows; None where
    nothing is aggregated.
    """

    records: Sequence[Record]
    events: list[Event | None]
    rows: list[Row | None]
    answers: list[bytes | CallError | None]
    given: Sequence[Row] | None = None

    def append(self, event: Event | None, row: Row | None, answer: CallError | None) -> None:
        """What is known of the next record."""
        self.events.append(event)
        self.rows.append(row)
        self.answers.append(answer)


class Written(NamedTuple):
    """What to write of a batch, in the records' order, and how many of its records came to what."""

    outputs: list[Output]
    scored: int
    dead: int
    ignored: int


class Reading:
    """Records -> rows. `content`: see cloudevent.read; `schemas`: of those in Confluent's wire format, learned."""

    def __init__(self, codec: RecordCodec, content: str, schemas: "Schemas | None" = None) -> None:
        self._codec = codec
        self._schemas = schemas
        self._content = content
        self._plain = content in ("auto", "json")  # without headers the value is the record

    def __repr__(self) -> str:
        return f"Reading({self._content}, {self._codec!r})"

    def read(self, records: Sequence[Record], given: Sequence[Row] | None = None) -> Batch:
        """Every record by itself: a bad one is set aside. Decoding them as one list would save a third of this, but
        what is no record in either of two values can be one across them, `{"a":1` and `"b":2}`: a wrong answer."""
        batch, row = Batch(records, [], [], [], given), self._codec.row
        events, rows, answers = batch.events.append, batch.rows.append, batch.answers.append
        for record in records:
            value = record.value
            if self._plain and value and not record.headers:
                try:
                    values = row(value)
                except CallError as error:
                    batch.append(*(self.read_one(record) if value[0] == 0 else (None, None, error)))
                else:
                    events(None)
                    rows(values)
                    answers(None)
            else:
                batch.append(*self.read_one(record))
        return batch

    def read_one(self, record: Record) -> tuple[Event | None, Row | None, CallError | None]:
        """What a batch holds of a record that was read and not scored."""
        if record.value is None:  # a tombstone: its key is gone, and there is nothing to score
            return None, None, None
        event = None
        try:
            event = read(record.value, record.headers, self._content)
            return event, self._row(event), None
        except CallError as error:
            return event, None, error

    def data(self, record: Record) -> bytes | None:
        """The JSON a record holds; None of one without a value. Raises CallError, for an image too."""
        value = record.value
        if value is None or (self._plain and not record.headers and value and value[0] != 0):
            return value
        event = read(value, record.headers, self._content)
        if event.kind not in ("", FRAMED):
            raise BadRequest("the record is an image, which has no fields")
        return self._json(event)

    def _row(self, event: Event) -> Row:
        if event.kind not in ("", FRAMED):
            return self._codec.picture(event.data, event.kind)
        return self._codec.row(self._json(event))

    def _json(self, event: Event) -> bytes:
        if not event.kind:
            return event.data
        if self._schemas is None:
            what = f"the record needs schema {number_of(event.data)}, and the function has no schema registry"
            raise BadRequest(what, code="no_schema_registry", hint="declare [stream] schema_registry in function.toml")
        return self._schemas.json(event.data)


class Writing:
    """Answers -> what goes to `topic` and to the dead letters."""

    def __init__(self, topic: str, outgoing: Outgoing, letters: Letters) -> None:
        self._topic = topic
        self._outgoing = outgoing
        self._letters = letters

    def __repr__(self) -> str:
        return f"Writing({self._topic}, {self._letters!r})"

    def write(self, batch: Batch, wall: float) -> Written:
        """`wall`: seconds since the epoch. Raises TypeError for a record that nothing became of: never a position that
        moves past one nothing is said of."""
        time = stamp(wall)
        topic, begin, outputs, dead, ignored = self._topic, self._outgoing.at(time), list[Output](), 0, 0
        for record, event, answer in zip(batch.records, batch.events, batch.answers, strict=True):
            if type(answer) is bytes:
                outputs.append(Output(topic, record.key, answer, answering(begin, place(record), event)))
            elif isinstance(answer, CallError):
                outputs.append(self._letters.letter(record, answer, time))
                dead += 1
            elif record.value is None:
                ignored += 1
            else:
                raise TypeError(f"{place(record).decode()} has no answer")
        return Written(outputs, len(outputs) - dead, dead, ignored)


def place(record: Record) -> bytes:
    """Where a record is: what makes a doubled output recognisable, and a call findable in the log."""
    return f"{record.topic}-{record.partition}-{record.offset}".encode()
