"""The stream of the benches in Faust: an agent that takes batches.

Arguments: MODEL FEATURES SERVERS INPUT OUTPUT GROUP. FEATURES: see stream_features.py.
"""

import sys
from typing import Any

import faust
from tests.bench.peers.stream_features import scoring

BATCH = 1000
WITHIN_SECONDS = 0.1


def main() -> None:
    model, features, servers, source, target, group = sys.argv[1:]
    score = scoring(model, features)
    app = faust.App(
        group,
        broker=f"kafka://{servers}",
        key_serializer="raw",
        value_serializer="raw",
        topic_allow_declare=False,
        topic_disable_leader=True,
        consumer_auto_offset_reset="earliest",
        broker_max_poll_records=BATCH,
        stream_buffer_maxsize=4 * BATCH,
        stream_wait_empty=False,
        web_enabled=False,
    )
    out = app.topic(target, key_type=bytes, value_type=bytes)

    @app.agent(app.topic(source, key_type=bytes, value_type=bytes))  # type: ignore[untyped-decorator]  # not installed here
    async def scored(stream: Any) -> None:
        async for events in stream.take_events(BATCH, within=WITHIN_SECONDS):
            values = score([event.value for event in events])
            for event, value in zip(events, values, strict=True):
                await out.send(key=event.key, value=value)

    faust.Worker(app, loglevel="WARN").execute_from_commandline()


if __name__ == "__main__":
    main()
