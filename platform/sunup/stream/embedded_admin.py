"""What people do to a stream of the embedded log from outside."""

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from sunup.clock import Clock, SystemClock
from sunup.stream.broker import BrokerError, Record, Trouble
from sunup.stream.embedded import SHIFT, Log, is_kept

_END: Final = f"id + 1 << {SHIFT}"
# The oldest record of each partition, or the place of the next one. MIN over a range of a primary key is one look-up.
_SPAN: Final = f"""SELECT number, COALESCE(
    (SELECT MIN(place) FROM record WHERE place >= id << {SHIFT} AND place < {_END}) - (id << {SHIFT}), next), next
    FROM part WHERE topic = ? ORDER BY number"""
_AT: Final = f"""SELECT number, COALESCE((SELECT place FROM record WHERE place >= id << {SHIFT} AND place < {_END}
    AND written >= ? ORDER BY place LIMIT 1) - (id << {SHIFT}), next) FROM part WHERE topic = ? ORDER BY number"""
_NAME: Final = "INSERT INTO log SELECT ? WHERE NOT EXISTS (SELECT 1 FROM log)"  # another process may be faster
_POSITIONS: Final = "SELECT number, position FROM reader WHERE topic = ? AND team = ? ORDER BY number"
_OWNERS: Final = "SELECT owner, until FROM reader WHERE topic = ? AND team = ? AND owner IS NOT NULL"
_MOVE: Final = """INSERT INTO reader VALUES (?, ?, ?, ?, NULL, 0)
    ON CONFLICT (topic, team, number) DO UPDATE SET position = excluded.position, owner = NULL"""


class EmbeddedAdmin:
    """See stream.admin.Admin. A group's positions are there from the first look at its lag on: what it has not read is
    kept from then on. `at` reads every record before `wall`, for the log has no index by time."""

    def __init__(self, path: Path, clock: Clock | None = None) -> None:
        self._log = Log(path)
        self._clock = clock or SystemClock()  # its `now` must be the machine's: leases are between processes

    def span(self, topic: str) -> Mapping[int, tuple[int, int]]:
        found = self._log.file.select(_SPAN, topic)
        if not found:
            raise self._missing(topic)
        return {number: (first, end) for number, first, end in found}

    def origin(self, topic: str) -> str:  # noqa: ARG002 -- a log lets go of none of its topics
        """An id that is made with the first look at it, and goes with the file."""
        file = self._log.file
        if not (found := file.select("SELECT id FROM log")):
            with file.change() as connection:
                connection.execute(_NAME, (secrets.token_hex(16),))
            found = file.select("SELECT id FROM log")
        return f"log:{found[0][0]}"

    def at(self, topic: str, wall: float) -> Mapping[int, int]:
        found = dict[int, int](self._log.file.select(_AT, wall, topic))
        if not found:
            raise self._missing(topic)
        return found

    def read(self, topic: str, partition: int, offset: int, records_max: int) -> Sequence[Record]:
        return self._log.read(topic, partition, offset, records_max)

    def positions(self, group: str, topic: str) -> Mapping[int, int]:
        return dict(self._log.file.select(_POSITIONS, topic, group))

    def move(self, group: str, topic: str, positions: Mapping[int, int]) -> None:
        with self._log.file.change() as connection:
            now = self._clock.now()
            for owner, until in connection.execute(_OWNERS, (topic, group)):
                if is_kept(owner, until - now):
                    raise BrokerError(Trouble.FENCED, f"{group} reads {topic} now: its position is its own")
            rows = [(topic, group, number, position) for number, position in positions.items()]
            connection.executemany(_MOVE, rows)

    def ensure_compacted(self, topic: str, partitions: int) -> None:  # noqa: ARG002
        raise BrokerError(Trouble.FAILED, f"the log {self._log.file.path} compacts no topics")

    def close(self) -> None:
        self._log.close()

    def _missing(self, topic: str) -> BrokerError:
        return BrokerError(Trouble.TOPIC_MISSING, f"the log {self._log.file.path} has no topic {topic} yet")
