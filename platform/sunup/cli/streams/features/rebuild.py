"""`platform stream replay --features`: what a function aggregates, made again of the records its topic still holds."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from typing import TYPE_CHECKING, Final, NamedTuple

import click

from sunup.bundle.store import read_manifest
from sunup.cli.streams.alone import alone, moment, nobody_reads
from sunup.cli.streams.confirm import confirm
from sunup.cli.streams.source import Source, source_of
from sunup.cli.terminal import Stages, show_json, show_note, show_table, stages
from sunup.engine.local.client import LocalEngine
from sunup.engine.local.state import recorded_settings
from sunup.errors import CommandError, UsageError
from sunup.limits import AGGREGATE_AHEAD_SECONDS_MAX
from sunup.settings import Project
from sunup.stream.admin import Admin
from sunup.stream.broker import BrokerError

if TYPE_CHECKING:
    from sunup.cli.streams.features.tiles import Tiles
    from sunup.stream.aggregate.rebuild import Rebuilt

_COLUMNS: Final = ("partition ", "from ", "to ", "kept ", "records ")


class Step(NamedTuple):
    """One partition: from which offset on, up to where its group stands; `first`, `end`: what is kept."""

    partition: int
    start: int
    position: int
    first: int
    end: int

    @property
    def records(self) -> int:
        """About: on Kafka offsets also count the ends of transactions."""
        return self.position - self.start


def rebuild_features(
    project: Project, function: str, offset: int | None, since: str | None, *, yes: bool, as_json: bool
) -> None:
    """Forget the tiles of FUNCTION's views, and make them again: from `offset` of each partition, of what was written
    since a moment, or, where both are None, of all that a window can reach."""
    source = source_of(project, function, os.environ)
    if not read_manifest(source.bundle).aggregates:
        raise UsageError(
            f"{function} aggregates nothing: its features hold no StreamFeatureView with aggregations over "
            f"{source.stream.input}."
        )
    from sunup.cli.streams.features.tiles import Tiles  # feature stores and their clients: others do without

    tiles = Tiles(project, source, recorded_settings(project.state / "state.db", function))
    with closing(source.admin()) as admin:
        steps = plan(source, admin, offset, _since(offset, since, tiles.span_s))
        if not as_json:
            _show(steps)
        count = sum(step.records for step in steps)
        confirm(f"Forget what is aggregated of {', '.join(tiles.names)}, and make it again of {count:,}?", yes=yes)
        with _alone(project, function), stages(quiet=as_json) as shown:
            began = time.monotonic()
            done = _run(source, tiles, admin, steps, shown)
            seconds = time.monotonic() - began
    if as_json:
        partitions = [{"partition": each.partition, "from": each.start, "to": each.position} for each in steps]
        facts = {"function": function, "views": tiles.names, "partitions": partitions, "seconds": round(seconds, 3)}
        show_json({**facts, **done._asdict()})
    else:
        _show_result(function, done, seconds)


def plan(source: Source, admin: Admin, offset: int | None, since: float) -> list[Step]:
    """What is to be read of each partition. `since`: seconds since the epoch, where `offset` is None."""
    topic, group = source.stream.input, source.stream.group
    spans = admin.span(topic)
    where = admin.at(topic, since) if offset is None else dict.fromkeys(spans, offset)
    positions = alone(lambda: admin.positions(group, topic))
    steps = []
    for number, (first, end) in sorted(spans.items()):
        position = max(first, positions.get(number, first))
        steps.append(Step(number, min(max(first, where[number]), position), position, first, end))
    return steps


def _since(offset: int | None, since: str | None, span_s: float) -> float:
    """A record may be older than its event, by as much as one may be ahead."""
    now = time.time()
    if since is None or offset is not None:
        return now - span_s - AGGREGATE_AHEAD_SECONDS_MAX
    return moment(since, now, "--since")


@contextmanager
def _alone(project: Project, function: str) -> Iterator[None]:
    """Nobody aggregates meanwhile. Where no engine runs, the locks of the tiles say so."""
    engine = LocalEngine(project)
    try:
        with nobody_reads(engine, function) if engine.running() is not None else nullcontext():
            yield
    except KeyboardInterrupt:
        show_note("What is aggregated until now is kept; whoever reads the topic next aggregates the rest first.")
        raise


def _run(source: Source, tiles: "Tiles", admin: Admin, steps: Sequence[Step], shown: Stages) -> "Rebuilt":
    shown.begin("aggregate", f"0 of {sum(step.records for step in steps):,} records")
    try:
        return alone(
            lambda: tiles.rebuild(
                {step.partition: step.start for step in steps},
                admin,
                lambda at: shown.update(f"{at.records:,} of {at.of:,} records, {at.written:,} entities written"),
            )
        )
    except BrokerError as error:
        raise CommandError(
            f"{error.message}. What {source.function} aggregated until now is kept; whoever reads "
            f"{source.stream.input} next aggregates the rest first."
        ) from error


def _show(steps: Sequence[Step]) -> None:
    rows = [
        (str(s.partition), f"{s.start:,}", f"{s.position:,}", f"{s.first:,} to {s.end:,}", f"{s.records:,}")
        for s in steps
    ]
    show_table(_COLUMNS, rows)


def _show_result(function: str, done: "Rebuilt", seconds: float) -> None:
    written = f"{done.written:,} entities written, in {seconds:.1f} s"
    click.echo(f"{done.records:,} records of {function} were aggregated again; {written}.")
    if done.late or done.duplicates:
        show_note(f"{done.late:,} were late, {done.duplicates:,} duplicates: not aggregated.")
    if done.missing:
        show_note(f"{done.missing:,} before them are not kept any more.")
    if done.unwritten:
        show_note(f"The store does not take values ({done.unwritten}): the stream's workers write what is left.")
