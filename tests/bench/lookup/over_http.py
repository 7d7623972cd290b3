"""Subject: one kept connection to a server of features, or to a function that reads them. Arguments: KIND URL.

KIND feast: `feast serve`. KIND function: a Sunup function whose score is the sigmoid of the sum of its features. The
answer is read and decoded in the time that is measured, as a caller has to.
"""

import http.client
import json
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import msgspec
from tests.bench.lookup.data import columns, entities
from tests.bench.lookup.subject import Ask, loop, obey

JSON = {"content-type": "application/json"}
decode = msgspec.json.Decoder().decode


def caller(url: str) -> Callable[[bytes], Any]:
    """A function from a body to the decoded answer. Raises RuntimeError for anything but a 200."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)

    def call(body: bytes) -> Any:
        connection.request("POST", parts.path, body, JSON)
        answer = connection.getresponse()
        said = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{url} answered {answer.status}: {said[:300]!r}")
        return decode(said)

    return call


def _feast(service: str) -> tuple[Callable[[Any], bytes], Callable[[Any, Any], list[list[Any]]]]:
    names = list(columns(service))

    def rows(_: Any, said: Any) -> list[list[Any]]:
        found = dict(zip(said["metadata"]["feature_names"], said["results"], strict=True))
        return [list(row) for row in zip(*(found[name]["values"] for name in names), strict=True)]

    return lambda question: json.dumps(
        {"feature_service": service, "entities": entities(service, question)}
    ).encode(), rows


def _score(_: Any, said: Any) -> list[list[Any]]:
    (answer,) = said["predictions"]
    if "defaulted" in answer or "stale" in answer:
        raise RuntimeError(f"not all features were read: {answer}")
    return [[answer["score"]]]


def main() -> None:
    kind, call = sys.argv[1], caller(sys.argv[2])
    if kind == "feast":
        asks = {service: (call, *_feast(service)) for service in ("one", "many")}
    else:
        asks = {"one": (call, lambda question: json.dumps({"user_id": question}).encode(), _score)}
    with loop() as runner:
        obey(runner, {service: Ask(prepare, ask, rows) for service, (ask, prepare, rows) in asks.items()})


if __name__ == "__main__":
    main()
