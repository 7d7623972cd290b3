"""Where tests aggregate a topic: a broker, and folders of as many machines as are asked for."""

import json
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from tests.aggregating import Store, Told, aggregates, turn
from tests.kafka_fixture import KafkaServer, produce, read_all

from sunup.settings import CONFLUENT, EMBEDDED, KAFKA_PYTHON, STREAM_BROKER, STREAM_CLIENT
from sunup.stream.admin import Admin
from sunup.stream.aggregate.aggregates import Aggregates
from sunup.stream.broker import Broker, Reader, Stream
from sunup.stream.embedded import Log
from sunup.stream.open import open_admin, open_broker

PARTITIONS = 2


class Place:
    """Topics of one function, and folders of as many machines as are asked for."""

    def __init__(self, folder: Path, server: KafkaServer | None, client: str = KAFKA_PYTHON) -> None:
        name = f"f{uuid.uuid4().hex[:8]}"
        self.folder, self.log = folder, folder / "log.db"
        self.stream = Stream(f"{name}-group", f"{name}-in", f"{name}-out", f"{name}-dead")
        self.changelog = None if server is None else f"{name}-group-tiles"
        self.server = server
        self.settings = {STREAM_BROKER: EMBEDDED if server is None else server.servers, STREAM_CLIENT: client}
        for topic in self.stream[1:]:
            if server is None:
                Log(self.log).create(topic, PARTITIONS)
            else:
                server.create(topic, PARTITIONS)

    def send(self, messages: list[Any]) -> None:
        if self.server is None:
            Log(self.log).append(self.stream.input, messages)
        else:
            produce(self.server.servers, self.stream.input, messages)

    def outputs(self) -> dict[str, Any]:
        if self.server is None:
            log = Log(self.log)
            ends = log.end(self.stream.output).items()
            found = [one for number, end in ends for one in log.read(self.stream.output, number, 0, end)]
        else:
            found = read_all(self.server.servers, self.stream.output)
        seen = {one.key.decode(): json.loads(one.value) for one in found if one.key and one.value}
        assert len(seen) == len(found), "a record was scored twice"
        return seen

    def broker(self, name: str = "reader") -> Broker:
        broker = open_broker(self.settings, self.stream, self.log, Reader(name))
        broker.join(0, 1)
        return broker

    def admin(self) -> Admin:
        return open_admin(self.settings, self.log)

    def aggregates(self, machine: str = "one", store: Store | None = None, told: Told | None = None) -> Aggregates:
        return aggregates(
            self.folder / machine,
            None,
            topic=self.stream.input,
            group=self.stream.group,
            changelog=self.changelog,
            store=store,
            told=told,
            open_admin=self.admin,
        )

    def program(self, machine: str = "one", quiet_s: float = 1.5, records_max: int = 200) -> subprocess.Popen[str]:
        given = {
            "stream": self.stream,
            "settings": self.settings,
            "log": str(self.log),
            "folder": str(self.folder / machine),
            "changelog": self.changelog,
            "name": "reader",
            "quiet_s": quiet_s,
            "records_max": records_max,
        }
        command = [sys.executable, "-m", "tests.aggregate_program", json.dumps(given)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.fixture(params=[EMBEDDED, KAFKA_PYTHON, CONFLUENT])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == EMBEDDED:
        return Place(tmp_path, None)
    return Place(tmp_path, request.getfixturevalue("kafka"), request.param)


@pytest.fixture
def on_kafka(kafka: KafkaServer, tmp_path: Path) -> Place:
    return Place(tmp_path, kafka)


def read(broker: Broker, made: Aggregates, count: int) -> None:
    until = time.monotonic() + 30
    while count > 0:
        count -= len(turn(broker, made))
        assert time.monotonic() < until, f"{count} records did not come"
