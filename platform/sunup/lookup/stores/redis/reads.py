"""The commands that read a plan's keys from Redis, packed once, and what their replies mean.

Layout (feast/infra/online_stores/redis.py): one hash per entity key for all of its views, under `entity key + project`;
field `murmur3_32("view:feature")` (4 bytes, little endian) holds the Value, field `_ts:view` the Timestamp. One HMGET
per entity therefore serves all of its views.
"""

import logging
import struct
import time
from typing import Any

import mmh3

from sunup.limits import STORE_LOG_SECONDS
from sunup.lookup.plan import Entity, ReadPlan
from sunup.lookup.store import Found, StoreUnavailable, nothing, slots

_log = logging.getLogger("sunup.lookup")


class Reads:
    """One plan's, by entity. `heads` and `tails` stand around the length and bytes of an entity key; `suffix`, `extra`
    bytes long, is what a key of the store has behind it, and what `tails` begin with."""

    def __init__(self, plan: ReadPlan) -> None:
        self.heads = [b"*%d\r\n$5\r\nHMGET\r\n$" % (slots(entity).width + 2) for entity in plan.entities]
        self.tails = [_fields_of(entity, plan.project) for entity in plan.entities]
        self.times = [slots(entity).times for entity in plan.entities]
        self.suffix = plan.project.encode()
        self.extra = len(self.suffix)
        self._nothing = nothing(plan)
        self._log_at = 0.0

    def refused(self, number: int, reply: Any) -> Found:
        """What stands for a reply that holds no fields, of entity `number`. Raises StoreUnavailable for a refusal.

        Under a key that holds something else than a hash there are no features: a call that reads it gets the others.
        """
        if not str(reply).startswith("WRONGTYPE"):
            raise StoreUnavailable(f"the store refused a read: {reply}")
        now = time.monotonic()
        if now >= self._log_at:
            self._log_at = now + STORE_LOG_SECONDS
            _log.warning("a key of the feature store holds no features and counts as absent: %s", reply)
        return list(self._nothing[number])


def _fields_of(entity: Entity, project: str) -> bytes:
    """What follows the entity key in an HMGET: the rest of the key, then every field, in slot order."""
    fields = []
    for view in entity.views:
        fields += [struct.pack("<I", mmh3.hash(f"{view.stored}:{f.name}", signed=False)) for f in view.features]
        fields.append(f"_ts:{view.stored}".encode())
    return project.encode() + b"\r\n" + b"".join(b"$%d\r\n%b\r\n" % (len(field), field) for field in fields)
