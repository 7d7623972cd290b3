"""The headers of a prediction as Sunup writes them, a CloudEvent's: who does the same work writes them too."""

from datetime import UTC, datetime

ALWAYS = [
    ("content-type", b"application/json"),
    ("ce_specversion", b"1.0"),
    ("ce_type", b"dev.sunup.prediction"),
    ("ce_source", b"/functions/score"),
    ("ce_revision", b"1"),
    ("ce_model", b"score/3"),
]


def headers(topic: str, partition: int, offset: int, time: bytes) -> list[tuple[str, bytes]]:
    """Of the prediction made of one record."""
    return [*ALWAYS, ("ce_id", f"{topic}-{partition}-{offset}".encode()), ("ce_time", time)]


def stamp() -> bytes:
    """Now, in RFC 3339."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f").encode()[:-3] + b"Z"
