"""Since when a request may have waited unread: where one loop answers many connections, their sockets are the queue.

A request is seen when the loop polls. If the loop slept before that, the request has just come. If it worked, the
request may have come at any moment since the poll before, and nobody saw it; so it counts as that old. A saturated loop
thus refuses what it may be unable to answer in time, at the cost of reading its head, and answers the rest in time.
"""


class Turns:
    """The turns of a loop that a handler has seen. `worked`: monotonic seconds at which it last ended its work."""

    __slots__ = ("_earliest", "_polled", "worked")

    def __init__(self) -> None:
        self._polled = 0.0
        self._earliest = 0.0
        self.worked = 0.0

    def __repr__(self) -> str:
        return f"Turns(polled={self._polled:.3f}, earliest={self._earliest:.3f})"

    def earliest(self, read: float) -> float:
        """The earliest moment a request read at `read` can have come. `read` is the time of the poll that found it
        (uvloop's, in whole milliseconds), or when the door read it; it is all that is known of an old one."""
        if read > self._polled:
            self._earliest = self._polled if read <= self.worked else read
            self._polled = read
        elif read < self._polled:
            return read
        return self._earliest
