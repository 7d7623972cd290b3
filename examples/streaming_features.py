"""A card is used five times within a minute, and the next score knows it.

python -m functions.fraud.train             # once; `make demo` has done it
platform deploy fraud-v4                    # it takes card_velocity of features/views.py, which is made of its topic
python -m examples.streaming_features       # --url http://127.0.0.1:8000/functions/fraud, --bootstrap 127.0.0.1:9092

Five payments go into the topic, on the Kafka that KAFKA_BOOTSTRAP names or the embedded log. Their scores come out,
each made with the payments before it. What the card was used for is read with Feast's own SDK, and a call is scored
with it.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

import pandas as pd
from feast import FeatureStore

from examples.demo_http import post
from examples.demo_stream import Entry, Names, OnLog, Topics, collect, on_kafka
from functions.fraud.build_features import Data
from functions.fraud.simulate import REQUEST
from functions.fraud.velocity import VELOCITY, VIEW
from sunup.settings import Project, find_project

TIMES: Final = 5
FAR_KM: Final = 100.0
SECONDS_MAX: Final = 60.0  # for the scores to come out; the first one may have to wake the function
SEEN_SECONDS_MAX: Final = 30.0  # for what was scored to be read online; it takes milliseconds
NAMES: Final = Names("transactions", "fraud-scores", "fraud-dead")


class Shown(NamedTuple):
    """What became of the payments, which are all like `payment`. `scores`: from the topic, in order; `before`, `after`:
    what Feast's SDK read of the card, and the score a call got for such a payment; `seconds`: from the last score to
    its being read."""

    payment: dict[str, Any]
    scores: list[float]
    before: tuple[dict[str, Any], float]
    after: tuple[dict[str, Any], float]
    seconds: float


def payment(project: Project, card: int | None) -> dict[str, Any]:
    """What somebody honest bought in the last week, far from home; by `card` the farthest purchase."""
    rows = pd.read_parquet(Data(project).holdout)
    honest = rows[rows["is_fraud"] == 0]
    if card is None:
        return record(honest[honest["km_from_home"] > FAR_KM].sample(1))
    found = honest[honest["card_id"] == card].nlargest(1, "km_from_home")
    if found.empty:
        sys.exit(f"Card {card} was not used in the last week; leave out --card.")
    return record(found)


def record(row: pd.DataFrame) -> dict[str, Any]:
    """The only row as a request."""
    return {name: row[name].item() for name in REQUEST}


def events(like: dict[str, Any], times: int) -> list[dict[str, Any]]:
    """So many such payments within the last minute, as the topic has them: which purchase it is, and when it was."""
    now = datetime.now(UTC)
    stamps = [now - timedelta(seconds=10 * number) for number in reversed(range(times))]
    return [
        {**like, "transaction_id": f"{like['card_id']}-{stamp.timestamp():.6f}", "event_time": stamp.isoformat()}
        for stamp in stamps
    ]


def online(store: FeatureStore, card: int) -> dict[str, Any]:
    """What Feast's SDK reads of the card now; None for a card that was never used on the topic."""
    names = [f"{VIEW}:{name}" for name in VELOCITY]
    found = store.get_online_features(features=names, entity_rows=[{"card_id": card}]).to_dict()
    return {name: found[name][0] for name in VELOCITY}


def show(project: Project, wire: Topics, url: str, card: int | None = None) -> Shown:
    """Use a card TIMES times, and ask before and after it what a payment by it scores."""
    store, like = FeatureStore(repo_path=str(project.features)), payment(project, card)
    card = int(like["card_id"])
    before = online(store, card), score(url, like)
    sent = events(like, TIMES)
    ids = wire.send([Entry(str(card).encode(), json.dumps(one).encode()) for one in sent])
    found = {scored.id: scored.answer for scored in collect(wire, ids, SECONDS_MAX)}
    if missing := len(set(ids) - set(found)):
        sys.exit(f"{missing} scores did not come out in {SECONDS_MAX:.0f} s: platform stream status fraud")
    began, wanted = time.monotonic(), (before[0][VELOCITY[0]] or 0) + TIMES
    while (known := online(store, card))[VELOCITY[0]] != wanted:
        if time.monotonic() - began > SEEN_SECONDS_MAX:
            sys.exit(f"Feast reads {known} of card {card}, not {wanted} payments: platform stream status fraud")
        time.sleep(0.005)  # the store has no way to tell
    seconds = time.monotonic() - began
    return Shown(like, [found[id]["score"] for id in ids], before, (known, score(url, like)), seconds)


def score(url: str, record: dict[str, Any]) -> float:
    """What a call of the function answers."""
    return float(post(url, json.dumps(record).encode())[0]["predictions"][0]["score"])


def lines(shown: Shown) -> Iterator[str]:
    """What a person is told of it."""
    card, amount, km = (shown.payment[name] for name in ("card_id", "amount", "km_from_home"))
    yield f"card {card}: a payment of {amount:.2f}, {km:.0f} km from home, {TIMES} times within a minute"
    for title, (known, scored) in (("before", shown.before), ("after", shown.after)):
        said = ", ".join(f"{name} {value if value is not None else '-'}" for name, value in known.items())
        yield f"  {title + ':':8} {said}; the next one scores {scored:.4f}"
    yield f"  their own scores from the topic: {', '.join(f'{each:.4f}' for each in shown.scores)}"
    yield f"  read by Feast's SDK {1000 * shown.seconds:.0f} ms after the last score came out"


@contextmanager
def opened(project: Project, bootstrap: str | None) -> Iterator[Topics]:
    """The function's topics, on Kafka or on the embedded log."""
    wire: Topics
    if bootstrap:
        wire = on_kafka(bootstrap, NAMES, "as asked")
    else:
        wire = OnLog(project.embedded_log, NAMES, "no broker was named")
    with closing(wire):
        yield wire


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:8000/functions/fraud", help="as `platform deploy` says")
    parser.add_argument("--bootstrap", default=os.environ.get("KAFKA_BOOTSTRAP"), help="host:port of Kafka")
    parser.add_argument("--card", type=int, help="which card; left out: any")
    asked = parser.parse_args(arguments)
    project = find_project(Path.cwd())
    with opened(project, asked.bootstrap) as wire:
        print(wire.note)
        print(*lines(show(project, wire, asked.url, asked.card)), sep="\n")


if __name__ == "__main__":
    main()
