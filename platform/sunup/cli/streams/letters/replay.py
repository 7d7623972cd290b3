"""`platform stream replay`: dead letters go back to where they came from; or features are made again."""

import os
from collections import Counter
from contextlib import closing
from typing import Final

import click

from sunup.cli.streams.confirm import confirm
from sunup.cli.streams.features.rebuild import rebuild_features
from sunup.cli.streams.source import Source, source_of, unfenced
from sunup.cli.terminal import Stages, options, show_json, show_note, show_table, stages
from sunup.errors import CommandError, UsageError
from sunup.settings import Project
from sunup.stream.broker import BrokerError, Reader
from sunup.stream.replay import Chosen, Plan, plan, replay, replay_stream

_UNFINISHED_SECONDS: Final = 30.0  # s; a broker ends what a killed replay has begun 10 s later, or looks after 10 more


@click.command("replay")
@click.argument("function")
@click.option("--code", metavar="CODE", help="Only of this error code.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="No more than N, the oldest of each partition.")
@click.option("--features", is_flag=True, help="Make the features it aggregates again, instead of letters.")
@click.option("--from-offset", "offset", type=click.IntRange(min=0), metavar="N", help="From there, of each partition.")
@click.option("--since", metavar="WHEN", help="Of what was written since a time (ISO 8601), or 36h ago.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@options()
def replay_command(
    function: str,
    code: str | None,
    limit: int | None,
    offset: int | None,
    since: str | None,
    *,
    features: bool,
    yes: bool,
    as_json: bool,
    project: Project,
) -> None:
    """Send FUNCTION's dead letters to its topic again, each once.

    Only those there are now that were not sent before. With --code, others that lie between are written to the end of
    the dead-letter topic again: their turn comes later. Killed at any moment, nothing is lost or sent twice.

    With --features no letters: what FUNCTION aggregates is made again of the records that its topic still holds, and
    nothing is scored. Without --from-offset and --since, from the oldest record that a window can reach.
    """
    if features:
        if code is not None or limit is not None:
            raise UsageError("--code and --limit choose dead letters, and --features sends none.")
        if offset is not None and since is not None:
            raise UsageError("Give --from-offset or --since, not both.")
        rebuild_features(project, function, offset, since, yes=yes, as_json=as_json)
        return
    if offset is not None or since is not None:
        raise UsageError("--from-offset and --since are for --features.")
    source = source_of(project, function, os.environ)
    chosen = Chosen(function, code)
    planned = _plan(source, chosen, limit)
    if not as_json:
        _show(source, planned)
    done = Counter[str]()
    if planned.letters:
        confirm(f"Send {planned.letters:,} to {', '.join(planned.topics)}?", yes=yes)
        with stages(quiet=as_json) as shown:
            done = _run(source, chosen, planned, shown)
    result = {"sent": done["sent"], "rewritten": done["rewritten"], "cut": planned.cut}
    if as_json:
        show_json({"function": function, **result, "topics": dict(planned.topics), "codes": dict(planned.codes)})
    elif planned.letters:
        click.echo(_result(source, result))


def _plan(source: Source, chosen: Chosen, limit: int | None) -> Plan:
    """See stream.replay.plan; waits for what a replay that was killed has left unfinished."""
    with closing(source.admin()) as admin:
        return unfenced(
            lambda: plan(admin, source.stream, chosen, limit),
            _UNFINISHED_SECONDS,
            "A replay is under way, or was interrupted: waiting for its transaction to end.",
        )


def _run(source: Source, chosen: Chosen, planned: Plan, shown: Stages) -> Counter[str]:
    reader = Reader(f"{source.function}-replay", exactly_once=True)
    shown.begin("replay", f"0 of {planned.letters:,}")
    with closing(source.broker(replay_stream(source.stream), reader)) as broker:
        try:
            return replay(
                broker, source.stream, chosen, planned, lambda sent: shown.update(f"{sent:,} of {planned.letters:,}")
            )
        except BrokerError as error:
            raise CommandError(
                f"{error.message}. What was sent until now stays sent; the same command goes on behind it."
            ) from error


def _show(source: Source, planned: Plan) -> None:
    """What would be done, before it is."""
    if not planned.letters:
        show_note(f"No dead letters of {source.function} wait for this in {source.stream.dead_letter}.")
        return
    show_table(("code", "letters "), [(code, f"{count:,}") for code, count in planned.codes.items()])
    if planned.rewritten:
        show_note(
            f"{planned.rewritten:,} of other codes lie between: they are written to {source.stream.dead_letter} again."
        )
    if planned.cut:
        show_note(f"{planned.cut:,} are without their value, which was too large: they are passed, and stay.")
    if strange := [topic for topic in planned.topics if topic != source.stream.input]:
        show_note(f"{source.function} does not read {', '.join(strange)}, where some of them came from, any more.")


def _result(source: Source, result: dict[str, int]) -> str:
    sent = f"{result['sent']:,} dead letters of {source.function} were sent again"
    more = f"; {result['rewritten']:,} written to {source.stream.dead_letter} again" if result["rewritten"] else ""
    return f"{sent}{more}."
