"""The command line's entry: a table of commands whose modules are imported only when they are run.

`platform --help` answers in well under 150 ms because nothing but click is imported for it.
"""

import difflib
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Final, NamedTuple

import click

from sunup import __version__
from sunup.cli.terminal import show_error
from sunup.errors import CommandError, SunupError


class Entry(NamedTuple):
    """Where a command lives (`module` of sunup.cli, function of the command's name) and its line in the help."""

    module: str
    summary: str


COMMANDS: Final = {
    "up": Entry("engine", "Start the local engine, or adopt what still lives of it."),
    "deploy": Entry("deploy", "Turn a registered model into a live function."),
    "init": Entry("deploy", "Write functions/NAME/function.toml from a model's signature."),
    "status": Entry("status.command", "Show functions, revisions, workers and their figures."),
    "call": Entry("functions", "Make one prediction and show where its time went."),
    "logs": Entry("functions", "Print a function's log."),
    "stream": Entry("streams.command", "Look after the topics functions score."),
    "keys": Entry("access.keys", "Make, list and revoke the keys of callers."),
    "features": Entry("features.command", "Look after the features functions are served with."),
    "render": Entry("cluster.render", "Write a function's Kubernetes objects as YAML, for GitOps."),
    "promote": Entry("cluster.promote", "Give all calls to the revision that is tried with --canary."),
    "rollback": Entry("functions", "Route an earlier revision again."),
    "remove": Entry("functions", "Stop serving a function."),
    "down": Entry("engine", "Stop the local engine and every worker."),
    "bundle": Entry("bundles", "Build a bundle without deploying it."),
    "image": Entry("images.command", "Make and push container images, without a container engine."),
    "inspect": Entry("bundles", "Show a bundle's manifest and parity proof."),
}


class Commands(click.Group):
    """A group that knows its commands' names and summaries without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"sunup.cli.{COMMANDS[cmd_name].module}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(COMMANDS)}."
            raise click.UsageError(f"There is no command {args[0]!r}. {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="platform")
def platform() -> None:
    """Sunup: from an MLflow registry to live predictions in one command, to zero and back in milliseconds."""


def run(arguments: Sequence[str]) -> int:
    """Run one command line; the exit code. 0: done. 1: failed, with one paragraph on stderr. 2: usage."""
    try:
        code = platform.main(list(arguments), prog_name="platform", standalone_mode=False)
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:  # the reader of our output has gone (`platform status | head`): not a failure of ours
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # the last resort: whatever it is, a person gets one paragraph
        if "--debug" in arguments:
            traceback.print_exc()
        return _explain(error)
    return code if isinstance(code, int) else 0


def _explain(error: Exception) -> int:
    """Print one paragraph about a failure; its exit code."""
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx else "platform"
        show_error(error.format_message(), hint=f"`{command} --help` shows what it takes.")
        return 2
    if isinstance(error, click.ClickException):
        show_error(error.format_message())
        return error.exit_code
    if isinstance(error, SunupError):
        show_error(error.message, hint=error.hint)
        return error.exit_code if isinstance(error, CommandError) else 1
    show_error(f"Something unforeseen went wrong: {type(error).__name__}: {error}", hint="--debug shows where.")
    return 1


def main() -> None:
    """The console script `platform`."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
