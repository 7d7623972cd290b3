"""Feast's Redis online store, written: hashes as `stores/redis/reads.py` says, and in each hash per view the version
of what is there, which a script on the server compares, so that what is older passes over what is newer.

The script takes many keys where one server has all of them: plain HSETs cost the server as much. In a cluster it takes
one, for the keys of a script must be in one slot.
"""

import hashlib
import logging
import os
import struct
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import mmh3

from sunup.limits import STORE_SCRIPT_KEYS, STORE_WRITE_ROWS, STORE_WRITE_SECONDS_MAX
from sunup.lookup.plan import ReadPlan
from sunup.lookup.store import StoreUnavailable
from sunup.lookup.stores.redis.address import Cluster, Place
from sunup.lookup.stores.redis.connect import command
from sunup.lookup.writing.encode import timestamp
from sunup.lookup.writing.redis.cluster import Masters
from sunup.lookup.writing.redis.master import Master
from sunup.lookup.writing.redis.wire import Asked, Servers
from sunup.lookup.writing.target import NOBODY, OWN, Target, targets
from sunup.lookup.writing.writer import FeatureWriter, Write

# ARGV: number of fields, the fields (the version's first), then per key their values. Lua compares strings by the
# server's locale, so versions are compared as four numbers each. The reply names the keys that hold no hash.
SCRIPT: Final = b"""
local width, call, parse = tonumber(ARGV[1]), redis.call, struct.unpack
local pairs, wrong, at = {}, {}, width + 1
for i = 1, width do pairs[2 * i - 1] = ARGV[i + 1] end
for k = 1, #KEYS do
  for i = 1, width do pairs[2 * i] = ARGV[at + i] end
  at = at + width
  local stored, newer = redis.pcall('HGET', KEYS[k], ARGV[2]), false
  if type(stored) == 'table' then
    wrong[#wrong + 1] = KEYS[k]
  else
    if stored and #stored == 16 and stored ~= pairs[2] then
      local a, b, c, d = parse('>I4I4I4I4', stored)
      local e, f, g, h = parse('>I4I4I4I4', pairs[2])
      newer = a > e or (a == e and (b > f or (b == f and (c > g or (c == g and d > h)))))
    end
    if not newer then call('HSET', KEYS[k], unpack(pairs)) end
  end
end
return wrong
"""
_SHA: Final = hashlib.sha1(SCRIPT, usedforsecurity=False).hexdigest().encode()
_LOAD: Final = command(b"SCRIPT", b"LOAD", SCRIPT)
_INFO: Final = command(b"INFO", b"server")
_MARKS_OF_CLUSTER: Final = 32  # of each view, over its nodes: one that lost its keys has lost some of them

_log = logging.getLogger("sunup.lookup")


class _View(NamedTuple):
    """What of a view's commands is the same for all rows."""

    target: Target
    arguments: bytes  # the script's, ahead of those by key
    width: int  # fields, and values of each key
    marks: tuple[bytes, ...]  # the keys that mark it


