"""What the bench of streams runs on: a broker, Redis with two views, an engine. Who scores has core 0."""

import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from msgspec import structs
from tests import feature_views
from tests.bench import harness
from tests.bench.feature_data import PROJECT, SERVICE, TTL_S, VIEWS
from tests.bench.feature_repo import Views, applied, entity
from tests.bench.models import rows
from tests.bench.peers.peers import end, environment
from tests.engine_fixture import Engine
from tests.kafka_fixture import KafkaServer
from tests.redis_fixture import RedisServer
from tests.small_bundle import make_bundle

from sunup.bundle.manifest import Scale, StreamSpec
from sunup.lookup.plan import dump
from sunup.settings import STREAM_BROKER
from sunup.types import Field

KEYS = 20_000  # cards and merchants in the store: of a batch's thousand few are the same
PARTITIONS = 4
DEADLINE_MS = 1000.0  # nobody else here has one, and a read of ours that gives defaults ends the bench
REQUEST = tuple(Field(name, "int64") for name in ("card_id", "merchant_id")) + tuple(
    Field(f"f{i}", "float64") for i in range(10)
)


class Way(NamedTuple):
    """Where a subject reads and writes: topics, and a group that nobody else has used."""

    source: str
    target: str
    group: str


class Setting:
    """All of it, while it runs."""

    def __init__(self, folder: Path, model: bytes) -> None:
        self.folder = folder
        self.model = folder / "model.onnx"
        self.model.write_bytes(model)
        self.repository = folder / "feast"  # what the store holds, as Feast knows it
        self.redis = RedisServer(folder)
        self.kafka = KafkaServer(folder)
        self.engine = Engine(folder / "p")
        self._numbers = itertools.count()
        self._plan = dump(structs.replace(feature_views.plan(), deadline_ms=DEADLINE_MS))

    def start(self) -> None:
        """Whoever calls this, and what is started here, stays on the load core, but for the engine."""
        os.sched_setaffinity(0, {harness.LOAD_CORE})
        self.redis.start()
        feature_views.fill(self.redis.url, KEYS)
        views: Views = {view: (entity(key, "INT64"), dict.fromkeys(names, "Float64")) for key, view, names in VIEWS}
        online_store = f'{{type: redis, connection_string: "127.0.0.1:{self.redis.port}"}}'
        applied(self.repository, online_store, views, {SERVICE: [*views]}, project=PROJECT, ttl_s=TTL_S)
        self.kafka.start()
        self.engine.up()
        harness.pin(self.engine.pids().values(), harness.SERVER_CORE)

    def stop(self) -> None:
        self.engine.down()
        self.kafka.kill()
        self.redis.stop()

    @contextmanager
    def way(self, source: str = "") -> Iterator[Way]:
        """A fresh output topic and group, and a fresh input topic unless there is a `source`."""
        number = next(self._numbers)
        way = Way(source or f"in-{number}", f"out-{number}", f"group-{number}")
        made = [way.target, f"{way.target}-dead", *([] if source else [way.source])]
        for topic in made:
            self.kafka.create(topic, PARTITIONS)
        try:
            yield way
        finally:
            for topic in made:
                self.kafka.delete(topic)

    @contextmanager
    def sunup(self, way: Way, client: str, guarantee: str, idle_s: float = 60.0) -> Iterator[Callable[[], str]]:
        """A function of the engine with this stream, one worker at most. Raises RuntimeError without that client."""
        stream = StreamSpec(
            broker=self.kafka.servers,
            input=way.source,
            output=way.target,
            dead_letter=f"{way.target}-dead",
            group=way.group,
            guarantee=guarantee,  # type: ignore[arg-type]  # one of the two there are
            max_workers=1,
        )
        digest = make_bundle(
            self.engine.project.bundles,
            self.model.read_bytes(),
            rows(8, seed=3),
            dtype="float32",
            request=REQUEST,
            features=self._plan,
            scale=Scale(max=1, idle_s=idle_s),
            stream=stream,
        )
        settings = {"features_url": self.redis.url, STREAM_BROKER: self.kafka.servers, "stream_client": client}
        self.engine.deploy("score", digest, settings=settings, on_event=lambda _: None)
        try:
            (function,) = self.engine.status("score")["functions"]
            if (used := function["stream"].get("client", "kafka-python")) != client:
                raise RuntimeError(f"the engine speaks {used} to Kafka, not {client}")
            yield self._well
        finally:
            self.engine.remove("score")

    def workers(self) -> list[int]:
        """Process ids of the function's stream workers."""
        (function,) = self.engine.status("score")["functions"]
        return [worker["pid"] for worker in function["workers"] if worker["role"] == "stream"]

    def _well(self) -> str:
        (function,) = self.engine.status("score")["functions"]
        if function["stream"]["state"] in ("failed", "stalled", "not-permitted", "topic-missing"):
            raise RuntimeError(f"the stream is {function['stream']}")
        return f"the stream is {function['stream']}"

    @contextmanager
    def program(self, pins: str, module: str, *arguments: str) -> Iterator[Callable[[], str]]:
        """`python -m MODULE ARGUMENTS` on the server core, with the packages pinned in peers/PINS.txt if there are."""
        folder = self.folder / f"program-{next(self._numbers)}"
        folder.mkdir()
        python = environment(pins) / "python" if pins else Path(sys.executable)
        command = ["taskset", "-c", str(harness.SERVER_CORE), str(python), "-m", module, *arguments]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [part for part in command if part],
                env={**os.environ, "PYTHONPATH": str(harness.ROOT), "OMP_NUM_THREADS": "1"},
                cwd=folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

        def alive() -> str:
            said = f"{module} {process.poll()}:\n{(folder / 'log').read_text()[-3000:]}"
            if process.poll() is not None:
                raise RuntimeError(said)
            return said

        try:
            yield alive
        finally:
            end(process)
