"""Stream feature views when a worker is stopped and goes on, the store or the tiles are lost, and nothing happens."""

import logging
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient, TopicPartition
from tests.engine_fixture import Engine, left, until
from tests.kafka_fixture import KafkaServer
from tests.redis_fixture import RedisServer
from tests.streaming import views
from tests.streaming.differences import Differences, Expected
from tests.streaming.events import Events
from tests.streaming.function import Streaming
from tests.streaming.stores import OnlineStore, RedisStore, SqliteStore
from tests.topics import EmbeddedTopics, Entry, KafkaTopics, Topics

from sunup.limits import AGGREGATE_LOOK_SECONDS
from sunup.settings import CONFLUENT, KAFKA_PYTHON, STREAM_CLIENT

pytestmark = pytest.mark.timeout(180)

EVENTS = 6000
CARDS = 2000
RECOVERY_SECONDS_MAX = 20.0  # of a worker's birth, with all tiles to be restored; how soon it should be, the bench says
REBUILD_SECONDS_MAX = 10.0  # until every value is in the store again
ONLINE_SECONDS_MAX = 20.0
CALM = {"recent": partial(views.recent, hop_s=60, windows=(300, 1800)), "hour": views.hour}  # hardly anything is due


@pytest.fixture(autouse=True)
def no_records_of_errors(caplog: pytest.LogCaptureFixture) -> None:
    """What pytest keeps of kafka-python's log holds on to the sockets that did not get to connect."""
    caplog.set_level(logging.CRITICAL, logger="kafka")


@pytest.fixture
def redis(redis_server: RedisServer) -> Iterator[RedisStore]:
    with closing(RedisStore(redis_server.url)) as store:
        yield store


@pytest.fixture
def other_engine(tmp_path: Path) -> Iterator[Engine]:
    """As on another machine: it shares no file with the first one."""
    engine = Engine(tmp_path / "other")
    engine.up()
    yield engine
    engine.down()
    assert left(engine) == []


def events(count: int = EVENTS, *, odd: float = 0.01) -> list[Entry]:
    """Of the last half hour."""
    now = time.time()
    return Events(count, CARDS, now - 1800, now, late_s=(20.0, 60.0), odd=odd).entries(range(count))


def check(streaming: Streaming, expected: Expected | None = None, *, scores: bool = True, **more: Any) -> float:
    """Nothing differs from the batch computation; seconds until everything online was right."""
    found, expected = Differences(), expected or Expected(streaming)
    if scores:
        expected.judge_scores({streaming.revision: 1.0}, found)
    took = expected.judge_online(found, ONLINE_SECONDS_MAX, **more)
    assert not found, f"{found}\n{streaming.facts}"
    return took


def started(streaming: Streaming, partitions: int = 4) -> Streaming:
    streaming.create(partitions)
    streaming.deploy(1.0)
    return streaming


def read(streaming: Streaming, seconds: float = 60.0) -> None:
    until(streaming.is_read, f"all to be read, not {streaming.facts}", seconds)


def forget(topics: Topics, topic: str) -> None:
    """Delete every record there is: who wants to read a window again finds nothing."""
    ends = {TopicPartition(topic, number): end for number, (_, end) in topics.positions("nobody", topic).items()}
    with closing(KafkaAdminClient(bootstrap_servers=topics.broker)) as admin:
        admin.delete_records(ends)


# --- Two aggregators of one partition ---------------------------------------------------------------------------------


def test_a_worker_that_was_taken_over_from_changes_nothing(
    engine: Engine, other_engine: Engine, kafka: KafkaServer, redis: RedisStore
) -> None:
    """It was stopped with records in hand, another engine's worker went on without it, and then it wakes."""
    settings = {STREAM_CLIENT: KAFKA_PYTHON}  # whose sessions end after 6 s
    streaming = started(Streaming(engine, KafkaTopics(kafka), redis, settings=settings, max_workers=1, idle_s=60.0))
    entries = events()
    streaming.send_entries(entries[:2000])
    read(streaming)
    (stopped,) = streaming.workers
    streaming.send_entries(entries[2000:4000])
    os.kill(stopped, signal.SIGSTOP)
    twin = streaming.twin(other_engine)
    try:
        twin.deploy(1.0)
        read(twin)
        twin.send_entries(entries[4000:5000])
        read(twin)
        streaming.sent = twin.sent
        check(twin)
    finally:
        os.kill(stopped, signal.SIGCONT)
    twin.send_entries(entries[5000:])
    read(twin)
    check(twin)


