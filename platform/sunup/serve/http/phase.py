"""What a connection waits for."""

from enum import Enum


class Phase(Enum):
    """What a connection waits for."""

    WORK = "work"  # nothing: it is being worked on
    IDLE = "idle"  # a request
    HEAD = "head"  # the rest of a head
    BODY = "body"  # the rest of a body
    ANSWER = "answer"  # the handler, or the client to take what was written
    LINGER = "linger"  # the client to notice that no more comes
    OVER = "over"  # nothing any more
