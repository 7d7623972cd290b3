"""What a stream program written by hand does with a batch: one pipelined Redis read, one model run, JSON both ways."""

import socket
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import hiredis
import numpy as np
from msgspec.structs import astuple
from tests.bench.floor.feast_hashes import decode, encode, features, reads
from tests.bench.floor.session import open_session


class Scorer:
    def __init__(self, model: str, redis_url: str) -> None:
        address = urlsplit(redis_url)
        self._session = open_session(model)
        self._socket = socket.create_connection((address.hostname or "localhost", address.port or 6379))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = hiredis.Reader()

    def score(self, values: Sequence[bytes]) -> list[bytes]:
        """The prediction of each record, as JSON. Raises for the whole batch when one of them is bad."""
        records: list[Any] = [decode(value) for value in values]
        replies = self._read(b"".join([reads(each.card_id, each.merchant_id) for each in records]), 2 * len(records))
        now = time.time()
        rows = [
            (*astuple(record)[2:], *features(first, now), *features(second, now))
            for record, first, second in zip(records, replies[::2], replies[1::2], strict=True)
        ]
        (found,) = self._session.run(["probability"], {"input": np.array(rows, dtype=np.float32)})
        return [encode({"score": p, "decision": "block" if p > 0.9 else "allow"}) for p in found[:, 1].tolist()]

    def _read(self, commands: bytes, count: int) -> list[Any]:
        self._socket.sendall(commands)
        replies: list[Any] = []
        reader, gets = self._reader, self._reader.gets
        while len(replies) < count:
            reader.feed(self._socket.recv(1 << 18))
            while (reply := gets()) is not False:
                replies.append(reply)
        return replies
