"""[scale] of function.toml: how many workers, how long they stay, and when they are there before anybody calls."""

import json
from typing import Annotated

import msgspec

from sunup.bundle.declare.lines import Lines
from sunup.bundle.declare.quantity import declared, format_seconds
from sunup.bundle.manifest import Scale, Warm
from sunup.cron import Cron
from sunup.limits import IDLE_TO_ZERO_SECONDS_DEFAULT, QUEUE_DEFAULT, WARM_SECONDS_DEFAULT


class WarmTable(msgspec.Struct, forbid_unknown_fields=True):
    """One entry of `warm` as it stands in the file."""

    cron: str
    min: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 1
    for_: str = msgspec.field(name="for", default=f"{WARM_SECONDS_DEFAULT:g}s")


class ScaleTable(msgspec.Struct):
    """The table as it stands in the file."""

    min: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 0
    max: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 4
    idle: str = f"{IDLE_TO_ZERO_SECONDS_DEFAULT:g}s"
    target_concurrency: Annotated[int, msgspec.Meta(ge=1)] = 32
    queue_max: Annotated[int, msgspec.Meta(ge=1)] = QUEUE_DEFAULT
    warm: list[WarmTable] = []


def scale_spec(given: ScaleTable, where: Lines) -> Scale:
    """The table resolved. Raises UsageError."""
    if given.min > given.max:
        raise where.error("scale", "min", f"min = {given.min} is more than max = {given.max}")
    for entry in given.warm:
        try:
            Cron.parse(entry.cron)
        except ValueError as error:
            raise where.error("scale", "warm", f"[scale] warm: {error}") from error
        if entry.min > given.max:
            raise where.error("scale", "warm", f"[scale] warm: min = {entry.min} is more than max = {given.max}")
    auto = given.idle == "auto"
    return Scale(
        min=given.min,
        max=given.max,
        idle_s=IDLE_TO_ZERO_SECONDS_DEFAULT if auto else declared(where, "scale", "idle", given.idle),
        target_concurrency=given.target_concurrency,
        queue_max=given.queue_max,
        idle_auto=auto,
        warm=tuple(Warm(w.cron, w.min, declared(where, "scale", "warm", w.for_)) for w in given.warm),
    )


def table(scale: Scale) -> list[str]:
    """The lines that read back as `scale`."""
    idle = "auto" if scale.idle_auto else format_seconds(scale.idle_s)
    lines = ["[scale]", f"min = {scale.min}", f"max = {scale.max}", f'idle = "{idle}"']
    lines += [f"target_concurrency = {scale.target_concurrency}", f"queue_max = {scale.queue_max}"]
    warm = [f'{{ cron = {json.dumps(w.cron)}, min = {w.min}, for = "{format_seconds(w.for_s)}" }}' for w in scale.warm]
    return [*lines, *([f"warm = [{', '.join(warm)}]"] if warm else [])]
