"""API keys: how one is made, and the file that holds their SHA-256 digests, one JSON object a line.

    {"id": "3f2a9c1b04de", "sha256": "3f2a9c1b04de...", "name": "web", "functions": ["fraud"], "created": "2026-01-..."}

A key is 256 random bits, so a plain digest of it cannot be searched and needs no salt and no slow hash. The file never
holds a key. It is replaced whole, so a reader sees the old lines or the new ones.
"""

import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from sunup.errors import CommandError, UsageError
from sunup.limits import KEYS_BYTES_MAX

PREFIX: Final = "sunup_"  # so that people and scanners for leaked secrets know one when they see it
_ID_DIGITS: Final = 12


class Key(msgspec.Struct, frozen=True):
    """One key as it is kept. `sha256`: 64 hexadecimal digits; `functions`: what it covers, None for all of them."""

    id: str
    sha256: str
    name: str = ""
    functions: tuple[str, ...] | None = None
    created: str = ""

    def covers(self, function: str) -> bool:
        """Whether calls to a function may be made with it."""
        return self.functions is None or function in self.functions


def make(*, name: str, functions: Sequence[str] | None) -> tuple[str, Key]:
    """A new key: its text, which is kept nowhere, and what is kept of it."""
    text = PREFIX + secrets.token_urlsafe(32)
    digest = digest_of(text.encode()).hex()
    created = datetime.now(UTC).isoformat(timespec="seconds")
    return text, Key(digest[:_ID_DIGITS], digest, name, None if functions is None else tuple(functions), created)


def digest_of(text: bytes) -> bytes:
    """SHA-256 of a key's text: 32 bytes."""
    return hashlib.sha256(text).digest()


def read(path: Path) -> list[Key]:
    """The keys of a file; blank lines and lines that begin with # say nothing.

    Raises CommandError that names the line. What a line holds is not repeated: it may be a key by mistake.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CommandError(f"The key file {path} cannot be read: {error.strerror}.") from error
    if len(data) > KEYS_BYTES_MAX:
        raise CommandError(f"The key file {path} has {len(data)} bytes; {KEYS_BYTES_MAX} is the most that is read.")
    found = []
    for number, line in enumerate(data.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith(b"#"):
            continue
        try:
            key = msgspec.json.decode(line, type=Key)
            if len(bytes.fromhex(key.sha256)) != hashlib.sha256().digest_size:
                raise ValueError("not a digest")  # noqa: TRY301  # one message for whatever is wrong with a line
        except (msgspec.DecodeError, ValueError):
            raise CommandError(
                f"Line {number} of the key file {path} is not a key's record. `platform keys new` writes them."
            ) from None
        found.append(key)
    return found


def add(path: Path, key: Key) -> None:
    """Append a key's record; the file is made, for its owner only, where there is none. Raises CommandError."""
    with _changing(path) as keys:
        keys.append(key)


def revoke(path: Path, which: str) -> list[Key]:
    """Drop the keys with this id, or this name; those that went. Raises UsageError when there is none."""
    with _changing(path) as keys:
        gone = [key for key in keys if which in (key.id, key.name)]
        if not gone:
            raise UsageError(f"There is no key {which} in {path}. `platform keys list` shows what there is.")
        keys[:] = [key for key in keys if key not in gone]
    return gone


@contextmanager
def _changing(path: Path) -> Iterator[list[Key]]:
    """The keys of a file, to change. One process at a time; the file is replaced when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        keys = read(path) if path.exists() else []
        yield keys
        data = b"".join(msgspec.json.encode(key) + b"\n" for key in keys)
        if len(data) > KEYS_BYTES_MAX:
            raise CommandError(f"{path} is full: {len(keys)} keys are over {KEYS_BYTES_MAX} bytes. Revoke some.")
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        os.close(folder)
