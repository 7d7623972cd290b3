"""Who scores the stream: Sunup with either client and guarantee, the same by hand, and other stream processors."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

from tests.bench.stream.setting import Setting, Way

Started = AbstractContextManager[Callable[[], str]]  # its value says how the subject is; raises when it has ended
Subject = Callable[[Setting, Way], Started]


def _sunup(client: str, guarantee: str) -> Subject:
    return lambda setting, way: setting.sunup(way, client, guarantee)


def _floor(module: str, form: str) -> Subject:
    def start(setting: Setting, way: Way) -> Started:
        given = (str(setting.model), setting.redis.url, setting.kafka.servers, *way)
        return setting.program("", f"tests.bench.floor.{module}", *given, form)

    return start


def _peer(pins: str, form: str = "", *, by_hand: bool = False) -> Subject:
    def start(setting: Setting, way: Way) -> Started:
        features = setting.redis.url if by_hand else str(setting.repository)
        given = (str(setting.model), features, setting.kafka.servers, *way)
        module = f"tests.bench.peers.stream_{pins}"
        if pins == "bytewax":  # is told where the flow is
            return setting.program(pins, "bytewax.run", f"{module}:flow({', '.join(map(repr, given[:-1]))})")
        return setting.program(pins, module, *given, form)

    return start


SUBJECTS: Mapping[str, Subject] = {
    "sunup kafka-python": _sunup("kafka-python", "at-least-once"),
    "floor kafka-python": _floor("stream_kafka_python", "same"),
    "floor kafka-python bare": _floor("stream_kafka_python", "bare"),
    "sunup kafka-python exactly-once": _sunup("kafka-python", "exactly-once"),
    "sunup confluent-kafka": _sunup("confluent-kafka", "at-least-once"),
    "floor confluent-kafka": _floor("stream_confluent", "same"),
    "floor confluent-kafka bare": _floor("stream_confluent", "bare"),
    "sunup confluent-kafka exactly-once": _sunup("confluent-kafka", "exactly-once"),
    "bytewax": _peer("bytewax"),
    "bytewax by hand": _peer("bytewax", by_hand=True),
    "faust": _peer("faust"),
    "faust by hand": _peer("faust", by_hand=True),
    "quixstreams": _peer("quixstreams", "apply"),
    "quixstreams by hand": _peer("quixstreams", "apply", by_hand=True),
    "quixstreams sink": _peer("quixstreams", "sink"),
    "quixstreams sink by hand": _peer("quixstreams", "sink", by_hand=True),
}
PEERS = tuple(name for name in SUBJECTS if not name.startswith(("sunup", "floor")))
