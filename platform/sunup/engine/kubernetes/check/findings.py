"""What was found wrong, told at once."""

from collections.abc import Iterable, Iterator
from typing import Any

from sunup.engine.kubernetes.check.schema import Problem
from sunup.engine.kubernetes.render.target import Object


def title(thing: Object) -> str:
    """What a person calls an object: Service fraud."""
    return f"{thing.get('kind', 'object')} {word(thing, 'metadata', 'name') or 'without a name'}"


def sentences(thing: Object, problems: Iterable[Problem]) -> Iterator[str]:
    """Each problem of one object as a sentence."""
    for path, problem in problems:
        end = "" if problem.endswith(("?", ".")) else "."
        yield f"{title(thing)}, {path}: {problem}{end}" if path else f"{title(thing)}: {problem}{end}"


def get(thing: Any, *path: str | int) -> Any:
    """What is at a path, None where there is nothing: the shape is judged elsewhere."""
    for key in path:
        if isinstance(thing, dict) and isinstance(key, str):
            thing = thing.get(key)
        elif isinstance(thing, list) and isinstance(key, int) and key < len(thing):
            thing = thing[key]
        else:
            return None
    return thing


def word(thing: Any, *path: str | int) -> str | None:
    """The text at a path; None where there is none."""
    found = get(thing, *path)
    return found if isinstance(found, str) else None


def keys(thing: Any, *path: str | int) -> dict[str, Any]:
    """The object at a path; empty where there is none."""
    found = get(thing, *path)
    return found if isinstance(found, dict) else {}


def each(thing: Any, *path: str | int) -> list[dict[str, Any]]:
    """The objects of a list at a path; none where there is no list."""
    found = get(thing, *path)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
