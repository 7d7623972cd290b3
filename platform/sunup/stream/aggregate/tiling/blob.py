"""Entities' states as bytes: what SQLite and the changelog topic keep of them.

Layout, little endian, without padding:

    u8   version of this layout, 1
    u8   lanes per tile, L
    u16  0
    u32  tiles, T
    u32  ids, D
    f64  newest event time, seconds since the epoch
    D times, in the order they came:  u64 id of an event (64 bits of a hash), f64 its event time
    T times, ascending:               u32 which tile (event time // hop), then its lanes in the order of Layout.lanes:
                                      a count as u32, any other as f64
    u32  CRC-32 of all that is before it

Three tiles with a count and a sum and one recent id: 88 bytes.
"""

import zlib
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sunup.stream.aggregate.tiling.layout import Layout

VERSION: Final = 1
_HEAD: Final = np.dtype(
    [("version", "u1"), ("lanes", "u1"), ("zero", "<u2"), ("tiles", "<u4"), ("ids", "<u4"), ("newest", "<f8")]
)
_ID: Final = np.dtype([("id", "<u8"), ("time", "<f8")])
_CRC: Final = 4
_HEADED: Final = _HEAD.itemsize


class States(NamedTuple):
    """Of many entities, one after the other. `ids` and `tiles`: how many each has; rows of both in one array each:
    ids with `id` and `time`, tiles with `tile` and one field per lane, called by its number."""

    newest: NDArray[np.float64]
    ids: NDArray[np.int64]
    tiles: NDArray[np.int64]
    id_rows: Sequence[NDArray[Any]]
    tile_rows: Sequence[NDArray[Any]]


def _tile(layout: Layout) -> np.dtype[Any]:
    lanes = ((str(at), "<u4" if lane.stat == "count" else "<f8") for at, lane in enumerate(layout.lanes))
    return np.dtype([("tile", "<u4"), *lanes])


def nothing(layout: Layout) -> States:
    """One entity without tiles and ids."""
    none, count = np.zeros(0), np.zeros(1, np.int64)
    return States(np.full(1, -np.inf), count, count, [none] * 2, [none] * (1 + len(layout.lanes)))


def pack(states: States, layout: Layout) -> list[bytes]:
    """The bytes of each."""
    count = len(states.newest)
    heads, kind = np.zeros(count, _HEAD), _tile(layout)
    heads["version"], heads["lanes"], heads["newest"] = VERSION, len(layout.lanes), states.newest
    heads["tiles"], heads["ids"] = states.tiles, states.ids
    ids, tiles = np.empty(len(states.id_rows[0]), _ID), np.empty(len(states.tile_rows[0]), kind)
    for rows, columns in ((ids, states.id_rows), (tiles, states.tile_rows)):
        for name, column in zip(rows.dtype.names or (), columns, strict=True):
            rows[name] = column
    head, id, tile = heads.tobytes(), ids.tobytes(), tiles.tobytes()
    id_ends = (np.cumsum(states.ids) * _ID.itemsize).tolist()
    tile_ends = (np.cumsum(states.tiles) * kind.itemsize).tolist()
    blobs, at, id_at, tile_at = [], 0, 0, 0
    for id_end, tile_end in zip(id_ends, tile_ends, strict=True):
        blob = head[at : at + _HEADED] + id[id_at:id_end] + tile[tile_at:tile_end]
        blobs.append(blob + zlib.crc32(blob).to_bytes(4, "little"))
        at, id_at, tile_at = at + _HEADED, id_end, tile_end
    return blobs


def unpack(blobs: Sequence[bytes], layout: Layout) -> States:
    """The states in `blobs`. ValueError, in words, where one is not what `pack` made for such a layout."""
    for blob in blobs:
        _check(blob, layout)
    kind = _tile(layout)
    heads = np.frombuffer(b"".join([blob[:_HEADED] for blob in blobs]), _HEAD)
    ids, tiles = heads["ids"].astype(np.int64), heads["tiles"].astype(np.int64)
    ends = (_HEADED + ids * _ID.itemsize).tolist()
    lengths = (_HEADED + ids * _ID.itemsize + tiles * kind.itemsize + _CRC).tolist()
    if lengths != [len(blob) for blob in blobs]:
        raise ValueError("tiles of an entity are damaged: their length does not fit")
    id_rows = np.frombuffer(b"".join([blob[_HEADED:end] for blob, end in zip(blobs, ends, strict=True)]), _ID)
    tile_rows = np.frombuffer(b"".join([blob[end:-_CRC] for blob, end in zip(blobs, ends, strict=True)]), kind)
    return States(
        heads["newest"],
        ids,
        tiles,
        [id_rows[name] for name in _ID.names or ()],
        [tile_rows[name] for name in kind.names or ()],
    )


def _check(blob: bytes, layout: Layout) -> None:
    if len(blob) < _HEADED + _CRC:
        raise ValueError(f"tiles of an entity are damaged: {len(blob)} bytes are too few")
    if blob[0] != VERSION:
        raise ValueError(f"tiles of an entity have layout {blob[0]}, and this version of Sunup reads {VERSION}")
    if zlib.crc32(memoryview(blob)[:-_CRC]) != int.from_bytes(blob[-_CRC:], "little"):
        raise ValueError("tiles of an entity are damaged: their checksum does not match")
    if blob[1] != len(layout.lanes):
        raise ValueError(f"tiles of an entity have {blob[1]} numbers each, and the view needs {len(layout.lanes)}")
