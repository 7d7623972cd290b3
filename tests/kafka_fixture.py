"""A real Kafka broker for tests, on a free port, with its data in a temporary folder."""

import functools
import gc
import os
import socket
import subprocess
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final, TypeAlias

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ACL, ACLOperation, ACLPermissionType, ResourcePattern, ResourceType
from kafka.consumer.fetcher import ConsumerRecord
from tests.ports import free_port

SCRIPT: Final = Path(__file__).resolve().parent.parent / "infra" / "kafka.sh"
LOOPBACK: Final = "127.0.0.1"
START_SECONDS_MAX: Final = 60.0  # s; 1.5 alone on a machine, and after a crash 3 more until the broker is let in again
STOP_SECONDS_MAX: Final = 30.0
REPLY_SECONDS_MAX: Final = 30.0
BACKOFF: Final = {"retry_backoff_ms": 10, "reconnect_backoff_ms": 10, "reconnect_backoff_max_ms": 200}
WITH_ACLS: Final = {
    "authorizer_class_name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow_everyone_if_no_acl_found": "true",
}

Message: TypeAlias = tuple[bytes | None, bytes | None, Sequence[tuple[str, bytes]]]  # key, value, headers


class KafkaServer:
    """One broker. `properties` are Kafka's, with `_` for each dot: `KafkaServer(folder, **WITH_ACLS)`."""

    def __init__(self, folder: Path, host: str = LOOPBACK, /, **properties: object) -> None:
        self.folder = folder
        self.host = host
        self.port = free_port()
        if host != LOOPBACK:
            here = f"PLAINTEXT://{host}:{self.port}"
            listeners = {"listeners": f"{here},CONTROLLER://127.0.0.2:{self.port - 1}", "advertised_listeners": here}
            properties = {**listeners, **properties}
        self._properties = [f"{name.replace('_', '.')}={value}" for name, value in properties.items()]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def servers(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def pid(self) -> int:
        """Of the running broker."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start on the same port as before, with the data of before, and wait until a request is answered."""
        need_kafka()
        command = [str(SCRIPT), "run", str(self.folder), str(self.port), *self._properties]
        log = self.folder / "kafka.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + START_SECONDS_MAX
        while not self._listens():
            if time.monotonic() > deadline or self._process.poll() is not None:
                self.kill()
                pytest.fail(f"Kafka did not start: {log.read_text('utf-8', 'replace')[-2000:]}")
            time.sleep(0.02)  # the only sign that a server listens is that it does
        self._admin().close()  # made when the broker has answered

    def stop(self) -> None:
        """Let it finish what it has, as SIGTERM does."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(STOP_SECONDS_MAX)
            self._process = None

    def kill(self) -> None:
        """End it in the middle of whatever it does. `start` brings it back with everything it acknowledged."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def create(self, topic: str, partitions: int = 4) -> None:
        with self._admin() as admin:
            admin.create_topics({topic: {"num_partitions": partitions}}, wait_for_metadata=True)

    def delete(self, topic: str) -> None:
        with self._admin() as admin:
            admin.delete_topics([topic])
            _wait(lambda: topic not in admin.list_topics())

    def deny(self, operation: str, topic: str) -> None:
        """Forbid everybody an operation (`WRITE`, `READ`, `DESCRIBE`) on a topic. Needs a broker WITH_ACLS."""
        # A topic with one rule refuses what no rule allows.
        rules = [_rule(ACLPermissionType.ALLOW, "ALL", topic), _rule(ACLPermissionType.DENY, operation, topic)]
        with self._admin() as admin:
            assert not admin.create_acls(rules)["failed"]
            _wait(lambda: admin.describe_acls(rules[1])[0])

    def allow(self, operation: str, topic: str) -> None:
        """Take `deny` back."""
        rule = _rule(ACLPermissionType.DENY, operation, topic)
        with self._admin() as admin:
            admin.delete_acls([rule])
            _wait(lambda: not admin.describe_acls(rule)[0])

    def _listens(self) -> bool:
        try:
            # From another address: from its own, the kernel may choose the very port that is tried, and then it answers
            # itself and takes the broker's place.
            source = ("127.0.0.3", 0) if self.host == LOOPBACK else None
            socket.create_connection((self.host, self.port), 1, source_address=source).close()
        except OSError:
            return False
        return True

    def _admin(self) -> KafkaAdminClient:
        return KafkaAdminClient(bootstrap_servers=self.servers, **BACKOFF)


def _rule(permission: ACLPermissionType, operation: str, topic: str) -> ACL:
    return ACL("User:*", "*", ACLOperation[operation], permission, ResourcePattern(ResourceType.TOPIC, topic))


def _wait(is_so: Callable[[], object]) -> None:
    """What the controller has accepted reaches the broker through a log, some milliseconds later."""
    deadline = time.monotonic() + REPLY_SECONDS_MAX
    while not is_so():
        assert time.monotonic() < deadline, "the broker did not learn of a change"
        time.sleep(0.01)


def produce(servers: str, topic: str, messages: Iterable[Message]) -> None:
    """Write messages and wait until every one is acknowledged. Raises the error of the first that is not."""
    with producing(servers) as send:
        send(topic, messages)


@contextmanager
def producing(servers: str) -> Iterator[Callable[[str, Iterable[Message]], None]]:
    """To `produce` again and again, each record once and in order, over a restart of the broker too."""
    producer = KafkaProducer(bootstrap_servers=servers, acks="all", linger_ms=5, **BACKOFF)

    def send(topic: str, messages: Iterable[Message]) -> None:
        futures = [
            producer.send(topic, key=key, value=value, headers=list(headers)) for key, value, headers in messages
        ]
        producer.flush(START_SECONDS_MAX)
        for future in futures:
            future.get(REPLY_SECONDS_MAX)

    try:
        yield send
    finally:
        producer.close(REPLY_SECONDS_MAX)


def collect_sockets() -> None:
    """kafka-python leaves sockets open that did not get to connect, as while a broker restarts: let go of them."""
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        gc.collect()


def read_all(servers: str, topic: str) -> list[ConsumerRecord]:
    """Every committed record that is in a topic now, in order within each partition."""
    return list(scan(servers, topic))


def read_marked(servers: str, topic: str) -> list[ConsumerRecord]:
    """The same, where no transaction is open. A commit is answered before the brokers have marked every partition of
    it: until then readers do not see its records."""
    deadline = time.monotonic() + REPLY_SECONDS_MAX
    while any(stable < end for stable, end in settled(servers, topic).values()):
        assert time.monotonic() < deadline, f"{topic}: a transaction is open"
    return read_all(servers, topic)


def scan(servers: str, topic: str) -> Iterator[ConsumerRecord]:
    """The same, one by one. Fails where a record that is there does not come."""
    with closing(_reader(servers)) as consumer:
        partitions = _partitions(consumer, topic)
        consumer.assign(partitions)
        consumer.seek_to_beginning()
        ends = consumer.end_offsets(partitions)
        deadline = time.monotonic() + REPLY_SECONDS_MAX
        while any(consumer.position(partition) < end for partition, end in ends.items()):
            assert time.monotonic() < deadline, f"{topic}: the end was not reached"
            for batch in consumer.poll(timeout_ms=100).values():
                deadline = time.monotonic() + REPLY_SECONDS_MAX
                yield from batch


def settled(servers: str, topic: str) -> dict[int, tuple[int, int]]:
    """Partition -> its last stable offset and its end. They differ where a transaction is open, or hangs."""
    with closing(_reader(servers)) as stable, closing(_reader(servers, "read_uncommitted")) as every:
        ends = every.end_offsets(_partitions(every, topic))
        return {each.partition: (at, ends[each]) for each, at in stable.end_offsets(list(ends)).items()}


def _reader(servers: str, isolation: str = "read_committed") -> KafkaConsumer:
    return KafkaConsumer(bootstrap_servers=servers, isolation_level=isolation, enable_auto_commit=False, **BACKOFF)


def _partitions(consumer: KafkaConsumer, topic: str) -> list[TopicPartition]:
    partitions = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or ())]
    assert partitions, f"there is no topic {topic}"
    return partitions


