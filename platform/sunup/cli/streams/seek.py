"""`platform stream seek`: where a function reads on, told by hand."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from typing import Any, Final, NamedTuple, TypeVar

import click

from sunup.bundle.declare.quantity import parse_seconds
from sunup.cli.engine import running
from sunup.cli.streams.confirm import confirm
from sunup.cli.streams.source import LOOK_SECONDS, Source, source_of, unfenced
from sunup.cli.terminal import options, show_json, show_table
from sunup.engine.local.client import LocalEngine
from sunup.errors import CommandError, UsageError
from sunup.settings import Project
from sunup.stream.admin import Admin

_ALONE_SECONDS: Final = 90.0  # s until nobody reads: workers finish their batch, and a broker forgets a dead one in 30
_COLUMNS: Final = ("partition ", "from ", "to ", "kept ", "what that means")

Given = TypeVar("Given")


class Step(NamedTuple):
    """One partition. `position`: where its group stands; `target`: where it shall; `first`, `end`: what is kept."""

    partition: int
    position: int
    target: int
    first: int
    end: int

    @property
    def skipped(self) -> int:
        """Records that will never be scored."""
        return max(0, self.target - self.position)

    @property
    def doubled(self) -> int:
        """Records that will be scored again."""
        return max(0, self.position - self.target)

    @property
    def meaning(self) -> str:
        if self.target == self.position:
            return "stays"
        return f"skips {self.skipped:,} records" if self.skipped else f"scores {self.doubled:,} records again"

    def from_here(self, position: int) -> "Step":
        """The same step when its group has read on meanwhile: what was to be skipped and was scored is not doubled."""
        target = max(position, self.target) if self.target >= self.position else self.target
        return self._replace(position=position, target=target)


@click.command()
@click.argument("function")
@click.option("--to", required=True, metavar="WHERE", help="earliest, latest, an offset, a time (ISO 8601), or 1h ago.")
@click.option("--partition", "partitions", type=click.IntRange(0), multiple=True, metavar="N", help="Only this one.")
@click.option("--dry-run", is_flag=True, help="Show what it means, and do nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@options()
def seek(
    function: str,
    to: str,
    partitions: tuple[int, ...],
    *,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    project: Project,
) -> None:
    """Read FUNCTION's topic on from somewhere else.

    Back: records are scored again. Forward: records are never scored. It is said first how many. The stream is paused
    meanwhile, and afterwards goes on if it did before.
    """
    engine, source = running(project), source_of(project, function, os.environ)
    with closing(source.admin()) as admin:
        steps = plan(source, admin, to, partitions)
        if not as_json:
            _show(steps)
        todo = [step for step in steps if step.target != step.position]
        if todo and not dry_run:
            confirm(_question(todo), yes=yes)
            with _nobody_reads(engine, function):
                done = _move(source, admin, todo)
            steps = sorted({step.partition: step for step in [*steps, *done]}.values())
            if not as_json and done != todo:
                _show(steps)
    if as_json:
        show_json({"function": function, "moved": bool(todo) and not dry_run, "partitions": [*map(_facts, steps)]})
    elif not dry_run:
        click.echo(f"{function} reads {source.stream.input} on from there." if todo else "Nothing is to be done.")


def plan(source: Source, admin: Admin, to: str, partitions: Sequence[int]) -> list[Step]:
    """What `to` means for each of `partitions`, or for all. Raises UsageError for what is not there."""
    topic, group = source.stream.input, source.stream.group
    spans = admin.span(topic)
    if strange := set(partitions) - set(spans):
        raise UsageError(f"{topic} has no partition {min(strange)}: it has {min(spans)} to {max(spans)}.")
    chosen = {number: spans[number] for number in (partitions or spans)}
    where = _targets(admin, topic, to, chosen)
    positions = _alone(lambda: admin.positions(group, topic))
    steps = []
    for number, (first, end) in sorted(chosen.items()):
        # A group that has never read begins at the oldest record, and one that is too late goes on there.
        step = Step(number, max(first, positions.get(number, first)), where[number], first, end)
        if not first <= step.target <= end:
            ranges = ", ".join(f"{each}: {low:,} to {high:,}" for each, (low, high) in sorted(chosen.items()))
            raise UsageError(f"Offset {step.target:,} of partition {number} of {topic} is not kept. There is {ranges}.")
        steps.append(step)
    return steps


def _targets(admin: Admin, topic: str, to: str, chosen: Mapping[int, tuple[int, int]]) -> Mapping[int, int]:
    if to == "earliest":
        return {number: first for number, (first, _) in chosen.items()}
    if to == "latest":
        return {number: end for number, (_, end) in chosen.items()}
    if to.isdecimal():
        return dict.fromkeys(chosen, int(to))
    return admin.at(topic, moment(to, time.time()))


def moment(text: str, now: float) -> float:
    """Seconds since the epoch of an age before `now` ("1h") or of an ISO 8601 time; one without a zone is local."""
    try:
        return now - parse_seconds(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        wanted = "earliest, latest, an offset, an age such as 1h, or a time such as 2026-11-22T10:00:00Z"
        raise UsageError(f"--to: {text!r} is not {wanted}.") from None


@contextmanager
def _nobody_reads(engine: LocalEngine, function: str) -> Iterator[None]:
    """Pause the stream, and what was not paused before go on at the end. Killed in between, it stays paused, and
    `platform stream status` says by whom."""
    facts = engine.status(function)["functions"][0]["stream"]
    paused = facts["paused"]
    # Where some partitions are paused already, the others are one by one: only then can they go on alone.
    rest = [one["partition"] for one in facts["partitions"] if not one["paused"]] if paused else None
    try:
        if paused != "all":
            engine.pause(function, rest)
        until = time.monotonic() + _ALONE_SECONDS
        while engine.status(function)["functions"][0]["stream"]["workers"]:
            if time.monotonic() > until:
                raise CommandError(
                    f"Workers of {function} have not ended for {_ALONE_SECONDS:.0f} s; nothing was moved."
                )
            time.sleep(LOOK_SECONDS)
        yield
    finally:
        if paused != "all":
            engine.resume(function, rest)


def _move(source: Source, admin: Admin, todo: Sequence[Step]) -> list[Step]:
    """Move the group; the steps as they were in the end."""
    topic, group = source.stream.input, source.stream.group

    def act() -> list[Step]:
        positions = admin.positions(group, topic)
        done = [step.from_here(max(step.first, positions.get(step.partition, step.first))) for step in todo]
        admin.move(group, topic, {step.partition: step.target for step in done})
        return done

    return _alone(act)


def _alone(act: Callable[[], Given]) -> Given:
    return unfenced(act, _ALONE_SECONDS, "Waiting for the broker to know that nobody reads any more.")


def _question(todo: Sequence[Step]) -> str:
    skipped, doubled = sum(step.skipped for step in todo), sum(step.doubled for step in todo)
    parts = [f"never score {skipped:,} records"] if skipped else []
    parts += [f"score {doubled:,} records again"] if doubled else []
    return f"{' and '.join(parts)}?".capitalize()


def _show(steps: Sequence[Step]) -> None:
    rows = [
        (str(s.partition), f"{s.position:,}", f"{s.target:,}", f"{s.first:,} to {s.end:,}", s.meaning) for s in steps
    ]
    show_table(_COLUMNS, rows)


def _facts(step: Step) -> dict[str, Any]:
    return {
        "partition": step.partition,
        "from": step.position,
        "to": step.target,
        "oldest": step.first,
        "end": step.end,
        "skips": step.skipped,
        "scores_again": step.doubled,
    }
