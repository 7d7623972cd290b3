"""Judges of single values: names, quantities, durations, numbers, references of images.

Each gives what is wrong and what to write, or None.
"""

import math
import re
from base64 import b64decode
from collections.abc import Callable, Collection
from typing import Any, Final

from sunup.bundle.declare.kubernetes.quantity import parse_quantity
from sunup.bundle.declare.lines import closest
from sunup.engine.kubernetes.check.schema import Judge

_DNS_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_DNS_NAME: Final = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_DNS_1035: Final = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_LABEL_VALUE: Final = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
_LABEL_KEY: Final = re.compile(r"([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_SECRET_KEY: Final = re.compile(r"[A-Za-z0-9._-]{1,253}")
_GO_DURATION: Final = re.compile(r"([+-]?)((?:\d+(?:\.\d+)?(?:h|ms|m|us|ns|s))+|0)")
_GO_UNITS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
# github.com/distribution/reference: host and path, no tag, a digest
_REFERENCE: Final = re.compile(
    r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:\d+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+@sha256:[0-9a-f]{64}"
)


def anything(_: Any) -> str | None:
    """Whatever it is, the API server judges it."""
    return None


def boolean(value: Any) -> str | None:
    """true or false."""
    return None if isinstance(value, bool) else f"{value!r} is neither true nor false"


def text(value: Any) -> str | None:
    """Some text."""
    return None if isinstance(value, str) and value else f"{value!r} is no text; write one"


def exactly(*allowed: object) -> Judge:
    """One of these values."""

    def judge(value: Any) -> str | None:
        if any(value == one and type(value) is type(one) for one in allowed):
            return None
        listed = ", ".join(map(str, allowed))
        near = closest(str(value), map(str, allowed))
        return f"{value!r} is none of: {listed}.{near}".removesuffix(".")

    return judge


def number(low: int, high: int, why: str = "") -> Judge:
    """A whole number between, both included. `why`: whose bounds they are."""

    def judge(value: Any) -> str | None:
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return None
        return f"{value!r} is no whole number from {low} to {high}{f', {why}' if why else ''}"

    return judge


def written(low: float, high: float = math.inf, *, whole: bool = True) -> Judge:
    """A number as text, as annotations and KEDA have it."""
    upto = "on" if high == math.inf else f"to {high:g}"
    wanted = f'a {"whole " if whole else ""}number from {low:g} {upto} as text, such as "{max(low, 1):g}"'

    def judge(value: Any) -> str | None:
        if not isinstance(value, str) or not re.fullmatch(r"-?\d+" if whole else r"-?\d+(\.\d+)?", value):
            return f"{value!r} is not {wanted}"
        return None if low <= float(value) <= high else f"{value!r} is not {wanted}"

    return judge


def duration(low: float, high: float) -> Judge:
    """A time in whole seconds as Go writes it, such as 30s or 1h0m0s."""

    def judge(value: Any) -> str | None:
        wanted = f"a time of whole seconds from {low:g}s to {high:g}s"
        try:
            seconds = go_seconds(value)
        except ValueError:
            return f"{value!r} is not {wanted}"
        return None if low <= seconds <= high and seconds == int(seconds) else f"{value!r} is not {wanted}"

    return judge


def go_seconds(value: object) -> float:
    """Seconds of a time.Duration as text. Raises ValueError."""
    match = _GO_DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{value!r} is no duration")
    parts = re.findall(r"(\d+(?:\.\d+)?)(h|ms|m|us|ns|s)", match[2])
    seconds = sum(float(amount) * _GO_UNITS[unit] for amount, unit in parts)
    return -seconds if match[1] == "-" else seconds


def quantity(value: Any) -> str | None:
    """A quantity of Kubernetes, not less than 0."""
    try:
        if isinstance(value, str) and parse_quantity(value) >= 0:
            return None
    except ValueError:
        pass
    return f'{value!r} is no quantity of Kubernetes, such as "500m" or "512Mi"'


def cores_of_gpu(value: Any) -> str | None:
    """GPUs are whole: Kubernetes shares none."""
    return None if isinstance(value, str) and re.fullmatch(r"[1-9]\d*", value) else f'{value!r} is no count such as "1"'


def _matching(pattern: "re.Pattern[str]", what: str) -> Judge:
    def judge(value: Any) -> str | None:
        return None if isinstance(value, str) and pattern.fullmatch(value) else f"{value!r} is no {what}"

    return judge


name_1035: Final = _matching(
    _DNS_1035, "name for it: up to 63 small letters, digits and -, a letter first, no - at the end"
)
dns_label: Final = _matching(_DNS_LABEL, "name for it: up to 63 small letters, digits and -, no - at either end")
dns_name: Final = _matching(_DNS_NAME, "name for it: up to 253 small letters, digits, - and .")
label_value: Final = _matching(
    _LABEL_VALUE, "value of a label: up to 63 letters, digits, -, _ and ., a letter or digit at both ends"
)
label_key: Final = _matching(_LABEL_KEY, "key of a label, such as sunup.dev/function")
secret_key: Final = _matching(_SECRET_KEY, "key of a Secret: letters, digits, -, _ and .")
reference: Final = _matching(_REFERENCE, "reference with a digest, host:port/name@sha256:...; a tag may move")


def shorter(judge: Judge, most: int, why: str) -> Judge:
    """The same, with fewer characters at most. `why`: what is made of it."""

    def judged(value: Any) -> str | None:
        if isinstance(value, str) and len(value) > most:
            return f"{value} has {len(value)} characters, and {most} is the most: {why}"
        return judge(value)

    return judged


def listed(of: Judge, *, some: bool = True) -> Judge:
    """A list of values that each are right. `some`: at least one."""

    def judge(value: Any) -> str | None:
        if not isinstance(value, list) or (some and not value):
            return "it must be a list of at least one"
        return next(filter(None, map(of, value)), None)

    return judge


def base64(value: Any) -> str | None:
    """Bytes in base64."""
    try:
        b64decode(value, validate=True)
    except (TypeError, ValueError):
        return "it is not base64"
    return None


def not_in(forbidden: Collection[object], why: str, otherwise: Callable[[Any], str | None] = text) -> Judge:
    """None of these. `why`: the rest of the sentence that begins with the value."""

    def judge(value: Any) -> str | None:
        return f"{value} {why}" if value in forbidden else otherwise(value)

    return judge
