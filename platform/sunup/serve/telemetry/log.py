"""Logs as JSON lines: one object per line with time, level, logger, message, and whatever the call site names.

Nothing here reads headers or bodies, so nothing secret or personal gets into a log unless a call site puts it there.
"""

import logging
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any, Final

import msgspec

LEVEL: Final = "SUNUP_LOG_LEVEL"  # environment variable: DEBUG, INFO (default), WARNING, ERROR

_OWN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """One line per record. `always`: fields every line carries. `extra={"id": ...}` at the call site adds fields."""

    def __init__(self, always: Mapping[str, Any]) -> None:
        super().__init__()
        self._always = {name: value for name, value in always.items() if value is not None}
        self._encode = msgspec.json.Encoder(enc_hook=str).encode

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._always,
            **{name: value for name, value in vars(record).items() if name not in _OWN},
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return self._encode(line).decode()


def configure(path: Path | None, **always: Any) -> None:
    """Send every log of this process to the file at `path` (found again when it is rotated away), or to stderr.

    `always`: fields for every line, such as function and revision. The level comes from SUNUP_LOG_LEVEL.
    """
    handler = logging.StreamHandler(sys.stderr) if path is None else WatchedFileHandler(path, encoding="utf-8")
    handler.setFormatter(JsonLines(always))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    level = logging.getLevelNamesMapping().get(os.environ.get(LEVEL, "INFO").upper(), logging.INFO)
    root.setLevel(level)
    # Kafka's client tells every connection at INFO. What matters of it, our own lines say.
    logging.getLogger("kafka").setLevel(max(level, logging.WARNING) if level > logging.DEBUG else level)