# --- Something is lost ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_zero", [False, True], ids=["running", "at zero"])
def test_redis_loses_everything(engine: Engine, kafka: KafkaServer, redis: RedisStore, at_zero: bool) -> None:
    topics, idle_s = KafkaTopics(kafka), 0.5 if at_zero else 60.0
    streaming = started(Streaming(engine, topics, redis, CALM, settings={STREAM_CLIENT: CONFLUENT}, idle_s=idle_s))
    lost(streaming, redis, at_zero=at_zero, before=lambda: forget(topics, streaming.stream.input))


@pytest.mark.parametrize("at_zero", [False, True], ids=["running", "at zero"])
def test_sqlite_loses_everything(engine: Engine, tmp_path: Path, at_zero: bool) -> None:
    store, topics = SqliteStore(tmp_path / "online.db"), EmbeddedTopics(engine.project.embedded_log)
    streaming = started(Streaming(engine, topics, store, CALM, idle_s=0.5 if at_zero else 60.0))
    lost(streaming, store, at_zero=at_zero, before=lambda: None)


def lost(streaming: Streaming, store: OnlineStore, *, at_zero: bool, before: Callable[[], None]) -> None:
    """What was there comes again, of the tiles alone."""
    streaming.send_entries(events(odd=0.0))
    read(streaming)
    if at_zero:
        streaming.wait_for_zero()
    check(streaming, expected := Expected(streaming))
    before()
    store.lose()
    begun = time.monotonic()
    with trickle(streaming) if at_zero else nullcontext():  # at zero nobody looks at the store until a record comes
        check(streaming, expected, scores=False, forgotten=True)
    took = time.monotonic() - begun
    print(f"{CARDS} cards were in the store again after {took:.2f} s")
    assert took < REBUILD_SECONDS_MAX + (0.0 if at_zero else AGGREGATE_LOOK_SECONDS)


@contextmanager
def trickle(streaming: Streaming) -> Iterator[None]:
    """Records that are no events, now and then."""
    ended = threading.Event()

    def send() -> None:
        while not ended.wait(0.2):
            streaming.topics.send(streaming.stream.input, [(b"1", b"{}", [])])

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@pytest.mark.parametrize("client", [CONFLUENT, KAFKA_PYTHON])
def test_tiles_that_are_lost_come_from_the_changelog(
    engine: Engine, kafka: KafkaServer, redis: RedisStore, client: str
) -> None:
    topics = KafkaTopics(kafka)
    streaming = started(Streaming(engine, topics, redis, CALM, settings={STREAM_CLIENT: client}, idle_s=0.5))
    entries = events(odd=0.0)
    streaming.send_entries(entries[:5000])
    streaming.wait_for_zero()
    forgotten = Kept(streaming)
    forget(topics, streaming.stream.input)
    shutil.rmtree(engine.project.aggregates / streaming.name)
    begun = time.monotonic()
    streaming.topics.send(streaming.stream.input, entries[5000:5001])
    until(lambda: answers(streaming) == 5001, "the next score", RECOVERY_SECONDS_MAX)
    print(f"the first score came {time.monotonic() - begun:.2f} s after all tiles were lost")
    streaming.send_entries(entries[5001:])
    until(lambda: answers(streaming) == EVENTS, "every score")
    forgotten.check()


def answers(streaming: Streaming) -> int:
    """Scores, and dead letters: some events have a form that the function does not take, and the views do."""
    return len(streaming.outputs()) + len(streaming.dead())


