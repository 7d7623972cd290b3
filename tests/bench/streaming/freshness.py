"""From an event's being produced to a prediction that sees it, while others come at a fixed rate.

As a program, the others: `python -m tests.bench.streaming.freshness SERVERS TOPIC RATE SECONDS CARDS`.
"""

import http.client
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing

from confluent_kafka import Producer
from tests.bench import harness
from tests.streaming.function import Streaming

FIRST = 10_000_000  # cards of those that are looked for, one each, that nothing else is known of
PAUSE_SECONDS = 0.02  # between two, at random up to twice this: in step with nothing
PATIENCE_SECONDS = 10.0
SETTLE_SECONDS = 2.0  # of the load before the first one


def event(number: int, card: int) -> bytes:
    said = {"n": number, "card_id": card, "transaction_id": f"f-{card}-{number}", "event_time": _now()}
    return json.dumps({**said, "amount": 2.5, "fee": 0.5}).encode()


def _now() -> str:
    now = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03}Z"


def load(servers: str, topic: str, rate: float, seconds: float, cards: int) -> None:
    """Events at fixed times."""
    producer = Producer({"bootstrap.servers": servers, "linger.ms": 0})
    draw, begun = random.Random(5), time.perf_counter()
    for number in range(int(rate * seconds)):
        while time.perf_counter() < begun + number / rate:
            producer.poll(0.0005)
        card = draw.randrange(cards)
        producer.produce(topic, event(number, card), b"%d" % card)
        producer.poll(0)
    producer.flush(10)


def measured(streaming: Streaming, feature: str, rate: float, seconds: float, first: int = FIRST) -> list[float]:
    """Milliseconds of each event that was looked for, beside `rate` a second of others."""
    servers, topic = streaming.topics.broker, streaming.stream.input
    producer = Producer({"bootstrap.servers": servers, "linger.ms": 0})
    command = [sys.executable, "-m", __spec__.name, servers, topic, str(rate), str(seconds + SETTLE_SECONDS), "5000"]
    draw, took = random.Random(6), list[float]()
    with closing(streaming.engine.open()) as connection:
        _ask(connection, f"/functions/{streaming.name}", event(0, 0))  # by then a worker is there for calls, too
    with subprocess.Popen(command, cwd=harness.ROOT) as others, closing(streaming.engine.open()) as connection:
        time.sleep(SETTLE_SECONDS)  # the rate is what is measured at: it has to be there
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            card = first + len(took)
            begun = time.perf_counter()
            producer.produce(topic, event(0, card), b"%d" % card)
            producer.poll(0)
            _until_seen(connection, f"/functions/{streaming.name}", card, lambda row: bool(row[feature]))
            took.append(1000 * (time.perf_counter() - begun))
            time.sleep(draw.uniform(0, 2 * PAUSE_SECONDS))
        if others.wait(60):
            raise RuntimeError("the load ended badly")
    producer.flush(10)
    return took


def _until_seen(
    connection: http.client.HTTPConnection, target: str, card: int, seen: Callable[[dict[str, float]], bool]
) -> None:
    body, begun = event(0, card), time.perf_counter()
    while True:
        if seen(_ask(connection, target, body)):
            return
        if time.perf_counter() > begun + PATIENCE_SECONDS:
            raise TimeoutError(f"the event of card {card} was not seen after {PATIENCE_SECONDS:g} s")


def _ask(connection: http.client.HTTPConnection, target: str, body: bytes) -> dict[str, float]:
    """The prediction."""
    connection.request("POST", target, body, {"content-type": "application/json"})
    response = connection.getresponse()
    said = json.loads(response.read())
    if response.status != 200:
        raise RuntimeError(f"a call was answered {response.status}: {said}")
    row: dict[str, float] = said["predictions"][0]
    return row


if __name__ == "__main__":
    servers, topic, rate, seconds, cards = sys.argv[1:]
    load(servers, topic, float(rate), float(seconds), int(cards))
