"""Which broker a function's [stream] means, and what its workers are told of it."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from sunup.bundle.declare.spec import BROKER
from sunup.bundle.manifest import StreamSpec
from sunup.cli.streams.security import security_settings
from sunup.errors import UsageError
from sunup.settings import CONFLUENT, EMBEDDED, KAFKA_CLIENT, KAFKA_PYTHON, STREAM_BROKER, STREAM_CLIENT


def broker_settings(
    declared: StreamSpec | None, environment: Mapping[str, str], root: Path
) -> tuple[dict[str, str], str]:
    """What workers of a function are told of its broker (nothing without a stream), and a line for the deployer.

    `root`: the project folder, where relative paths begin.

    Raises UsageError when the environment does not name the broker, or a client that is not there.
    """
    if declared is None:
        return {}, ""
    broker, why = declared.broker, ""
    if broker.startswith("env:"):
        name, _, otherwise = broker.removeprefix("env:").partition(" or ")
        broker = environment.get(name, "") or otherwise
        why = f" ({name} is not set)" if broker == otherwise else f" ({name})"
        if not broker:
            raise UsageError(
                f"[stream] broker is env:{name}, and {name} is not set. Set it to the brokers' host:port, or write "
                f'broker = "env:{name} or embedded" to use the embedded log without it.'
            )
        if not BROKER.fullmatch(broker) or broker.startswith("env:"):
            raise UsageError(f"{name} is {broker!r}, and {broker!r} is not host:port, or several with commas.")
    where = "the embedded log" if broker == EMBEDDED else f"Kafka at {broker}"
    more = security_settings(declared, environment, root, kafka=broker != EMBEDDED)
    if broker != EMBEDDED:
        more[STREAM_CLIENT] = _client(environment)
    return {STREAM_BROKER: broker} | more, f"stream {declared.input} -> {declared.output} on {where}{why}"


def _client(environment: Mapping[str, str]) -> str:
    """What speaks to Kafka: what the environment says, else the faster one, where it is installed."""
    installed = find_spec("confluent_kafka") is not None
    named = environment.get(KAFKA_CLIENT) or (CONFLUENT if installed else KAFKA_PYTHON)
    if named not in (KAFKA_PYTHON, CONFLUENT):
        raise UsageError(f"{KAFKA_CLIENT} is {named!r}. It is {KAFKA_PYTHON} or {CONFLUENT}.")
    if named == CONFLUENT and not installed:
        raise UsageError(f"{KAFKA_CLIENT} is {CONFLUENT}, which is not installed. Install sunup[kafka-fast].")
    return named
