"""Pods that score a topic of a real Kafka broker: every record once, whatever ends them."""

import json
import os
import signal
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from kafka import KafkaConsumer, TopicPartition
from prometheus_client.parser import text_string_to_metric_families
from tests.engine_fixture import Engine, until
from tests.kafka_fixture import KafkaServer, settled
from tests.pod_fixture import Pod, Start, line, pods, settings_file
from tests.ports import free_port
from tests.topics import KafkaTopics, entry, sources

from sunup.bundle.manifest import StreamSpec
from sunup.settings import CONFLUENT, KAFKA_PYTHON, STREAM_BROKER, STREAM_CLIENT
from sunup.stream.broker import Record

__all__ = ["pods"]

pytestmark = pytest.mark.timeout(300)

DEADLY = -1
HANDLER = f"""
import os
import time


def preprocess(rows):
    time.sleep(0.002)
    if (rows["x"] == {DEADLY}).any():
        os._exit(3)
    return {{}}
"""


class Streamed:
    """A function y = 2 x with topics of its own, for pods to score."""

    def __init__(self, folder: Path, server: KafkaServer, start: Start, client: str = KAFKA_PYTHON) -> None:
        name = f"f{uuid.uuid4().hex[:8]}"
        self.topics = KafkaTopics(server)
        self.server = server
        self.stream = StreamSpec(server.servers, f"{name}-in", f"{name}-out", f"{name}-dead", f"{name}-group")
        for topic in (self.stream.input, self.stream.output, self.stream.dead_letter):
            self.topics.create(topic)
        engine = Engine(folder / "p")
        self.bundle = engine.project.bundles / engine.bundle(name, 2.0, stream=self.stream, handler=HANDLER)
        self._settings = settings_file(folder, {STREAM_BROKER: server.servers, STREAM_CLIENT: client})
        self._start = start
        self.sent = 0

    def pod(self) -> Pod:
        """One more of them."""
        return self._start(self.bundle, SUNUP_ROLE="stream", SUNUP_SETTINGS=self._settings, K_REVISION="f-00004")

    def send(self, numbers: Sequence[int]) -> None:
        self.topics.send(self.stream.input, [entry(number) for number in numbers])
        self.sent += len(numbers)

    def outputs(self) -> list[Record]:
        return self.topics.read(self.stream.output)

    def is_read(self) -> bool:
        found = self.topics.positions(self.stream.group, self.stream.input)
        return all(position == end for position, end in found.values())

    def is_open(self) -> bool:
        """Whether a transaction on the outputs is open."""
        return any(stable < end for stable, end in settled(self.server.servers, self.stream.output).values())

    @contextmanager
    def writing(self) -> Iterator[Callable[[], bool]]:
        """Whether anything was written to the outputs since then, committed or not; asked within a millisecond."""
        with closing(KafkaConsumer(bootstrap_servers=self.server.servers, enable_auto_commit=False)) as consumer:
            numbers = consumer.partitions_for_topic(self.stream.output) or ()
            places = [TopicPartition(self.stream.output, number) for number in numbers]
            before = consumer.end_offsets(places)
            yield lambda: bool(consumer.end_offsets(places) != before)

    def check(self) -> None:
        """Everything sent is scored, once, and nothing is left half done."""
        until(self.is_read, "everything to be read", 90.0)
        until(lambda: not self.is_open(), "no open transaction", 60.0)
        outputs = self.outputs()
        seen = Counter(sources(outputs))
        assert [source for source, times in seen.items() if times > 1] == []
        assert len(seen) == self.sent
        assert all(json.loads(one.value or b"")["y"] == 2.0 * int(one.key or b"") for one in outputs)


@pytest.fixture(params=[KAFKA_PYTHON, CONFLUENT])
def streamed(request: pytest.FixtureRequest, tmp_path: Path, kafka: KafkaServer, pods: Start) -> Streamed:
    return Streamed(tmp_path, kafka, pods, request.param)


