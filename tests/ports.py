"""Free ports of this machine's loopback address."""

import os
import socket
from itertools import count
from typing import Final

# Below what systems give to whoever connects (from 32768 on), where a port that is free now may be somebody's later.
# Each of the sessions that run side by side has its own. Kafka's controller listens one below a port that was given,
# so every second is; Redis opens its cluster bus 10000 above.
_FIRST: Final = 10_000
_EACH: Final = 4_000
_session: Final = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_next: Final = count(os.getpid() * 97)  # not where the last run began: its sockets may linger


def free_port() -> int:
    """A port nobody listens on, even, another one with every call until all have been given."""
    for number in _next:
        port = _FIRST + _session * _EACH + 2 * number % _EACH
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:
            continue
    raise AssertionError("count() ends")
