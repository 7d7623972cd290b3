"""A key file as it is now: read once, and again whenever it changed."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from sunup.access import keys
from sunup.access.keys import Key
from sunup.errors import CommandError
from sunup.limits import KEYS_LOOK_SECONDS

Stamp = tuple[int, int, int] | None


class KeyFile:
    """The keys of the file at `path`. `changed(keys)` gets others; `say` a sentence about what was found. Belongs to an
    event loop. Raises CommandError: nobody starts with keys that cannot be read."""

    def __init__(self, path: Path, changed: Callable[[list[Key]], None], say: Callable[[str], object]) -> None:
        self.path = path
        self._changed = changed
        self._say = say
        self._loop = asyncio.get_running_loop()
        self._stamp = _stamp(path)
        self.keys = keys.read(path)
        self.trouble = ""
        self._timer = self._loop.call_later(KEYS_LOOK_SECONDS, self._look)

    def __repr__(self) -> str:
        return f"KeyFile({self.path}, keys={len(self.keys)})"

    def close(self) -> None:
        """Look no more."""
        self._timer.cancel()

    def _look(self) -> None:
        """Take the file's keys if it changed. One that cannot be read changes nothing: the keys known before hold."""
        self._timer = self._loop.call_later(KEYS_LOOK_SECONDS, self._look)
        stamp = _stamp(self.path)
        if stamp == self._stamp and not self.trouble:
            return
        self._stamp = stamp
        try:
            found = keys.read(self.path)
        except CommandError as error:
            if error.message != self.trouble:
                self._say(f"{error.message} The keys known before hold.")
            self.trouble = error.message
            return
        self.trouble = ""
        if found != self.keys:
            self.keys = found
            self._say(f"The key file {self.path} has {len(found)} keys now.")
            self._changed(found)


def _stamp(path: Path) -> Stamp:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
