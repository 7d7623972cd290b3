"""A pod whose function aggregates its topic: what it knows survives the loss of its folder, by Kafka's changelog."""

import json
import shutil
import signal
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.engine_fixture import Engine, until
from tests.kafka_fixture import KafkaServer
from tests.pod_fixture import Pod, Start, pods, settings_file
from tests.streaming import views
from tests.streaming.function import Streaming
from tests.streaming.stores import SqliteStore
from tests.topics import Entry, KafkaTopics

from sunup.settings import CONFLUENT, FEATURES_URL, KAFKA_PYTHON, STREAM_BROKER, STREAM_CLIENT

__all__ = ["pods"]

pytestmark = pytest.mark.timeout(300)

CARDS = 20
NOW = datetime.now(UTC).timestamp()


def event(number: int) -> Entry:
    """The next of one of the cards, some milliseconds later."""
    card = number % CARDS
    record = {
        "n": number,
        "card_id": card,
        "transaction_id": f"t-{number}",
        "event_time": datetime.fromtimestamp(NOW + number / 1000, UTC).isoformat(),
        "amount": 2.5,
        "fee": 1.0,
    }
    return b"%d" % card, json.dumps(record).encode(), []


@pytest.mark.parametrize("client", [KAFKA_PYTHON, CONFLUENT])
@pytest.mark.parametrize("ends", [signal.SIGTERM, signal.SIGKILL])
def test_tiles_outlive_the_folder(
    tmp_path: Path, kafka: KafkaServer, pods: Start, client: str, ends: signal.Signals
) -> None:
    store = SqliteStore(tmp_path / "online.db")
    streaming = Streaming(Engine(tmp_path / "p"), KafkaTopics(kafka), store, {"hour": views.hour})
    streaming.create()
    bundle = streaming.engine.project.bundles / streaming._bundle(views.plan(streaming.specs))
    settings = {STREAM_BROKER: kafka.servers, STREAM_CLIENT: client, FEATURES_URL: store.url}
    given = {"SUNUP_ROLE": "stream", "SUNUP_SETTINGS": settings_file(tmp_path, settings)}
    pod = pods(bundle, **given).wait_ready()
    half, whole = 200, 400
    streaming.send_entries([event(number) for number in range(half)])
    until(lambda: is_stored(streaming, half // CARDS), "the counts of the first half", 60.0)
    lose(pod, ends)
    streaming.send_entries([event(number) for number in range(half, whole)])
    pod.start()
    until(lambda: is_stored(streaming, whole // CARDS), "the counts of both halves", 60.0)
    assert pod.stop() == 0
    seen: dict[int, list[float]] = {card: [] for card in range(CARDS)}
    for output in sorted(streaming.outputs(), key=lambda record: (record.partition, record.offset)):
        said = json.loads(output.value or b"")
        seen[int(said["n"]) % CARDS].append(said["fee_count_hour"])
    assert seen == {card: [float(n) for n in range(whole // CARDS)] for card in range(CARDS)}


def is_stored(streaming: Streaming, count: int) -> bool:
    """Whether every card has so many events in the online store."""
    found = streaming.online("hour", range(CARDS))
    return [found[card].values["fee_count_hour"] for card in found] == [count] * CARDS


def lose(pod: Pod, number: signal.Signals) -> None:
    """End it with its emptyDir, as a pod that is deleted or evicted."""
    pod.tell(number)
    pod.end()
    assert list((pod.folder / "state" / "aggregates").rglob("*.db")), "there is something to lose"
    shutil.rmtree(pod.folder / "state")
