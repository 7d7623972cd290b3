"""Dead letters: the records that could not be scored, as they were, with what was wrong and where they came from."""

from collections.abc import Mapping
from typing import Final

from sunup.errors import CallError
from sunup.limits import STREAM_DEAD_BYTES_MAX
from sunup.stream.broker import Headers, Output, Record

PREFIX: Final = "sunup_"  # of the headers that are ours
ATTEMPT: Final = "sunup_attempt"


class Letters:
    """Of one function. `signature`: what every letter says, for example which revision found fault."""

    def __init__(self, topic: str, signature: Mapping[str, str]) -> None:
        self._topic = topic
        self._signature = {f"{PREFIX}{name}": value for name, value in signature.items()}

    def __repr__(self) -> str:
        return f"Letters({self._topic})"

    def letter(self, record: Record, error: CallError, time: bytes) -> Output:
        """One record and why. What an earlier letter said, of a record that was sent again, is said anew."""
        # With our headers a record of the largest size would be too large, and hold up its partition for ever.
        value = record.value if len(record.value or b"") <= STREAM_DEAD_BYTES_MAX else None
        said = {
            "error_code": error.code,
            "error_message": error.message,
            "error_field": error.field,
            "error_hint": error.hint,
            "topic": record.topic,
            "partition": str(record.partition),
            "offset": str(record.offset),
            "attempt": str(attempts(record.headers) + 1),
            "time": time.decode(),
            "value_bytes": str(len(record.value or b"")) if value != record.value else None,
        }
        ours = [(f"{PREFIX}{name}", text.encode()) for name, text in said.items() if text is not None]
        signed = [(name, text.encode()) for name, text in self._signature.items()]
        theirs = [header for header in record.headers if not header[0].startswith(PREFIX)]
        return Output(self._topic, record.key, value, [*theirs, *ours, *signed])


def attempts(headers: Headers) -> int:
    """How often a record became a dead letter before, as the last of its letters says."""
    said = next((value for name, value in headers if name == ATTEMPT), b"")
    return int(said) if said.isdigit() and len(said) < 10 else 0
