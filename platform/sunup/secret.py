"""A value that nobody is shown: known already, or in a file that is read whenever it is needed."""

from pathlib import Path

import msgspec

from sunup.errors import UsageError


class Secret(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """`value`, or what is in `file`, whose new contents count from the next reading on."""

    value: str = ""
    file: str = ""

    def __repr__(self) -> str:
        return f"Secret(file={self.file!r})" if self.file else "Secret(...)"

    def read(self) -> str:
        """The value; of a file without the line break at its end. Raises UsageError, which names the file."""
        if not self.file:
            return self.value
        try:
            return Path(self.file).read_text("utf-8").removesuffix("\n").removesuffix("\r")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise UsageError(f"{self.file} cannot be read: {why}") from error
