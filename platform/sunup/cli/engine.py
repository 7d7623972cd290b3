"""`platform up` and `platform down`, and how other commands come by a running engine."""

import ipaddress
import os
import socket
import sys
from typing import Any

import click

from sunup.cli.client import Resident
from sunup.cli.terminal import Stages, options, show_json, show_note
from sunup.engine.local.client import LocalEngine, command
from sunup.errors import CommandError, EngineError, UsageError
from sunup.execute.installed import check_installed
from sunup.settings import Project

HOST = "127.0.0.1"
PORT = 8000
METRICS_PORT = 9464


@click.command()
@click.option("--port", default=PORT, show_default=True, help="Port for predictions (0: any free one).")
@click.option("--host", default=HOST, show_default=True, help="Address to listen on.")
@click.option("--metrics-port", default=METRICS_PORT, show_default=True, help="Port for Prometheus, on loopback.")
@click.option("--open", "is_open", is_flag=True, help="Allow a --host beyond loopback: anyone who reaches it may call.")
@click.option("--detach", is_flag=True, help="Return when it serves, and leave it running.")
@options()
def up(
    *, port: int, host: str, metrics_port: int, is_open: bool, detach: bool, as_json: bool, project: Project
) -> None:
    """Start the local engine, or adopt what still lives of it.

    Functions deployed earlier serve again. Without --detach it runs until Ctrl-C.
    """
    check_host(host, is_open=is_open)
    engine = LocalEngine(project)
    address = engine.running()
    if address is not None:
        show_note(f"The engine of {project.root} already runs (pid {address['pid']}).")
    elif detach:
        address = start(engine, host=host, port=port, metrics_port=metrics_port)
    else:
        check_platform()
        show_note(f"The engine of {project.root} runs here until Ctrl-C; `platform status` shows it.")
        os.execv(sys.executable, command(project, host, port, metrics_port))
    if as_json:
        show_json(address)
    else:
        click.echo(address["url"])


@click.command()
@options()
def down(as_json: bool, project: Project) -> None:
    """Stop the local engine and every worker; calls in progress are finished first.

    What was deployed stays recorded: `platform up` serves it again.
    """
    engine = LocalEngine(project)
    ran = engine.running() is not None
    if ran:
        engine.down()
    Resident(project).stop()
    if as_json:
        show_json({"stopped": ran})
    else:
        click.echo("The engine is stopped." if ran else "No engine was running.")


def running(project: Project) -> LocalEngine:
    """The project's engine. Raises EngineError when it does not run."""
    engine = LocalEngine(project)
    if engine.running() is None:
        raise EngineError(
            f"No engine runs for {project.root}. Start it with `platform up --detach`, or deploy something."
        )
    return engine


def ensure(project: Project, shown: Stages, *, may_start: bool) -> LocalEngine:
    """The project's engine, started detached when it does not run. Raises EngineError when it may not be started."""
    engine = LocalEngine(project)
    if engine.running() is not None:
        return engine
    if not may_start:
        return running(project)
    shown.begin("engine", "none was running: starting one detached")
    start(engine, may_move=True)
    shown.end()
    return engine


def start(
    engine: LocalEngine,
    *,
    host: str = HOST,
    port: int = PORT,
    metrics_port: int = METRICS_PORT,
    may_move: bool = False,
) -> dict[str, Any]:
    """Start a detached engine; its address. `may_move`: take any free port when the usual one is taken."""
    check_platform()
    if may_move:
        port, metrics_port = (number if _is_free(host, number) else 0 for number in (port, metrics_port))
    return engine.start(host, port, metrics_port)


def check_host(host: str, *, is_open: bool) -> None:
    """Refuse to listen beyond this machine unless that was said. Raises UsageError."""
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = host == "localhost"
    if not is_loopback and not is_open:
        raise UsageError(
            f"--host {host} would let anyone who reaches this machine make predictions. "
            "Add --open if that is what you want, or put a proxy that checks callers in front of 127.0.0.1."
        )


def check_platform() -> None:
    """Refuse where the engine cannot run. Raises CommandError with what to do."""
    if sys.platform != "linux":
        raise CommandError(
            "The local engine needs Linux. Run it in WSL2 or a Linux VM; `platform bundle` and `inspect` work here."
        )
    check_installed()


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
