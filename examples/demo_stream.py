"""What the demo's second half uses: a broker, records in, scores out. The story is in examples/demo.py.

A broker is the Kafka that KAFKA_BOOTSTRAP names; else one that is started for the demo, where Java and Maven are found;
else the embedded log. Nothing of a Kafka that is somebody's own is deleted, and only records sent here are counted.
"""

import json
import logging
import os
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from sunup.stream.embedded import Log

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # kafka-python's, about how it reads files of its own
    from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
    from kafka.errors import KafkaError

BOOTSTRAP: Final = "KAFKA_BOOTSTRAP"
KAFKA: Final = Path(__file__).resolve().parent.parent / "infra" / "kafka.sh"
PARTITIONS: Final = 4
BROKER_SECONDS_MAX: Final = 60.0  # s for a broker to start or stop; it takes two
REPLY_SECONDS_MAX: Final = 10.0
TOLD: Final = ("defaulted", "stale")  # what an answer says of the features it was made with


class Entry(NamedTuple):
    """One record to send."""

    key: bytes
    value: bytes


class Scored(NamedTuple):
    """One score that came out. `id`: topic-partition-offset of the record it is the score of."""

    id: str
    answer: dict[str, Any]


class Names(NamedTuple):
    """The topics of a function, as `platform stream status` has them."""

    input: str
    output: str
    dead_letter: str


class Topics(Protocol):
    """A function's topics at one broker. `take` begins with what comes out after this was opened."""

    broker: str  # what a person calls it
    note: str  # which one it is, and why
    bootstrap: str  # what a deployer sets KAFKA_BOOTSTRAP to; "" for the embedded log

    def send(self, entries: Sequence[Entry]) -> list[str]:
        """Write records; the id of each once all are acknowledged."""
        ...

    def take(self, seconds: float) -> list[Scored]:
        """Scores not taken before; waits up to `seconds` for the first."""
        ...

    def close(self) -> None: ...


class OnKafka:
    """With kafka-python and nothing else. Makes the topics that are missing. `servers`: "host:port,host:port"."""

    def __init__(self, servers: str, names: Names, why: str) -> None:
        self.broker = f"Apache Kafka, {why}"
        self.bootstrap = servers
        self._names = names
        known: dict[str, Any] = {"bootstrap_servers": servers, "bootstrap_timeout_ms": 1000 * REPLY_SECONDS_MAX}
        with closing(KafkaAdminClient(**known)) as admin:
            missing = [topic for topic in names if topic not in set(admin.list_topics())]
            if missing:
                wanted = {topic: {"num_partitions": PARTITIONS} for topic in missing}
                admin.create_topics(wanted, wait_for_metadata=True)
        made = f"; made its topics {', '.join(missing)}" if missing else ""
        self.note = f"Apache Kafka at {servers}, {why}{made}"
        self._producer = KafkaProducer(**known, linger_ms=5)
        self._consumer = KafkaConsumer(**known, isolation_level="read_committed", max_poll_records=5000)
        partitions = self._consumer.partitions_for_topic(names.output) or ()
        self._consumer.assign([TopicPartition(names.output, number) for number in partitions])
        self._consumer.seek_to_end()
        for partition in self._consumer.assignment():
            self._consumer.position(partition)  # the end as it is now, not when it is first polled

    def send(self, entries: Sequence[Entry]) -> list[str]:
        sent = [self._producer.send(self._names.input, key=key, value=value) for key, value in entries]
        self._producer.flush(BROKER_SECONDS_MAX)
        places = [future.get(BROKER_SECONDS_MAX) for future in sent]
        return [f"{place.topic}-{place.partition}-{place.offset}" for place in places]

    def take(self, seconds: float) -> list[Scored]:
        polled = self._consumer.poll(timeout_ms=1000 * seconds)
        return [_scored(record.headers, record.value) for records in polled.values() for record in records]

    def close(self) -> None:
        self._producer.close(REPLY_SECONDS_MAX)
        self._consumer.close()


class OnLog:
    """The embedded log in the file `path`."""

    def __init__(self, path: Path, names: Names, why: str) -> None:
        self.broker = "the embedded log"
        self.note = f"the embedded log; {why}"
        self.bootstrap = ""
        self._names = names
        self._log = Log(path)
        self._log.create(names.output)
        self._next = self._log.end(names.output)

    def send(self, entries: Sequence[Entry]) -> list[str]:
        ids: list[str] = []
        for at in range(0, len(entries), 1000):  # one transaction each: the function writes in between
            places = self._log.append(self._names.input, [(*entry, []) for entry in entries[at : at + 1000]])
            ids += [f"{self._names.input}-{partition}-{offset}" for partition, offset in places]
        return ids

    def take(self, seconds: float) -> list[Scored]:
        until = time.monotonic() + seconds
        while True:
            found = []
            for partition, offset in self._next.items():
                found += self._log.read(self._names.output, partition, offset, 5000)
            if found or time.monotonic() >= until:
                break
            time.sleep(0.002)  # SQLite has no way to wait for another process
        for record in found:
            self._next[record.partition] = record.offset + 1
        return [_scored(record.headers, record.value) for record in found]

    def close(self) -> None:
        self._log.close()


