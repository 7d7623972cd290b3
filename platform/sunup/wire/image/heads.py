"""What a picture says of itself before anything of it is decoded: format, size, frames, orientation. Pure Python.

After ITU-T T.81 (JPEG), the PNG specification, third edition, and the WebP container specification (RFC 9649). A head
also carries the picture without what no pixel depends on (text, colour profiles, previews, Exif), so that the decoder
never sees any of that: a compressed text of a PNG, or a broken Exif block, cannot reach it.
"""

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from sunup.errors import BadRequest, UnsupportedMedia
from sunup.limits import IMAGE_CHUNKS_MAX, IMAGE_SCANS_MAX, IMAGE_SIDE_MAX
from sunup.wire.codec import ANY_IMAGE
from sunup.wire.image.exif import orientation_of

TYPES: Final = {
    "image/jpeg": "JPEG",
    "image/jpg": "JPEG",
    "image/pjpeg": "JPEG",
    "image/png": "PNG",
    "image/webp": "WebP",
}
ACCEPTED: Final = "JPEG, PNG and WebP"

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_OTHERS: Final = (
    # how files begin that people send as pictures, too
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"%PDF", "PDF"),
    (b"<svg", "SVG"),
    (b"<?xml", "XML"),
    (b"\0\0\1\0", "an icon"),
    (b"\0\0\0\x0cjP", "JPEG 2000"),
    (b"\xff\x0a", "JPEG XL"),
    (b"{", "JSON"),
)
_KEPT: Final = frozenset((b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"))  # what a PNG's pixels are made of
_PNG_EXIF_BYTES_MAX: Final = 65_536  # as in a JPEG, whose segments cannot be larger


class Head(NamedTuple):
    """`data`: what a decoder needs of the picture. `width`, `height`: as stored; `orientation`: Exif's, 1 to 8."""

    format: str
    width: int
    height: int
    orientation: int
    data: bytes


def read(data: bytes, *, kind: str, pixels_max: int) -> Head:
    """The head of a picture that may be decoded. `kind`: the content type it was sent with; "" or image/* say nothing.

    Raises BadRequest with one of the codes unknown_image, image_type_mismatch, animated_image, image_too_large and
    invalid_image; UnsupportedMedia for a content type that is none of those above.
    """
    format = sniff(data)
    claimed = TYPES.get(kind)
    if claimed is None and kind not in ("", ANY_IMAGE):
        raise UnsupportedMedia(f"{kind} is not read; {ACCEPTED} are")
    if claimed is not None and claimed != format:
        raise BadRequest(f"the image is {format}, but its content type says {claimed}", code="image_type_mismatch")
    try:
        head = _READERS[format](data)
    except (struct.error, IndexError):
        raise broken(format, "it ends too early") from None
    if head.width < 1 or head.height < 1:
        raise broken(format, "it has no pixels")
    if head.width * head.height > pixels_max or max(head.width, head.height) > IMAGE_SIDE_MAX:
        message = f"the image has {head.width} x {head.height} pixels; at most {pixels_max} are taken"
        raise BadRequest(f"{message}, and {IMAGE_SIDE_MAX} on a side", code="image_too_large")
    return head


def sniff(data: bytes) -> str:
    """The format, by how the bytes begin. Raises BadRequest with what they are instead, where that is known."""
    if data[:3] == b"\xff\xd8\xff":
        return "JPEG"
    if data[:8] == _PNG:
        return "PNG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    found = next((name for start, name in _OTHERS if data.startswith(start)), "")
    if data[4:8] == b"ftyp":
        found = "HEIF, AVIF or a video"
    what = f"this is {found}" if found else "these bytes are no image" if data else "it is empty"
    raise BadRequest(f"{what}; {ACCEPTED} are read", code="unknown_image")


def broken(format: str, why: str) -> BadRequest:
    """The refusal of a damaged picture."""
    return BadRequest(f"the {format} image cannot be decoded: {why}", code="invalid_image")


# --- JPEG -------------------------------------------------------------------------------------------------------------


def _jpeg(data: bytes) -> Head:
    size: tuple[int, int] | None = None
    orientation, kept, components = 1, [data[:2]], 0
    for marker, start, end in _segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a start of frame
            precision, height, width = struct.unpack_from(">BHH", data, start + 4)
            if precision != 8:
                raise broken("JPEG", f"it has {precision} bits per sample; 8 are read")
            size = (width, height)
            components = 0 if marker > 0xC1 else data[start + 9]  # 0: progressive
        if marker == 0xE1 and data[start + 4 : start + 10] == b"Exif\0\0":
            orientation = orientation_of(data[start + 10 : end])
        if marker == 0xDA:
            break
        if not (0xE1 <= marker <= 0xED or marker in (0xEF, 0xFE)):  # APP0 and APP14 say what the colours are
            kept.append(data[start:end])
    else:
        raise broken("JPEG", "it ends too early")
    if size is None:
        raise broken("JPEG", "its size is missing")
    # Every scan passes over all pixels, and a scan may be a few bytes long. A decoder reads no second one where the
    # first has all components and is not progressive.
    if data[start + 4] != components and data.count(b"\xff\xda", start) > IMAGE_SCANS_MAX:
        raise broken("JPEG", f"it has more than {IMAGE_SCANS_MAX} scans")
    kept.append(data[start:])
    return Head("JPEG", *size, orientation, b"".join(kept))


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of each segment, the first scan's included."""
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            raise broken("JPEG", "its segments do not follow each other")
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if length < 2 or at + 2 + length > len(data):
            raise broken("JPEG", "it ends too early")
        yield marker, at, at + 2 + length
        at += 2 + length


# --- PNG --------------------------------------------------------------------------------------------------------------


def _png(data: bytes) -> Head:
    if data[8:16] != b"\0\0\0\x0dIHDR":
        raise broken("PNG", "its size is missing")
    width, height = struct.unpack_from(">II", data, 16)
    orientation, kept, at, ended = 1, [_PNG], 8, False
    for _ in range(IMAGE_CHUNKS_MAX):
        length, name = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            raise broken("PNG", "it ends too early")
        if name == b"acTL":
            raise BadRequest("the PNG is animated; send one picture", code="animated_image")
        if name == b"eXIf" and length <= _PNG_EXIF_BYTES_MAX:
            orientation = orientation_of(data[at + 8 : end - 4])
        if name in _KEPT:
            kept.append(data[at:end])
        at = end
        if name == b"IEND":
            ended = True
            break
    if not ended:
        raise broken("PNG", f"it has more than {IMAGE_CHUNKS_MAX} chunks")
    return Head("PNG", width, height, orientation, b"".join(kept))


# --- WebP -------------------------------------------------------------------------------------------------------------


def _webp(data: bytes) -> Head:
    length = 8 + int.from_bytes(data[4:8], "little")
    if length > len(data):
        raise broken("WebP", "it ends too early")
    first = data[12:16]
    if first == b"VP8X":
        flags, width, height = data[20], _u24(data, 24) + 1, _u24(data, 27) + 1
        if flags & 0x02:
            raise BadRequest("the WebP is animated; send one picture", code="animated_image")
        return Head("WebP", width, height, _webp_orientation(data, length), data)
    if first == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return Head("WebP", width & 0x3FFF, height & 0x3FFF, 1, data)
    if first == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return Head("WebP", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, 1, data)
    raise broken("WebP", "its first chunk is none that is known")


def _webp_orientation(data: bytes, length: int) -> int:
    at = 12
    for _ in range(IMAGE_CHUNKS_MAX):
        if at + 8 > length:
            break
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        if data[at : at + 4] == b"EXIF":
            exif = data[at + 8 : at + 8 + size]
            return orientation_of(exif.removeprefix(b"Exif\0\0"))
        at += 8 + size + size % 2
    return 1


def _u24(data: bytes, at: int) -> int:
    if at + 3 > len(data):
        raise IndexError
    return int.from_bytes(data[at : at + 3], "little")


_READERS: Final = {"JPEG": _jpeg, "PNG": _png, "WebP": _webp}
