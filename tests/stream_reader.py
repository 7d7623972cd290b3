"""Copies a stream from input to output until it is killed: `python -m tests.stream_reader URL LOG BATCH NAME...`.

NAME...: those of Stream. Prints a line when it has joined, for every commit, and the trouble that ends it.
"""

import os
import sys
from pathlib import Path

from sunup.settings import KAFKA_CLIENT, KAFKA_PYTHON, STREAM_BROKER, STREAM_CLIENT
from sunup.stream.broker import BrokerError, Output, Reader, Stream
from sunup.stream.open import open_broker

if __name__ == "__main__":
    url, log, batch, *names = sys.argv[1:]
    stream = Stream(*names)
    settings = {STREAM_BROKER: url, STREAM_CLIENT: os.environ.get(KAFKA_CLIENT, KAFKA_PYTHON)}
    broker = open_broker(settings, stream, Path(log), Reader("reader"))
    broker.join(0, 1)
    print("joined", flush=True)
    try:
        while True:
            records = broker.poll(0.2, int(batch))
            if records:
                broker.commit([Output(stream.output, each.key, each.value, each.headers) for each in records])
                print(len(records), flush=True)
    except BrokerError as error:
        print(error.trouble.value, flush=True)
