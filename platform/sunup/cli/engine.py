"""`platform up` and `platform down`, and how other commands come by a running engine."""

import os
import socket
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from sunup.access import keys
from sunup.cli.client import Resident
from sunup.cli.terminal import Stages, options, show_json, show_note
from sunup.engine.access import Rules, remember, remembered
from sunup.engine.local.client import LocalEngine, command, environment
from sunup.errors import CommandError, EngineError
from sunup.execute.installed import check_installed
from sunup.limits import ACCESS_LOG_RATE_DEFAULT
from sunup.link.process import release
from sunup.serve.telemetry import traces
from sunup.settings import Project

HOST = "127.0.0.1"
PORT = 8000
METRICS_PORT = 9464


@click.command()
@click.option("--port", default=PORT, show_default=True, help="Port for predictions (0: any free one).")
@click.option("--host", default=HOST, show_default=True, help="Address to listen on.")
@click.option("--metrics-port", default=METRICS_PORT, show_default=True, help="Port for Prometheus, on loopback.")
@click.option("--api-keys", metavar="FILE", help="Answer only callers with a key of this file (platform keys).")
@click.option("--open", "is_open", is_flag=True, help="Allow a --host beyond loopback: anyone who reaches it may call.")
@click.option("--allow-host", "hosts", multiple=True, metavar="NAME", help="A name callers may use (Host header).")
@click.option("--user", metavar="NAME", help="As root: run what answers callers as this user.")
@click.option(
    "--access-log", type=click.FloatRange(0, 1), default=ACCESS_LOG_RATE_DEFAULT, show_default=True, metavar="SHARE",
    help="Calls to log, 0 to 1; above 0 also all that fail here.",
)  # fmt: skip
@click.option("--detach", is_flag=True, help="Return when it serves, and leave it running.")
@options()
def up(
    *,
    port: int,
    host: str,
    metrics_port: int,
    api_keys: str | None,
    is_open: bool,
    hosts: tuple[str, ...],
    user: str | None,
    access_log: float,
    detach: bool,
    as_json: bool,
    project: Project,
) -> None:
    """Start the local engine, or adopt what still lives of it; one of another Sunup is taken over.

    Functions deployed earlier serve again. Without --detach it runs until Ctrl-C.
    """
    rules = Rules(api_keys and str(Path(api_keys).resolve()), is_open, hosts, user, access_log)
    rules.check(host)
    engine = LocalEngine(project)
    address = engine.running()
    if address is not None and address.get("release") != release():
        check_platform()  # before the one that runs is asked to leave
        show_note(f"Taking over from Sunup {address['version']} (pid {address['pid']}); what it was told first holds.")
        host, port, metrics_port = _listening(address)
        rules, address = remembered(project), None
        engine.down(alone=True)
    if address is not None:
        show_note(f"The engine of {project.root} already runs (pid {address['pid']}); what it was told first holds.")
    else:
        _check_keys(rules)
        check_platform()
        if said := traces.wanted(os.environ) and traces.trouble(os.environ):
            show_note(said)
        remember(project, rules)
        if detach:
            address = start(engine, rules, host=host, port=port, metrics_port=metrics_port)
        else:
            show_note(f"The engine of {project.root} runs here until Ctrl-C; `platform status` shows it.")
            os.execve(sys.executable, command(project, host, port, metrics_port, rules), environment())
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
    start(engine, remembered(project), may_move=True)
    shown.end()
    return engine


def start(
    engine: LocalEngine,
    rules: Rules,
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
    return engine.start(host, port, metrics_port, rules)


def _listening(address: dict[str, Any]) -> tuple[str, int, int]:
    """Host, port and metrics port of an engine, as they were given."""
    url, metrics = urlsplit(address["url"]), urlsplit(address["metrics_url"])
    return url.hostname or HOST, url.port or 0, metrics.port or 0


def _check_keys(rules: Rules) -> None:
    """Read the key file once here, where whoever typed its name sees what is wrong. Raises CommandError."""
    if rules.api_keys is not None and not keys.read(Path(rules.api_keys)):
        show_note(f"{rules.api_keys} holds no key yet, so nobody may call: platform keys new --file {rules.api_keys}")


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
