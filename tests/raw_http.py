"""A client that sends exactly the bytes it is given."""

import socket

from tests.engine_fixture import Engine


class Client:
    """A raw connection to the door."""

    def __init__(self, engine: Engine) -> None:
        self.sock = socket.create_connection(("127.0.0.1", engine.port), timeout=20)
        self.rest = b""

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def ask(self, data: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
        self.sock.sendall(data)
        return self.answer()

    def answer(self, *, bodiless: bool = False) -> tuple[int, dict[bytes, bytes], bytes]:
        """The next response: status, headers, body."""
        while b"\r\n\r\n" not in self.rest:
            self._more()
        head, _, self.rest = self.rest.partition(b"\r\n\r\n")
        line, *fields = head.split(b"\r\n")
        headers = dict(field.lower().split(b": ", 1) for field in fields)
        size = 0 if bodiless else int(headers.get(b"content-length", b"0"))
        while len(self.rest) < size:
            self._more()
        body, self.rest = self.rest[:size], self.rest[size:]
        return int(line.split()[1]), headers, body

    def is_over(self) -> bool:
        """Whether the server has nothing more to say and closes."""
        return not self.rest and self.sock.recv(1) == b""

    def _more(self) -> None:
        data = self.sock.recv(65536)
        if not data:
            raise ConnectionError(f"closed after {self.rest!r}")
        self.rest += data