class RedisWriter(FeatureWriter):
    """Writes to one server, to the master that Sentinels name, or to a cluster."""

    def __init__(self, place: Place, plan: ReadPlan) -> None:
        clustered = isinstance(place, Cluster)
        self._servers: Servers = Masters(place, [_LOAD]) if isinstance(place, Cluster) else Master(place, [_LOAD])
        self._keys_at_once = 1 if clustered else STORE_SCRIPT_KEYS
        self._project = plan.project.encode()
        marks = _MARKS_OF_CLUSTER if clustered else 1
        self._views = {name: _view(target, self._project, marks) for name, target in targets(plan).items()}
        self.mark = b""

    def __repr__(self) -> str:
        return f"<RedisWriter {self._servers!r}>"

    def write(self, view: str, rows: Sequence[Write]) -> None:
        deadline = time.monotonic() + STORE_WRITE_SECONDS_MAX
        about = self._views[view]
        for start in range(0, len(rows), STORE_WRITE_ROWS):
            asked = list(self._packed(about, rows[start : start + STORE_WRITE_ROWS]))
            self._run(asked, deadline)

    def is_lost(self) -> bool:
        found, whole = self._found(create=False)
        if whole and not self.mark:
            self.mark = found
        return not whole or found != self.mark

    def begin(self) -> None:
        found, whole = self._found(create=True)
        if not whole:
            raise StoreUnavailable("the store does not keep what is written to it")
        self.mark = found

    def close(self) -> None:
        self._servers.close()

    def _packed(self, view: _View, rows: Sequence[Write]) -> Iterator[Asked]:
        """The rows as commands."""
        step, suffix, encoders = self._keys_at_once, self._project, view.target.encoders
        for start in range(0, len(rows), step):
            some = rows[start : start + step]
            keys, words = [], []
            for row in some:
                keys.append(_bulk(row.key + suffix))
                words += [_bulk(row.version), _bulk(timestamp(row.at))]
                words += [_bulk(encode(value)) for encode, value in zip(encoders, row.values, strict=True)]
            count = 3 + len(some) + 1 + view.width * (1 + len(some))
            head = b"*%d\r\n$7\r\nEVALSHA\r\n$40\r\n%b\r\n%b" % (count, _SHA, _bulk(b"%d" % len(some)))
            yield Asked(some[0].key + suffix, b"".join([head, *keys, view.arguments, *words]))

    def _run(self, asked: Sequence[Asked], deadline: float) -> None:
        """Have the script run for each. Raises StoreUnavailable unless it has."""
        replies = self._servers.ask(asked, deadline)
        missing = [each for each, reply in zip(asked, replies, strict=True) if _is_unknown(reply)]
        if missing:  # somebody flushed the scripts
            self._servers.everywhere(_LOAD, deadline)
            replies = [reply for reply in replies if not _is_unknown(reply)] + self._servers.ask(missing, deadline)
        for reply in replies:
            if isinstance(reply, Exception):
                self._servers.close()  # who says so may be no master any more
                raise StoreUnavailable(f"the store refused a write: {reply}")
        wrong = [key for reply in replies for key in reply]
        if wrong:
            _log.warning("%d keys of the feature store hold no features and are not written: %r", len(wrong), wrong[0])

    def _found(self, *, create: bool) -> tuple[bytes, bool]:
        """What marks the store now, and whether all of it is there. The server's own life is part of it: one that was
        started again from a snapshot, or was a replica before, may lack the last writes."""
        deadline = time.monotonic() + STORE_WRITE_SECONDS_MAX
        asked = []
        for view in self._views.values():
            field, seen = f"{OWN}:{view.target.stored}".encode(), f"_ts:{view.target.stored}".encode()
            for key in view.marks:
                if create:  # with a time, as all hashes of the view have: by it Feast finds what to delete
                    asked.append(Asked(key, command(b"HSETNX", key, field, os.urandom(8))))
                    asked.append(Asked(key, command(b"HSETNX", key, seen, b"")))
                asked.append(Asked(key, command(b"HGET", key, field)))
        replies = self._servers.ask(asked, deadline)
        for reply in replies:
            if isinstance(reply, Exception):
                self._servers.close()
                raise StoreUnavailable(f"the store refused a read: {reply}")
        marks = [reply for reply in replies if not isinstance(reply, int)]
        lives = sorted(_life(reply) for reply in self._servers.everywhere(_INFO, deadline))
        return hashlib.sha256(repr((marks, lives)).encode()).digest(), None not in marks


def _view(target: Target, project: bytes, marks: int) -> _View:
    fields = [f"{OWN}:{target.stored}".encode(), f"_ts:{target.stored}".encode()]
    fields += [struct.pack("<I", mmh3.hash(f"{target.stored}:{name}", signed=False)) for name in target.features]
    arguments = _bulk(b"%d" % len(fields)) + b"".join(_bulk(field) for field in fields)
    own = target.head + NOBODY + target.stored.encode()
    return _View(target, arguments, len(fields), tuple(b"%b %d %b" % (own, number, project) for number in range(marks)))


def _bulk(word: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(word), word)


def _is_unknown(reply: Any) -> bool:
    return isinstance(reply, Exception) and str(reply).startswith("NOSCRIPT")


def _life(info: Any) -> bytes:
    """The run of a server, from what INFO says; nothing where it may not be asked."""
    at = info.find(b"run_id:") if isinstance(info, bytes) else -1
    return info[at : info.index(b"\r", at)] if at >= 0 else b""