@contextmanager
def topics(log: Path, names: Names) -> Iterator[Topics]:
    """The best broker there is; one that is started here ends with the block. `log`: the embedded log's file.

    Exits with a line that says why when a broker does not answer.
    """
    logging.getLogger("kafka").setLevel(logging.CRITICAL)  # what it cannot do, it also raises
    with ExitStack() as stack:
        found: Topics
        if servers := os.environ.get(BOOTSTRAP):
            found = on_kafka(servers, names, f"as {BOOTSTRAP} says")
        elif why := missing():
            found = OnLog(log, names, why)
        else:
            servers = stack.enter_context(started())
            found = on_kafka(servers, names, "started for this demo")
        yield stack.enter_context(closing(found))


def on_kafka(servers: str, names: Names, why: str) -> OnKafka:
    """Connect; exits when the broker does not answer or refuses."""
    try:
        return OnKafka(servers, names, why)
    except KafkaError as error:
        sys.exit(f"Kafka at {servers}, {why}: {error}")


def missing() -> str:
    """Why no Kafka can be started here; "" when one can."""
    fetched = subprocess.run([KAFKA, "fetch"], capture_output=True, text=True, check=False)
    said = fetched.stderr.strip().splitlines() or ["infra/kafka.sh fetch failed"]
    return said[-1].removeprefix("[setup] ") if fetched.returncode else ""


@contextmanager
def started() -> Iterator[str]:
    """A Kafka broker of one node on a free port, its data in a temporary folder: its host:port."""
    with tempfile.TemporaryDirectory(prefix="sunup-kafka-") as folder:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        log = Path(folder) / "kafka.log"
        with log.open("wb") as output:
            # In a session of its own: Ctrl-C ends the demo, which then ends the broker, in this order.
            broker = subprocess.Popen(
                [KAFKA, "run", folder, str(port)], stdout=output, stderr=output, start_new_session=True
            )
        try:
            until = time.monotonic() + BROKER_SECONDS_MAX
            while not _listens(port):
                if broker.poll() is not None or time.monotonic() > until:
                    sys.exit(f"Kafka did not start: {log.read_text('utf-8', 'replace')[-1000:]}")
                time.sleep(0.05)  # the only sign that a server listens is that it does
            yield f"127.0.0.1:{port}"
        finally:
            broker.terminate()
            try:
                broker.wait(BROKER_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                broker.kill()
                broker.wait()


def collect(topics: Topics, ids: Collection[str], seconds_max: float) -> list[Scored]:
    """The scores of `ids` in the order they came, doubled ones too; ends when each was seen, or after `seconds_max`."""
    mine, waiting = set(ids), set(ids)
    found: list[Scored] = []
    until = time.monotonic() + seconds_max
    while waiting and time.monotonic() < until:
        came = [scored for scored in topics.take(0.2) if scored.id in mine]
        found += came
        waiting.difference_update(scored.id for scored in came)
    return found


def once(ids: Iterable[str], found: Iterable[Scored]) -> int:
    """How many of `ids` came out exactly once."""
    times = Counter(scored.id for scored in found)
    return sum(times[id] == 1 for id in ids)


def difference(here: Sequence[Mapping[str, Any]], there: Sequence[Mapping[str, Any]]) -> tuple[float, int]:
    """The largest difference of the scores of the same records, and how many records were left out.

    Left out is where the answers were made of other features, and say so: a lookup that passed its deadline.
    """
    pairs = [
        (one["score"], other["score"])
        for one, other in zip(here, there, strict=True)
        if all(one.get(name) == other.get(name) for name in TOLD)
    ]
    return max((abs(one - other) for one, other in pairs), default=0.0), len(here) - len(pairs)


def _scored(headers: Iterable[tuple[str, bytes]], value: bytes | None) -> Scored:
    id = dict(headers).get("ce_id", b"")  # "": somebody else's record
    return Scored(id.decode(), json.loads(value or b"{}") if id else {})


def _listens(port: int) -> bool:
    try:
        # From another address: from its own, the kernel may choose the very port that is tried, and answer itself.
        socket.create_connection(("127.0.0.1", port), 1, source_address=("127.0.0.3", 0)).close()
    except OSError:
        return False
    return True
