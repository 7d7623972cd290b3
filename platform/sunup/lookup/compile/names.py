"""Names that a refusal suggests instead of a wrong one."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any


def closest(name: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    """A sentence with the names of `known` nearest to `name`, beginning with a space."""
    near = get_close_matches(name, known, n=3, cutoff=0.5) or sorted(known)[:5]
    return f" There is {', '.join(near)}." if near else " There is none at all."
