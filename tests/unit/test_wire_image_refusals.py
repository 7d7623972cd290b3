"""Pictures that are refused: what each guard says; and changed files are answered or refused, nothing else."""

import struct
import time
import warnings
from collections.abc import Iterator
from itertools import chain

import numpy as np
import pytest
from PIL import Image
from tests.mutation import mutated
from tests.pictures import KINDS, PHOTOGRAPH, SPEC, after_head, chunk, encoded, palette

from sunup.errors import BadRequest, CallError, UnsupportedMedia
from sunup.types import ImageSpec
from sunup.wire.image.heads import Head, read, sniff
from sunup.wire.image.pixels import pixels

MUTATIONS = 2000
SECONDS_MAX = 1.0  # for one mutation of a small picture, on a busy machine


def code_of(data: bytes, spec: ImageSpec = SPEC, kind: str = "") -> str:
    """What a picture is refused with."""
    with pytest.raises(CallError) as refused:
        pixels(data, spec, kind=kind)
    assert refused.value.status in (400, 415)
    return refused.value.code


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "empty"),
        (b"hello", "no image"),
        (b"GIF89a" + bytes(40), "GIF"),
        (b"BM" + bytes(40), "BMP"),
        (b"II*\0" + bytes(40), "TIFF"),
        (b"%PDF-1.7", "PDF"),
        (b"<svg xmlns", "SVG"),
        (b"\0\0\0\x1cftypheic", "HEIF"),
        (b'{"image": ""}', "JSON"),
    ],
)
def test_other_formats_are_named(data: bytes, what: str) -> None:
    with pytest.raises(BadRequest, match=what) as refused:
        sniff(data)
    assert refused.value.code == "unknown_image"
    assert code_of(data) == "unknown_image"


def test_the_content_type_must_agree() -> None:
    data = encoded(PHOTOGRAPH)
    assert pixels(data, SPEC, kind="image/*").shape == (48, 64, 3)
    with pytest.raises(BadRequest, match="is JPEG, but its content type says PNG"):
        pixels(data, SPEC, kind="image/png")
    with pytest.raises(UnsupportedMedia, match="image/gif is not read"):
        pixels(data, SPEC, kind="image/gif")


@pytest.mark.parametrize("format", KINDS)
def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(format: str) -> None:
    data = encoded(Image.new("L", (5000, 5000)).convert("RGB"), format)
    began = time.perf_counter()
    assert code_of(data, ImageSpec("image", (8, 8), pixels_max=24_999_999)) == "image_too_large"
    assert time.perf_counter() - began < 0.05
    assert pixels(data, ImageSpec("image", (8, 8), pixels_max=25_000_000)).shape == (8, 8, 3)


def test_a_bomb_of_a_few_bytes_is_refused_by_what_it_claims() -> None:
    png = bytearray(encoded(Image.new("1", (8, 8)), "PNG"))
    png[16:24] = struct.pack(">II", 2**31 - 1, 2**31 - 1)
    assert code_of(bytes(png)) == "image_too_large"
    long = encoded(Image.new("1", (20_001, 1)), "PNG")
    assert code_of(long) == "image_too_large"


def test_a_jpeg_of_many_scans_is_refused() -> None:
    data = encoded(PHOTOGRAPH, progressive=True)
    scan = data.index(b"\xff\xda")
    assert pixels(data, SPEC).shape
    assert code_of(data[:-2] + data[scan : scan + 40] * 60 + b"\xff\xd9") == "invalid_image"


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_animations_are_refused(format: str) -> None:
    frames = [PHOTOGRAPH.resize((32, 32)).rotate(90 * turn) for turn in range(3)]
    data = encoded(frames[0], format, save_all=True, append_images=frames[1:])
    assert code_of(data) == "animated_image"


@pytest.mark.parametrize("format", KINDS)
def test_truncated_files_are_refused(format: str) -> None:
    data = encoded(PHOTOGRAPH, format)
    for share in (0.01, 0.1, 0.5, 0.9, 0.99):
        assert code_of(data[: int(share * len(data))]) == "invalid_image"
    assert code_of(data[:12]) == "invalid_image"


def test_odd_files_are_refused_or_read() -> None:
    jpeg, png = encoded(PHOTOGRAPH), encoded(PHOTOGRAPH, "PNG")
    twelve = bytearray(jpeg)
    twelve[jpeg.index(b"\xff\xc0") + 4] = 12
    assert code_of(bytes(twelve)) == "invalid_image"
    assert code_of(jpeg[:2] + b"\xff\xe1\0\0" + jpeg[2:]) == "invalid_image"
    assert code_of(png[:-12]) == "invalid_image"
    assert code_of(after_head(png, chunk(b"IHDR", bytes(13)))) == "invalid_image"
    assert code_of(png[:60] + b"\0" + png[60:]) == "invalid_image"
    assert pixels(jpeg + b"behind it", SPEC).shape
    assert pixels(png + b"behind it", SPEC).shape


def test_a_head_says_what_there_is() -> None:
    for format, kind in KINDS.items():
        head = read(encoded(PHOTOGRAPH, format), kind=kind, pixels_max=10**6)
        assert isinstance(head, Head)
        assert (head.format.upper(), head.width, head.height, head.orientation) == (format, 640, 427, 1)
    lossless = read(encoded(PHOTOGRAPH, "WEBP", lossless=True), kind="", pixels_max=10**6)
    assert (lossless.width, lossless.height) == (640, 427)


def _originals() -> list[bytes]:
    small = PHOTOGRAPH.resize((40, 30))
    exif = Image.Exif()
    exif[0x0112] = 6
    return [
        encoded(small),
        encoded(small, progressive=True, exif=exif.tobytes()),
        encoded(small.convert("CMYK")),
        encoded(small, "PNG"),
        encoded(palette(small), "PNG", transparency=3),
        encoded(Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40) * 50), "PNG"),
        encoded(small.convert("LA"), "PNG", exif=exif.tobytes()),
        encoded(small, "WEBP"),
        encoded(small.convert("RGBA"), "WEBP", lossless=True, exif=exif.tobytes()),
    ]


def _flipped(original: bytes, seed: int, count: int) -> Iterator[bytes]:
    """Files of which a few bytes are others."""
    random = np.random.default_rng(seed)
    for _ in range(count):
        data = np.frombuffer(original, np.uint8).copy()
        places = random.integers(
            len(data) if random.random() < 0.5 else min(len(data), 200), size=random.integers(1, 5)
        )
        data[places] = random.integers(0, 256, len(places))
        yield data.tobytes()


def _outcome(data: bytes) -> str:
    try:
        return f"answered {pixels(data, SPEC).shape}"
    except CallError as refused:
        return f"{refused.status} {refused.code}"


@pytest.mark.parametrize("at", range(9))
def test_a_mutated_file_is_answered_or_refused(at: int) -> None:
    original = _originals()[at]
    kinds: set[str] = set()
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        for data in chain(mutated(original, at, MUTATIONS // 2), _flipped(original, at, MUTATIONS // 2)):
            began = time.perf_counter()
            kinds.add(_outcome(data))
            assert time.perf_counter() - began < SECONDS_MAX
    assert [str(warning.message) for warning in heard] == []
    codes = {f"400 {code}" for code in ("invalid_image", "unknown_image", "image_too_large", "animated_image")}
    assert {"answered (48, 64, 3)", "400 invalid_image"} <= kinds <= {"answered (48, 64, 3)", *codes}