class Kept:
    """A topic as it was before its records were deleted, and as it went on."""

    def __init__(self, streaming: Streaming) -> None:
        self._streaming = streaming
        self._before = list(streaming.topics.scan(streaming.stream.input))

    def check(self) -> None:
        topics = self._streaming.topics
        streaming = self._streaming.twin(self._streaming.engine)
        streaming.topics = _Joined(topics, streaming.stream.input, self._before)
        check(streaming)


class _Joined:
    """Topics, one of which had more records in it."""

    def __init__(self, topics: Topics, topic: str, before: list[Any]) -> None:
        self._topics, self._topic, self._before = topics, topic, before

    def __getattr__(self, name: str) -> Any:
        return getattr(self._topics, name)

    def scan(self, topic: str) -> Iterator[Any]:
        if topic == self._topic:
            yield from self._before
        yield from self._topics.scan(topic)


# --- Nothing happens --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["embedded", "kafka"])
def test_an_idle_card_falls_to_zero_with_no_worker(
    engine: Engine, tmp_path: Path, request: pytest.FixtureRequest, kind: str
) -> None:
    """Its events were in the last 60 s, hop by hop they are not any more, and there is no record to wake anybody."""
    store, topics = SqliteStore(tmp_path / "online.db"), EmbeddedTopics(engine.project.embedded_log)
    if kind == "kafka":
        topics = KafkaTopics(request.getfixturevalue("kafka"))  # type: ignore[assignment]
    make = {"recent": partial(views.recent, hop_s=1, windows=(60, 60))}
    streaming = started(Streaming(engine, topics, store, make, idle_s=0.3))
    now = time.time()
    times = [now - 40, now - 40, now - 28]  # the first leave in 20 s, which sending and scoring may take
    streaming.send_entries([event(number, at) for number, at in enumerate(times)])
    streaming.wait_for_zero()
    for count, at in ((1, times[0]), (0, times[2])):
        gone = int(at) + 60  # the moment at which the tile leaves the window
        assert online(streaming) == (count + (2 if count else 1))
        until(lambda: not streaming.workers, "no worker", gone - time.time())
        until(lambda count=count: online(streaming) == count, f"a count of {count}", gone - time.time() + 5.0)  # type: ignore[misc]
        late = time.time() - gone
        print(f"the count was {count} {late:.2f} s after its events had left the window")
        assert late >= 0, "it fell too early"
        assert answered(streaming)["count_short"] == count
    (row,) = streaming.online("recent", [7]).values()
    assert row.values == {"count_short": 0, "sum_long": 0.0, "max_long": None, "mean_short": None}
    assert row.at == pytest.approx(int(times[2]) + 60, abs=1.0)
    until(lambda: not streaming.workers, "no worker")


def event(number: int, at: float, card: int = 7) -> Entry:
    said = f'{{"n": {number}, "card_id": {card}, "transaction_id": "t{number}", "event_time": {at:.3f}, '
    return b"%d" % card, f'{said}"amount": 2.5, "fee": 1.0}}'.encode(), []


def online(streaming: Streaming) -> Any:
    row = streaming.online("recent", [7]).get(7)
    return None if row is None else row.values["count_short"]


def answered(streaming: Streaming) -> dict[str, Any]:
    body = b'{"n": 1, "card_id": 7, "transaction_id": "", "event_time": "", "amount": 1.0, "fee": 1.0}'
    answer = streaming.engine.ask("POST", f"/functions/{streaming.name}", body)
    assert answer.status == 200, answer
    found: dict[str, Any] = answer.json["predictions"][0]
    return found


# --- Counts -----------------------------------------------------------------------------------------------------------


def test_what_was_late_or_a_copy_is_counted(engine: Engine, tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "online.db")
    streaming = started(Streaming(engine, EmbeddedTopics(engine.project.embedded_log), store, CALM))
    streaming.send_entries(events(odd=0.03))
    streaming.wait_for_zero()
    expected = Expected(streaming)
    check(streaming, expected)
    told = {one["view"].rpartition("/")[2]: one for one in streaming.facts["features"]}
    for name, batch in expected.batches.items():
        counts = batch.counts()
        said = told[name]
        assert (said["late"], said["duplicates"], said["invalid"]) == (
            counts["late"],
            counts["duplicate"],
            counts["invalid"],
        )
