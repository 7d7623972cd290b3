"""Durations and sizes as people write them: "30s", "2ms", "15m", "1h", "1MiB"."""

import re
from collections.abc import Mapping
from typing import Final

from sunup.bundle.declare.lines import Lines

SECONDS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
BYTES: Final = {"B": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}

_QUANTITY: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)")


def parse_seconds(text: str) -> float:
    """Seconds of a duration such as "30s" or "1.5h". Raises ValueError with what is allowed."""
    number, unit = _split(text, SECONDS, 'a duration such as "30s", "2ms", "15m" or "1h"')
    return number * SECONDS[unit]


def parse_bytes(text: str) -> int:
    """Bytes of a size such as "1MiB" or "512KiB". Raises ValueError with what is allowed."""
    number, unit = _split(text, BYTES, 'a size such as "1MiB" or "512KiB"')
    return int(number * BYTES[unit])


def declared(where: Lines, table: str, key: str, text: str, *, units: Mapping[str, float] = SECONDS) -> float:
    """Seconds, or with `units` BYTES bytes, that a key says; more than 0. Raises UsageError with the key's line."""
    try:
        value = parse_bytes(text) if units is BYTES else parse_seconds(text)
    except ValueError as error:
        raise where.error(table, key, f"[{table}] {key}: {error}") from error
    if value <= 0:
        raise where.error(table, key, f"[{table}] {key} must be more than 0")
    return value


def format_seconds(seconds: float) -> str:
    """The shortest exact way to write a duration: 30.0 -> "30s", 0.002 -> "2ms", 900.0 -> "15m"."""
    for unit in ("h", "m", "s", "ms"):
        amount = seconds / SECONDS[unit]
        if amount >= 1 and amount == int(amount):
            return f"{int(amount)}{unit}"
    return f"{seconds:g}s"


def format_bytes(size: int) -> str:
    """The shortest exact way to write a size: 1048576 -> "1MiB"."""
    unit = next(u for u in ("GiB", "MiB", "KiB", "B") if size % BYTES[u] == 0)
    return f"{size // BYTES[unit]}{unit}"


def _split(text: str, units: dict[str, float] | dict[str, int], wanted: str) -> tuple[float, str]:
    match = _QUANTITY.fullmatch(text.strip())
    if match is None or match[2] not in units:
        raise ValueError(f"{text!r} is not {wanted}")
    return float(match[1]), match[2]
