"""The one entry of Exif that changes a picture: how it is to be turned. After CIPA DC-008 (Exif 2.32), 4.6.4."""

import struct
from typing import Final

_ORIENTATION: Final = 0x0112
_SHORT: Final = 3
_ENTRIES_MAX: Final = 512  # of a directory; cameras write some twenty


def orientation_of(tiff: bytes) -> int:
    """1 to 8 from an Exif block (TIFF: byte order, then directory 0); 1, upright, where it says nothing that is valid.

    A broken block is no reason to refuse a picture: viewers show it upright, too.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None or len(tiff) < 10:
        return 1
    (at,) = struct.unpack_from(f"{order}I", tiff, 4)
    if at + 2 > len(tiff):
        return 1
    (entries,) = struct.unpack_from(f"{order}H", tiff, at)
    for entry in range(min(entries, _ENTRIES_MAX)):
        where = at + 2 + 12 * entry
        if where + 12 > len(tiff):
            break
        tag, kind, count, value = struct.unpack_from(f"{order}HHIH", tiff, where)
        if tag == _ORIENTATION:
            return value if kind == _SHORT and count == 1 and 1 <= value <= 8 else 1
    return 1
