"""A loop that aggregates a topic, to be killed: `python -m tests.aggregate_program '{...}'`.

Each output is the values before its record. Ends when the topic is read and every value is written.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from tests.aggregating import VIEW, Store, aggregates, events

from sunup.stream.broker import BrokerError, Output, Reader, Stream, Trouble
from sunup.stream.open import open_admin, open_broker


def main(given: dict[str, Any]) -> None:
    stream = Stream(*given["stream"])
    settings, log = given["settings"], Path(given["log"])
    broker = open_broker(settings, stream, log, Reader(given["name"]))
    broker.join(0, 1)
    made = aggregates(
        Path(given["folder"]),
        None,
        topic=stream.input,
        group=stream.group,
        changelog=given["changelog"],
        store=Store(),
        open_admin=lambda: open_admin(settings, log),
        views=(VIEW,),
    )
    print("ready", flush=True)
    quiet = time.monotonic()
    while time.monotonic() < quiet + given["quiet_s"]:
        try:
            records = broker.poll(0.1, given["records_max"])
            made.share(broker.reads())
            if records:
                quiet = time.monotonic()
                before = made.take(records, events(records))[0]
                outputs = [
                    Output(stream.output, b"%d:%d" % (record.partition, record.offset), json.dumps(values).encode(), [])
                    for record, values in zip(records, before, strict=True)
                ]
                broker.commit(outputs + made.outputs())
                made.committed()
                print(sorted(broker.reads()), flush=True)
            made.tick()
        except BrokerError as error:
            if error.trouble is not Trouble.FENCED:
                raise
            print("fenced", error, file=sys.stderr, flush=True)
            made.forget()
            broker.close()
            broker = open_broker(settings, stream, log, Reader(given["name"]))
            broker.join(0, 1)
    made.close()
    broker.close()
    os._exit(0)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
