"""Calls whose bodies were changed at random, in every protocol, and what their answers must be."""

import gzip
import json
import random
import socket
import struct
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import pytest
from tests.engine_fixture import Engine
from tests.mutation import mutated
from tests.small_bundle import logistic, make_bundle

from sunup.bundle.manifest import Limits

EVERY = 100  # after so many, a valid call must still be answered right
SCORE = 1 / (1 + np.exp(-6.0))
EXPECTED = {200, 400, 413, 415}
SECONDS_MAX = 5.0  # for one answer
TENSORS = [{"name": f"f{i}", "shape": [1], "datatype": "FP64", "data": [i + 1]} for i in range(3)]
RAW = struct.pack("<3d", 1, 2, 3)
BEHIND = json.dumps(
    {
        "inputs": [
            {"name": f"f{i}", "shape": [1], "datatype": "FP64", "parameters": {"binary_data_size": 8}} for i in range(3)
        ],
        "outputs": [{"name": "score"}, {"name": "decision", "parameters": {"binary_data": True}}],
    }
).encode()


class Kind(NamedTuple):
    """A way to call: its target, the headers that go with a body, and a body that is right."""

    target: str
    body: bytes
    headers: str = "content-type: application/json\r\n"


RECORD = {"f0": 1, "f1": 2, "f2": 3}
KINDS = {
    "native": Kind("/functions/score", json.dumps([RECORD]).encode()),
    "oip": Kind(
        "/v2/models/score/infer", json.dumps({"id": "1", "inputs": TENSORS, "outputs": [{"name": "score"}]}).encode()
    ),
    "oip-binary": Kind("/v2/models/score/infer", BEHIND + RAW, f"inference-header-content-length: {len(BEHIND)}\r\n"),
    "kserve": Kind("/v1/models/score:predict", json.dumps({"instances": [RECORD]}).encode()),
    "mlflow-split": Kind(
        "/functions/score/invocations",
        json.dumps({"dataframe_split": {"columns": [*RECORD], "index": [0], "data": [[1, 2, 3]]}}).encode(),
    ),
    "mlflow-inputs": Kind(
        "/functions/score/invocations", json.dumps({"inputs": {n: [v] for n, v in RECORD.items()}}).encode()
    ),
    "mlflow-csv": Kind("/functions/score/invocations", b"f0,f1,f2\n1,2.0,3\n", "content-type: text/csv\r\n"),
}


class Client:
    """One kept-alive connection to the door, opened again when it was closed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._sock: socket.socket | None = None

    def ask(self, target: str, headers: str, body: bytes) -> tuple[int, bytes]:
        """Status and body of one POST."""
        if self._sock is None:
            self._sock = socket.create_connection(("127.0.0.1", self._port), timeout=SECONDS_MAX)
        head = f"POST {target} HTTP/1.1\r\nhost: localhost\r\n{headers}content-length: {len(body)}\r\n\r\n"
        self._sock.sendall(head.encode() + body)
        data = b""
        while (end := data.find(b"\r\n\r\n")) < 0:
            data += self._more(self._sock)
        said = data[:end].lower()
        size = int(said.split(b"content-length: ")[1].split(b"\r\n")[0])
        while len(data) < end + 4 + size:
            data += self._more(self._sock)
        if b"connection: close" in said:
            self.close()
        return int(said.split()[1]), data[end + 4 :]

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    @staticmethod
    def _more(sock: socket.socket) -> bytes:
        got = sock.recv(65536)
        assert got, "the connection was closed without an answer"
        return got


def deploy(engine: Engine) -> None:
    """The function all of KINDS call."""
    rows = np.array([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]])
    digest = make_bundle(engine.project.bundles, logistic(3), rows, limits=Limits(body_bytes=50_000))
    engine.deploy("score", digest, settings={}, on_event=lambda _: None)


def score(answer: bytes) -> float:
    """The score in a right answer of any of the protocols."""
    said: Any = json.JSONDecoder().raw_decode(answer.decode("latin-1"))[0]
    found = said["predictions"][0]["score"] if "predictions" in said else said["outputs"][0]["data"][0]
    return float(found)


def check(client: Client, kind: Kind) -> None:
    """A right call is answered right."""
    status, answer = client.ask(kind.target, kind.headers, kind.body)
    assert status == 200
    assert score(answer) == pytest.approx(SCORE)


def send_changed(client: Client, name: str, *, count: int, seed: int) -> Counter[int]:
    """So many changed calls of one kind, and a right one after every EVERY; how often each status came.

    Raises AssertionError for a status that is not EXPECTED, an answer that is late, or a right call answered wrong.
    """
    kind = KINDS[name]
    seen: Counter[int] = Counter()
    chance = random.Random(seed)
    before_tensors = mutated(BEHIND, seed=seed, count=count)
    for index, body in enumerate(mutated(kind.body, seed=seed, count=count)):
        headers, sent = kind.headers, body
        if name == "oip-binary" and index % 4 == 0:  # the header lies, too
            headers = f"inference-header-content-length: {chance.choice([0, 1, len(body), len(body) + 1, -1, 'x'])}\r\n"
        elif name == "oip-binary" and index % 2:  # only the JSON is changed, and its length is right
            changed = next(before_tensors)
            headers, sent = f"inference-header-content-length: {len(changed)}\r\n", changed + RAW
        if index % 10 == 9:
            headers, sent = headers + "content-encoding: gzip\r\n", gzip.compress(sent, 1)
        status, answer = client.ask(kind.target, headers, sent)
        assert status in EXPECTED, (status, answer, sent)
        seen[status] += 1
        if index % EVERY == EVERY - 1:
            check(client, kind)
    return seen
