"""A schema registry that answers what a test tells it to."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.schema_registry_fixture import avro, framed

from sunup.secret import Secret
from sunup.wire.confluent.registry import Address, Registry

SCHEMA = {
    "type": "record",
    "name": "Payment",
    "fields": [{"name": "card_id", "type": "long"}, {"name": "amount", "type": "double"}],
}
KNOWN = (200, {"schema": json.dumps(SCHEMA)})
UNKNOWN = (404, {"error_code": 40403, "message": "Schema not found"})
Answer = tuple[int, Any]


class Scripted:
    """A registry that answers what it is told to; the last answer again and again. `heard`: paths and who asked."""

    def __init__(self, *answers: Answer | Callable[[str], Answer]) -> None:
        self.answers = list(answers)
        self.heard: list[tuple[str, str]] = []
        scripted = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                scripted.heard.append((self.path, self.headers.get("authorization", "")))
                answer = scripted.answers.pop(0) if len(scripted.answers) > 1 else scripted.answers[0]
                status, said = answer(self.path) if callable(answer) else answer
                self.send_response(status)
                self.end_headers()
                self.wfile.write(said if isinstance(said, bytes) else json.dumps(said).encode())

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                """Who asked has gone."""

        self.server = Server(("127.0.0.1", 0), Handler)

    def url(self, who: str = "", scheme: str = "http") -> str:
        return f"{scheme}://{who}127.0.0.1:{self.server.server_port}/base/"


@contextmanager
def serving(scripted: Scripted) -> Iterator[Scripted]:
    thread = threading.Thread(target=scripted.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield scripted
    finally:
        scripted.server.shutdown()
        scripted.server.server_close()
        thread.join()


def registry(url: str, ca: str = "") -> Registry:
    return Registry(Address(Secret(url), ca))


def payment(card: int = 1, amount: float = 1.0) -> bytes:
    return framed(7, avro(SCHEMA, {"card_id": card, "amount": amount}))