def committed(servers: str, group: str, topic: str) -> dict[int, int]:
    """The offset a group reads next, for each partition it has committed."""
    # The admin client does not wait for the topic that holds offsets, which is made when it is first asked for.
    consumer = KafkaConsumer(bootstrap_servers=servers, group_id=group, enable_auto_commit=False, **BACKOFF)
    try:
        partitions = consumer.partitions_for_topic(topic) or ()
        offsets = {number: consumer.committed(TopicPartition(topic, number)) for number in partitions}
    finally:
        consumer.close()
    return {number: offset for number, offset in offsets.items() if offset is not None}


@functools.cache
def _fetch() -> tuple[int, str]:
    found = subprocess.run([SCRIPT, "fetch"], capture_output=True, text=True, check=False)
    return found.returncode, found.stderr.strip()


def need_kafka() -> None:
    """Fetch the broker once. Without Java and Maven the test is skipped at home and fails in CI."""
    status, message = _fetch()
    if status == 3 and os.environ.get("CI") != "true":
        pytest.skip(message)
    if status != 0:
        pytest.fail(message)


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """A broker shared by the session: use topic and group names of your own."""
    server = KafkaServer(tmp_path_factory.mktemp("kafka"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def kafka_server(tmp_path: Path) -> Iterator[KafkaServer]:
    """A broker of the test's own, to kill."""
    server = KafkaServer(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def guarded_kafka(tmp_path: Path) -> Iterator[KafkaServer]:
    """A broker of the test's own, WITH_ACLS."""
    server = KafkaServer(tmp_path, **WITH_ACLS)
    server.start()
    yield server
    server.kill()
