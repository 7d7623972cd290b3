"""Content codings: bodies that come compressed, and large replies that go out so. The only coding is gzip."""

import re
import zlib
from typing import Final

from sunup.errors import BadRequest, TooLarge, UnsupportedMedia
from sunup.limits import GZIP_REPLY_BYTES_MIN
from sunup.serve.http.message import Header

_GZIP: Final = 31  # wbits of zlib: a gzip header, the largest window
_LEVEL: Final = 1  # ten times as fast as the default for some percent more bytes of JSON
_NONE: Final = re.compile(rb"q=0(\.0*)?")


def expanded(body: bytes, coding: bytes, limit: int) -> bytes:
    """A request body without its content coding. `limit`: bytes it may have then.

    Raises TooLarge beyond it (no more than that is ever made), BadRequest for what is no gzip, UnsupportedMedia for
    another coding.
    """
    coding = coding.strip().lower()
    if coding in (b"identity", b""):
        return body
    if coding not in (b"gzip", b"x-gzip"):
        raise UnsupportedMedia("The only content encoding read here is gzip.")
    stream = zlib.decompressobj(_GZIP)
    try:
        plain = stream.decompress(body, limit + 1)
    except zlib.error:
        raise BadRequest("The body is not gzip, as its content-encoding says.") from None
    if len(plain) > limit:
        raise TooLarge(f"The body is over {limit} bytes when expanded, the most this function takes.")
    if not stream.eof or stream.unused_data:
        raise BadRequest("The body is not one whole gzip stream.")
    return plain


def compressed(body: bytes, headers: list[Header], accepts: bytes) -> bytes:
    """A reply's body as a client that sent `accepts` as accept-encoding gets it; `headers` say so then."""
    if len(body) < GZIP_REPLY_BYTES_MIN or not _takes_gzip(accepts):
        return body
    headers += [(b"content-encoding", b"gzip"), (b"vary", b"accept-encoding")]
    return zlib.compress(body, _LEVEL, _GZIP)


def _takes_gzip(accepts: bytes) -> bool:
    """Whether an accept-encoding header names gzip, or anything, with a weight above zero."""
    weights = {}
    for part in accepts.lower().split(b","):
        coding, *parameters = (word.strip() for word in part.split(b";"))
        weights[coding] = not any(_NONE.fullmatch(parameter) for parameter in parameters)
    return weights.get(b"gzip", weights.get(b"*", False))
