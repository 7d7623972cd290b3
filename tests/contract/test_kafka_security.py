"""How a real broker lets a function in: TLS and SASL, and what is said where it does not."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.kafka_fixture import produce, read_all
from tests.ports import free_port
from tests.secured_kafka import KEY_PASSWORD, PASSWORD, USER, SecuredKafka, secured_kafka
from tests.topics import somebody

from sunup.limits import STREAM_BROKER_SECONDS_MAX
from sunup.secret import Secret
from sunup.settings import CONFLUENT, KAFKA_PYTHON, STREAM_BROKER, STREAM_CLIENT, STREAM_SECURITY
from sunup.stream.broker import Broker, BrokerError, Output, Record, Stream, Trouble
from sunup.stream.kafka.knock import knock
from sunup.stream.kafka.security import OPEN, Security
from sunup.stream.open import open_admin, open_broker

__all__ = ["secured_kafka"]

pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # kafka-python's, if not connected
SOON = 20.0
QUICK = 2.0  # s; a hundred times what it takes

Open = Callable[[str, Security], Broker]


def settings(servers: str, given: Security, client: str = KAFKA_PYTHON) -> dict[str, str]:
    told = {STREAM_SECURITY: msgspec.json.encode(given).decode()} if given != OPEN else {}
    return {STREAM_BROKER: servers, STREAM_CLIENT: client, **told}


@pytest.fixture(params=[KAFKA_PYTHON, CONFLUENT])
def opened(request: pytest.FixtureRequest, stream: Stream, tmp_path: Path) -> Iterator[Open]:
    brokers: list[Broker] = []

    def another(servers: str, given: Security) -> Broker:
        told = settings(servers, given, request.param)
        brokers.append(open_broker(told, stream, tmp_path / "log.db", somebody(exactly_once=True)))
        return brokers[-1]

    yield another
    for broker in brokers:
        broker.close()


def sasl(server: SecuredKafka, protocol: Any = "SASL_SSL", mechanism: Any = "SCRAM-SHA-512", **more: Any) -> Security:
    ca = str(server.certificates.ca) if protocol == "SASL_SSL" else ""
    return msgspec.structs.replace(Security(protocol, mechanism, Secret(USER), Secret(PASSWORD), ca), **more)


def mutual(server: SecuredKafka, **more: Any) -> Security:
    made = server.certificates
    mine = {"certificate": str(made.client), "key": str(made.client_key), "key_password": Secret(KEY_PASSWORD)}
    return Security("SSL", **{"ca": str(made.ca), **mine, **more})


WAYS: dict[str, tuple[str, Callable[[SecuredKafka], Security]]] = {
    "PLAIN over TLS": ("SASL_SSL", lambda server: sasl(server, mechanism="PLAIN")),
    "SCRAM-SHA-256 over TLS": ("SASL_SSL", lambda server: sasl(server, mechanism="SCRAM-SHA-256")),
    "SCRAM-SHA-512 over TLS": ("SASL_SSL", sasl),
    "SCRAM-SHA-512": ("SASL_PLAINTEXT", lambda server: sasl(server, "SASL_PLAINTEXT")),
    "PLAIN": ("SASL_PLAINTEXT", lambda server: sasl(server, "SASL_PLAINTEXT", "PLAIN")),
    "client certificate": ("SSL", mutual),
    "another host's certificate": (
        "ELSEWHERE",
        lambda server: Security("SSL", ca=str(server.certificates.ca), check_hostname=False),
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_records_go_in_and_out(way: str, secured_kafka: SecuredKafka, stream: Stream, opened: Open) -> None:
    listener, made = WAYS[way]
    for topic in stream[1:]:
        secured_kafka.create(topic, 2)
    produce(secured_kafka.servers, stream.input, [(b"%d" % n, b"%d" % n, []) for n in range(20)])
    broker = opened(secured_kafka.ways[listener], made(secured_kafka))
    assert sum(lag.records for lag in broker.lag().values()) == 20
    found: list[Record] = []
    until = time.monotonic() + SOON
    while len(found) < 20:
        assert time.monotonic() < until
        found += broker.poll(0.2)
    broker.commit([Output(stream.output, record.key, record.value, []) for record in found])  # in one transaction
    assert {record.value for record in read_all(secured_kafka.servers, stream.output)} == {b"%d" % n for n in range(20)}
    assert sum(lag.records for lag in broker.lag().values()) == 0


@pytest.mark.parametrize("way", WAYS)
def test_what_people_do_from_outside_is_let_in(
    way: str, secured_kafka: SecuredKafka, stream: Stream, tmp_path: Path
) -> None:
    listener, made = WAYS[way]
    secured_kafka.create(stream.input, 1)
    produce(secured_kafka.servers, stream.input, [(None, b"1", [])])
    admin = open_admin(settings(secured_kafka.ways[listener], made(secured_kafka)), tmp_path / "log.db")
    try:
        assert admin.span(stream.input) == {0: (0, 1)}
    finally:
        admin.close()


def _wrong(server: SecuredKafka) -> dict[str, tuple[str, Security, Trouble, list[str]]]:
    """What goes wrong -> where, with what, and what is said of it."""
    made, ways = server.certificates, server.ways
    refused, away = Trouble.NOT_PERMITTED, Trouble.UNREACHABLE
    stranger = {"certificate": str(made.stranger), "key": str(made.stranger.with_suffix(".key"))}
    trusting = Security("SSL", ca=str(made.ca))
    other = sasl(server, password=Secret("wrong horse"))
    return {
        "password": (ways["SASL_SSL"], other, refused, ["refused the user 'scorer'", "password"]),
        "password of PLAIN": (
            ways["SASL_SSL"],
            msgspec.structs.replace(other, mechanism="PLAIN"),
            refused,
            ["refused the user 'scorer'", "PLAIN"],
        ),
        "user": (ways["SASL_SSL"], sasl(server, username=Secret("n=o,body")), refused, ["refused the user 'n=o,body'"]),
        "authority": (
            ways["SASL_SSL"],
            sasl(server, ca=str(made.stranger)),
            refused,
            ["TLS", "not trusted", "check ca"],
        ),
        "machine's authorities": (ways["SASL_SSL"], sasl(server, ca=""), refused, ["TLS", "not trusted", "check ca"]),
        "host": (ways["ELSEWHERE"], trusting, refused, ["TLS", "127.0.0.1", "check_hostname"]),
        "no client certificate": (ways["SSL"], trusting, refused, ["TLS", "client certificate", "certificate and key"]),
        "stranger's certificate": (ways["SSL"], mutual(server, **stranger), refused, ["TLS", "client certificate"]),
        "key's password": (
            ways["SSL"],
            mutual(server, key_password=Secret("no")),
            refused,
            ["TLS", "client-secret.key"],
        ),
        "missing authority": (
            ways["SSL"],
            mutual(server, ca="/none/ca.pem"),
            refused,
            ["TLS", "/none/ca.pem", "No such"],
        ),
        "TLS to a plain listener": (server.servers, trusting, away, ["TLS", "does not speak it", "protocol"]),
        "plain text to a TLS listener": (ways["SASL_SSL"], OPEN, away, ["may want TLS"]),
        "nobody to a SASL listener": (ways["SASL_PLAINTEXT"], OPEN, refused, ["wants SASL", "protocol"]),
        "no SASL over TLS": (ways["SASL_SSL"], trusting, refused, ["wants SASL", "SSL"]),
        "SASL to a listener without": (server.servers, sasl(server, "SASL_PLAINTEXT"), refused, ["takes no SASL"]),
    }


def test_what_is_wrong_is_said_at_once(secured_kafka: SecuredKafka) -> None:
    for name, (at, given, trouble, said) in _wrong(secured_kafka).items():
        began = time.monotonic()
        with pytest.raises(BrokerError) as refused:
            knock(at, given)
        message = refused.value.message
        assert refused.value.trouble is trouble, f"{name}: {message}"
        assert all(part in message for part in said), f"{name}: {message}"
        assert "horse" not in message
        assert time.monotonic() - began < QUICK, name


@pytest.mark.parametrize("case", ["password", "authority", "TLS to a plain listener", "plain text to a TLS listener"])
def test_a_broker_says_the_same(case: str, secured_kafka: SecuredKafka, opened: Open) -> None:
    at, given, trouble, said = _wrong(secured_kafka)[case]
    calls: list[Callable[[Broker], object]] = [lambda broker: broker.lag(), lambda broker: broker.poll(0.1)]
    for call in calls:
        broker = opened(at, given)
        began = time.monotonic()
        with pytest.raises(BrokerError) as refused:
            call(broker)
        assert refused.value.trouble is trouble
        assert all(part in refused.value.message for part in said), refused.value.message
        assert time.monotonic() - began < 1.5 * STREAM_BROKER_SECONDS_MAX


def test_a_broker_that_is_away_is_no_ones_fault(secured_kafka: SecuredKafka) -> None:
    knock(f"127.0.0.1:{free_port()}", sasl(secured_kafka))


def test_a_password_that_changes_in_its_file_is_taken_up(
    secured_kafka: SecuredKafka, stream: Stream, opened: Open, tmp_path: Path
) -> None:
    for topic in stream[1:]:
        secured_kafka.create(topic, 1)
    file = tmp_path / "password"
    file.write_text("the old one")
    given = sasl(secured_kafka, password=Secret(file=str(file)))
    broker = opened(secured_kafka.ways["SASL_SSL"], given)
    with pytest.raises(BrokerError, match="refused the user"):
        broker.lag()
    file.write_text(PASSWORD + "\n")
    assert opened(secured_kafka.ways["SASL_SSL"], given).lag()
