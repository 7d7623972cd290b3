"""The stream of the benches in Quix Streams. Arguments: MODEL FEATURES SERVERS INPUT OUTPUT GROUP FORM.

FEATURES: see stream_features.py. FORM "apply": `StreamingDataFrame.apply`, a record at a time, as its documentation
has it. "sink": the one place where it hands over several records at once is a `BatchingSink`, which gets those of a
checkpoint; it scores and writes them.
"""

import sys
from typing import Any

from quixstreams import Application
from quixstreams.sinks import BatchingSink, SinkBatch
from tests.bench.peers.stream_features import Score, scoring

BATCH = 1000


class Scored(BatchingSink):  # type: ignore[misc]  # not installed here
    def __init__(self, score: Score, producer: Any, target: str) -> None:
        super().__init__()
        self._score, self._producer, self._target = score, producer, target

    def write(self, batch: SinkBatch) -> None:
        items = [*batch]
        for item, value in zip(items, self._score([item.value for item in items]), strict=True):
            self._producer.produce(self._target, key=item.key, value=value)
        self._producer.flush()


def main() -> None:
    model, features, servers, source, target, group, form = sys.argv[1:]
    score = scoring(model, features)
    app = Application(
        servers,
        consumer_group=group,
        auto_offset_reset="earliest",
        auto_create_topics=False,
        use_changelog_topics=False,
        commit_every=BATCH if form == "sink" else 0,
        loglevel="WARNING",
    )
    frame = app.dataframe(app.topic(source, value_deserializer="bytes", key_deserializer="bytes"))
    if form == "sink":
        with app.get_producer() as producer:
            frame.sink(Scored(score, producer, target))
            app.run()
    else:
        out = app.topic(target, value_serializer="bytes", key_serializer="bytes")
        frame.apply(lambda value: score([value])[0]).to_topic(out)
        app.run()


if __name__ == "__main__":
    main()
