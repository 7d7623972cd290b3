"""What the door holds at most: bytes of requests that wait with it, all functions together."""


class Room:
    """Bytes in use of at most `most`. One for the whole door: whoever counts something in counts it out again."""

    __slots__ = ("most", "used")

    def __init__(self, most: int) -> None:
        self.most = most
        self.used = 0

    def __repr__(self) -> str:
        return f"Room({self.used} of {self.most} bytes)"

    @property
    def full(self) -> bool:
        """Whether somebody has to go."""
        return self.used > self.most
