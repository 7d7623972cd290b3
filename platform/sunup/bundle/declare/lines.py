"""Where in a file something stands, and what may have been meant: for errors that help."""

import difflib
import re
from collections.abc import Iterable

from sunup.errors import UsageError


def closest(word: str, known: Iterable[str]) -> str:
    """' Did you mean `x`?' when a known word is near, else ''."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" Did you mean `{near[0]}`?" if near else ""


class Lines:
    """Finds the line of a key, because tomllib keeps none."""

    def __init__(self, source: str, text: str) -> None:
        self.source = source
        self._lines = text.splitlines()

    def line(self, table: str, key: str) -> int | None:
        """Line number (from 1) of `key` in [table], of the table when the key is not found, None when neither is."""
        current, found = "", None
        for number, line in enumerate(self._lines, start=1):
            if header := re.match(r"\s*\[\[?\s*([^\]]+?)\s*\]", line):
                current = header[1]
                if current.split(".")[0].strip("\"' ") == table and found is None:
                    found = number
                if key and current == f"{table}.{key}":
                    return number
                continue
            left = re.match(r"\s*[\"']?([^\"'=#]+?)[\"']?\s*=", line)
            if left is None:
                continue
            dotted = f"{current}.{left[1]}" if current else left[1]
            dotted = dotted.replace(" ", "")
            if (
                dotted == f"{table}.{key}"
                or dotted.startswith(f"{table}.{key}.")
                or (not current and not key and left[1] == table)
            ):
                return number
        return found

    def error(self, table: str, key: str, message: str) -> UsageError:
        line = self.line(table, key)
        return UsageError(f"{self.source}{f', line {line}' if line else ''}: {message.rstrip('.')}.")
