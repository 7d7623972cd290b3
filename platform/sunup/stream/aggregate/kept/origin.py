"""Which topic tiles were made of, kept beside them: offsets of one mean nothing in another.

An origin is what Admin.origin gives, "" where it is not known, as in files of before it was kept.
"""

from typing import Final

from sunup.stream.aggregate.kept.state import State

_TABLE: Final = "CREATE TABLE IF NOT EXISTS origin (id TEXT)"


def read_origin(state: State) -> str:
    """Of the tiles in an open file."""
    with state.change() as connection:
        connection.execute(_TABLE)
        row = connection.execute("SELECT id FROM origin").fetchone()
    return str(row[0]) if row else ""


def keep_origin(state: State, origin: str) -> None:
    """From now on it is this one. Behind `State.begin`: what ends the process in between lets it begin once more."""
    with state.change() as connection:
        connection.execute("DELETE FROM origin")
        connection.execute("INSERT INTO origin VALUES (?)", (origin,))


def is_other(origin: str, topic: str) -> bool:
    """Whether tiles of `origin` are certainly not of the topic with the origin `topic`. A broker that learns to give
    its topics ids, by an upgrade, does not make them others."""
    kinds = {origin.partition(":")[0], topic.partition(":")[0]}
    return origin != topic and "" not in kinds and kinds != {"cluster", "topic"}
