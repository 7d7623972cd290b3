"""What a stream feature view sees of one record."""

from typing import NamedTuple


class Event(NamedTuple):
    """One event of an entity. `key`: as Feast serialises it; `time`: its own, in seconds since the epoch; `id`: 64 bits
    of a hash of its event id, None where the view declares none; `values`: as `Aggregated.columns`, None: null."""

    offset: int
    key: bytes
    time: float
    id: int | None
    values: tuple[float | None, ...]