def test_records_are_scored_and_the_end_is_in_order(streamed: Streamed) -> None:
    pod = streamed.pod()
    pod.wait_ready()
    streamed.send(range(2000))
    until(streamed.is_read, "everything to be read", 60.0)
    families = {f.name: f for f in text_string_to_metric_families(pod.probe("/metrics").body.decode())}
    results = {
        s.labels["result"]: s.value for s in families["sunup_stream_records"].samples if s.name.endswith("total")
    }
    assert results == {"scored": 2000, "dead": 0, "ignored": 0}
    assert (pod.probe("/live").status, pod.probe("/ready").json) == (200, {"ready": True})
    assert pod.stop() == 0
    assert line(pod, "ended")
    assert list(line(pod, "ready")["ms"]) == ["process", "import", "load", "prove", "listen", "total"]
    headers = dict(streamed.outputs()[0].headers)
    assert headers["ce_revision"] == b"4"
    streamed.check()
    streamed.send(range(10))
    streamed.pod()
    streamed.check()


def test_killed_within_a_transaction_nothing_is_lost_or_doubled(streamed: Streamed) -> None:
    pod = streamed.pod().wait_ready()
    at = 0
    for _ in range(3):
        for _ in range(100):  # until one is caught: a transaction is open for some milliseconds
            with streamed.writing() as is_written:
                at += 500
                streamed.send(range(at, at + 500))
                until(is_written, "the first outputs", 60.0)
                os.kill(pod.process.pid, signal.SIGSTOP)
            caught = streamed.is_open()
            if caught:
                pod.tell(signal.SIGKILL)
                break
            os.kill(pod.process.pid, signal.SIGCONT)
        assert caught, "no transaction was open whenever it was looked at"
        assert pod.end() == -signal.SIGKILL
        assert streamed.is_open()
        pod.start()  # the kubelet does, in the same pod
        pod.wait_ready()
    streamed.check()
    assert pod.stop() == 0


def test_told_to_end_in_the_middle_the_next_one_goes_on(streamed: Streamed) -> None:
    for turn in range(3):
        pod = streamed.pod()
        streamed.send(range(turn * 5000, turn * 5000 + 5000))
        pod.wait_ready()
        until(lambda: bool(streamed.outputs()), "it to be in the middle of them", 60.0)
        assert pod.stop() == 0
        assert not streamed.is_open(), "what was in hand is committed, or given up"
    streamed.pod()
    streamed.check()


def test_two_pods_share_the_partitions(streamed: Streamed) -> None:
    both = [streamed.pod(), streamed.pod()]
    for pod in both:
        pod.wait_ready()

    def reads(pod: Pod) -> list[int]:
        found = [line["partitions"] for line in pod.said if line["message"] == "reads"]
        return found[-1] if found else []

    until(lambda: [len(reads(pod)) for pod in both] == [2, 2], "two partitions for each", 60.0)
    streamed.send(range(3000))
    until(streamed.is_read, "everything to be read", 60.0)
    both[0].tell(signal.SIGKILL)
    streamed.send(range(3000))
    streamed.check()
    assert both[1].stop() == 0


def test_a_record_that_kills_pods_becomes_a_dead_letter(streamed: Streamed) -> None:
    pod = streamed.pod().wait_ready()
    streamed.send([*range(100), DEADLY])
    deaths = 0
    while not streamed.topics.read(streamed.stream.dead_letter):
        if pod.process.poll() is not None:
            assert pod.end() == 3
            deaths += 1
            assert deaths <= 4
            pod.start()
        time.sleep(0.05)
    (letter,) = streamed.topics.read(streamed.stream.dead_letter)
    assert letter.key == b"%d" % DEADLY
    until(streamed.is_read, "everything to be read", 60.0)
    assert len(streamed.outputs()) == 100
    assert pod.stop() == 0


def test_a_broker_that_is_away_is_told_and_waited_for(tmp_path: Path, pods: Start) -> None:
    engine, broker = Engine(tmp_path / "p"), f"127.0.0.1:{free_port()}"
    stream = StreamSpec(broker, "in", "out", "dead", "group")
    bundle = engine.project.bundles / engine.bundle("double", 2.0, stream=stream)
    pod = pods(bundle, SUNUP_ROLE="stream", SUNUP_SETTINGS=settings_file(tmp_path, {STREAM_BROKER: broker}))

    def reason() -> str:
        try:
            answer = pod.probe("/ready")
        except OSError:
            return ""
        assert answer.status == 503
        return str(answer.json["reason"])

    until(lambda: reason().startswith("unreachable: "), "it to say so", 60.0)
    assert broker in reason()
    assert pod.probe("/live").status == 200
    assert pod.stop() == 0
