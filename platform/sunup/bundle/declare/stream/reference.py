"""A value that function.toml does not hold, but says where it is: "env:NAME" or "file:/path"."""

import re
from collections.abc import Mapping
from typing import Final

from sunup.errors import UsageError
from sunup.secret import Secret

REFERENCE: Final = re.compile(r"env:\w+|file:/.*[^/]")
KINDS: Final = '"env:NAME" (of the environment of whoever deploys) or "file:/path" (read by the workers)'


def resolved(reference: str, key: str, environment: Mapping[str, str]) -> Secret:
    """What a reference means now; what is none means itself. `key` stands in errors: "[stream.security] password".

    Raises UsageError where the environment does not have it. A file is not looked at: workers read it.
    """
    if reference.startswith("file:"):
        return Secret(file=reference.removeprefix("file:"))
    if not reference.startswith("env:"):
        return Secret(reference)
    name = reference.removeprefix("env:")
    value = environment.get(name, "")
    if not value:
        raise UsageError(f"{key} is env:{name}, and {name} is not set. Set it where you deploy.")
    return Secret(value)
