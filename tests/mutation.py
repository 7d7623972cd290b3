"""Request bodies that were right once: seeded changes of bytes, of JSON values, of structure."""

import json
import random
from collections.abc import Iterator
from typing import Any, Final

TOKENS: Final = (
    b"null", b"true", b"NaN", b"Infinity", b"-1", b"1e999", b"9" * 40, b"0.1", b'""', b'"x"', b"{}", b"[]", b"[[", b"}",
    b'"\\ud800"', b"\xff", b"\0", b",", b":", b"\r\n", b'"', b"\xc3\xbc", b"1" * 5000, b"[" * 2000,
)  # fmt: skip
VALUES: Final[tuple[Any, ...]] = (
    None, True, -1, 0, 2**63, 2**64, 10**400, 1.5, -1e300, "", "x", "\0", "é" * 50, [], {}, [[]], {"b64": 1},
    [None] * 3,
)  # fmt: skip


def mutated(body: bytes, seed: int, count: int) -> Iterator[bytes]:
    """So many changes of `body`; half of them stay JSON where it begins with any."""
    chance = random.Random(seed)
    try:
        parsed: Any = json.loads(body)
    except ValueError:
        parsed = None
    for index in range(count):
        if parsed is not None and index % 2:
            yield json.dumps(_changed(parsed, chance)).encode()
        else:
            yield _scrambled(body, chance)


def _scrambled(body: bytes, chance: random.Random) -> bytes:
    made = bytearray(body)
    for _ in range(chance.randint(1, 4)):
        at, to = sorted(chance.randrange(len(made) + 1) for _ in range(2))
        match chance.randrange(6):
            case 0:
                made[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                made[at:at] = chance.choice(TOKENS)
            case 2:
                made[at:to] = b""
            case 3:
                made[at:at] = made[at:to]
            case 4:
                made[at:to] = chance.choice(TOKENS)
            case _:
                del made[to:]
    return bytes(made)


def _changed(value: Any, chance: random.Random) -> Any:
    """A copy with one value exchanged, removed, doubled or renamed somewhere inside."""
    if chance.random() < 0.15 or not isinstance(value, dict | list) or not value:
        return chance.choice(VALUES)
    way = chance.randrange(6)
    if isinstance(value, dict):
        name = chance.choice([*value])
        if way == 0:
            return {key: one for key, one in value.items() if key != name}
        key = chance.choice([name + "x", "", "é", "0"]) if way == 1 else name
        return {**value, key: _changed(value[name], chance)}
    at = chance.randrange(len(value))
    if way == 0:
        return value[:at] + value[at + 1 :]
    if way == 1:
        return value[: at + 1] + value[at:]
    return [*value[:at], _changed(value[at], chance), *value[at + 1 :]]
