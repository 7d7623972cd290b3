"""Objects as files, for GitOps: a folder that `kubectl apply -f` takes as it is."""

import re
from collections.abc import Sequence
from typing import Final

from sunup.engine.kubernetes.render.objects import dump
from sunup.engine.kubernetes.render.target import Object

HEAD: Final = "# Written by `platform render`: it writes this file again, so change function.toml instead.\n"


def written(objects: Sequence[Object]) -> dict[str, str]:
    """A file for each object, by its name: 02-secret-fraud-settings-1a2b3c4d.yaml. Their order is that of applying."""
    return {
        f"{number:02}-{one['kind'].lower()}-{one['metadata']['name']}.yaml": HEAD + dump([one])
        for number, one in enumerate(objects, start=1)
    }


def stale(names: Sequence[str], objects: Sequence[Object]) -> list[str]:
    """Of the names of files in a folder, those an earlier rendering of the same function left there and this one does
    not write: the Secret of other settings, a stream that is no more."""
    own = {one["metadata"]["name"] for one in objects if one["kind"] == "Service"}
    kept = written(objects)
    return [name for name in names if name not in kept and any(_is_of(name, function) for function in own)]


def _is_of(file: str, function: str) -> bool:
    made = f"{re.escape(function)}(-stream|-settings-[0-9a-f]{{8}})?"
    return re.fullmatch(rf"\d\d-[a-z]+-({made}|sunup-worker)\.yaml", file) is not None
