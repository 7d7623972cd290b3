"""Replays the dead letters of function f: `python -m tests.replay_program URL LOG NAME... CODE`.

NAME...: those of Stream; CODE: "" for every code. Prints a line before it begins and how many were sent.
"""

import sys
from contextlib import closing
from pathlib import Path

from sunup.settings import STREAM_BROKER
from sunup.stream.broker import Reader, Stream
from sunup.stream.open import open_admin, open_broker
from sunup.stream.replay import Chosen, plan, replay, replay_stream

if __name__ == "__main__":
    url, log, *names, code = sys.argv[1:]
    stream, settings, chosen = Stream(*names), {STREAM_BROKER: url}, Chosen("f", code or None)
    with closing(open_admin(settings, Path(log))) as admin:
        planned = plan(admin, stream, chosen)
    with closing(open_broker(settings, replay_stream(stream), Path(log), Reader("f-replay"))) as broker:
        print("begins", flush=True)
        print(replay(broker, stream, chosen, planned, lambda _: None)["sent"])
