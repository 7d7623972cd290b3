"""`platform stream seek`: where a function reads on, told by hand."""

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any, Final, NamedTuple

import click

from sunup.bundle.store import read_manifest
from sunup.cli.engine import running
from sunup.cli.streams.alone import alone, moment, nobody_reads
from sunup.cli.streams.confirm import confirm
from sunup.cli.streams.source import Source, source_of
from sunup.cli.terminal import options, show_json, show_note, show_table
from sunup.errors import UsageError
from sunup.settings import Project
from sunup.stream.admin import Admin

_COLUMNS: Final = ("partition ", "from ", "to ", "kept ", "what that means")


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
            _note_features(source, steps)
        todo = [step for step in steps if step.target != step.position]
        if todo and not dry_run:
            confirm(_question(todo), yes=yes)
            with nobody_reads(engine, function):
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
    positions = alone(lambda: admin.positions(group, topic))
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
    return admin.at(topic, moment(to, time.time(), "--to", "earliest, latest, an offset, "))


def _move(source: Source, admin: Admin, todo: Sequence[Step]) -> list[Step]:
    """Move the group; the steps as they were in the end."""
    topic, group = source.stream.input, source.stream.group

    def act() -> list[Step]:
        positions = admin.positions(group, topic)
        done = [step.from_here(max(step.first, positions.get(step.partition, step.first))) for step in todo]
        admin.move(group, topic, {step.partition: step.target for step in done})
        return done

    return alone(act)


def _question(todo: Sequence[Step]) -> str:
    skipped, doubled = sum(step.skipped for step in todo), sum(step.doubled for step in todo)
    parts = [f"never score {skipped:,} records"] if skipped else []
    parts += [f"score {doubled:,} records again"] if doubled else []
    return f"{' and '.join(parts)}?".capitalize()


def _note_features(source: Source, steps: Sequence[Step]) -> None:
    """What is aggregated depends on the topic alone: a stream that is moved counts no event twice, and none less."""
    if read_manifest(source.bundle).aggregates:
        if any(step.doubled for step in steps):
            again = f"platform stream replay {source.function} --features"
            show_note(
                f"Records that are scored again are not aggregated again; to aggregate from an offset on: {again}"
            )
        if any(step.skipped for step in steps):
            show_note("Records that are skipped are aggregated all the same, when it reads on.")


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
