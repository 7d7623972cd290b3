"""Pictures to tensors: what each kind of picture becomes."""

import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from tests.pictures import KINDS, PHOTOGRAPH, SPEC, apart, by_hand, chunk, encoded, palette

from sunup.types import ImageSpec
from sunup.wire.image.heads import read
from sunup.wire.image.pixels import pixels

TOLERANCE = 8  # levels of 256 on average, in a texture of leaves: a JPEG decoded at a fraction averages otherwise


@pytest.mark.parametrize("format", KINDS)
@pytest.mark.parametrize("size", [(48, 64), (64, 48), (10, 300), (300, 10), (427, 640), (4, 4)])
def test_every_format_at_any_size(format: str, size: tuple[int, int]) -> None:
    spec = ImageSpec("image", size)
    given = pixels(encoded(PHOTOGRAPH, format, quality=95), spec, kind=KINDS[format])
    assert given.shape == (*size, 3)
    assert given.dtype == np.uint8
    assert given.flags.c_contiguous
    assert apart(given, by_hand(PHOTOGRAPH, spec)) < TOLERANCE


def test_a_small_tensor_of_a_large_jpeg_is_decoded_at_a_fraction() -> None:
    large = PHOTOGRAPH.resize((2560, 1708))
    data = encoded(large, quality=95)
    assert apart(pixels(data, SPEC), by_hand(large)) < TOLERANCE
    for progressive in (False, True):
        assert apart(pixels(encoded(large, quality=90, progressive=progressive), SPEC), by_hand(large)) < TOLERANCE


def test_a_picture_smaller_than_the_tensor_is_scaled_up() -> None:
    small = PHOTOGRAPH.resize((16, 12))
    assert apart(pixels(encoded(small, "PNG"), SPEC), by_hand(small)) < 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", KINDS)
def test_it_is_turned_as_exif_says(format: str, orientation: int) -> None:
    upright = PHOTOGRAPH.resize((320, 240))
    exif = Image.Exif()
    exif[0x0112] = orientation
    method = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}.get(orientation)  # how it was turned before it was stored
    stored = upright if method is None else upright.transpose(Image.Transpose(method))
    data = encoded(stored, format, exif=exif.tobytes(), quality=95)
    assert apart(pixels(data, SPEC), by_hand(upright)) < TOLERANCE


@pytest.mark.parametrize(
    "exif", [b"", b"II*\0", b"MM\0*\xff\xff\xff\xff", b"II*\0\x08\0\0\0\xff\xff" + b"\x12\x01" * 50]
)
def test_broken_exif_counts_as_none(exif: bytes) -> None:
    data = encoded(PHOTOGRAPH, exif=b"Exif\0\0" + exif)
    assert apart(pixels(data, SPEC), by_hand(PHOTOGRAPH)) < TOLERANCE


@pytest.mark.parametrize("resize", ["cover", "contain", "stretch"])
def test_the_three_ways_to_fit(resize: Any) -> None:
    wide = Image.new("RGB", (400, 100), (0, 0, 200))
    wide.paste((200, 0, 0), (0, 0, 100, 100))
    given = pixels(encoded(wide, "PNG"), ImageSpec("image", (40, 40), resize)).astype(int)
    red, blue, white = [200, 0, 0], [0, 0, 200], [255, 255, 255]
    expected = {"cover": (blue, blue, blue), "contain": (white, red, white), "stretch": (red, red, red)}[resize]
    assert tuple(given[row, 2].tolist() for row in (2, 20, 37)) == expected


@pytest.mark.parametrize(
    ("make", "format", "tolerance"),
    [
        (lambda i: i.convert("CMYK"), "JPEG", TOLERANCE),
        (lambda i: i.convert("L"), "JPEG", TOLERANCE),
        (lambda i: i.convert("L"), "PNG", 1),
        (lambda i: i.convert("1"), "PNG", 8),
        (palette, "PNG", 6),
        (lambda i: i.convert("RGBA"), "PNG", 1),
        (lambda i: i.convert("LA"), "PNG", 1),
        (lambda i: i.convert("RGBA"), "WEBP", 6),
    ],
)
def test_every_kind_of_colour(make: Callable[[Image.Image], Image.Image], format: str, tolerance: float) -> None:
    made = make(PHOTOGRAPH)
    expected = by_hand(made.convert("RGB") if made.mode != "L" else made)
    assert apart(pixels(encoded(made, format, quality=95), SPEC), expected) < tolerance


def test_adobes_inverted_cmyk() -> None:
    """Photoshop writes CMYK inverted, with a marker that says so; every CMYK JPEG of Pillow is such a one."""
    data = encoded(Image.new("CMYK", (64, 48), (0, 255, 255, 0)), quality=100)
    assert b"Adobe" in data
    assert pixels(data, SPEC)[20, 20].tolist() == pytest.approx([255, 0, 0], abs=4)


def test_sixteen_bits_become_eight() -> None:
    ramp = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (48, 1))
    given = pixels(encoded(Image.fromarray(ramp), "PNG"), SPEC)
    assert np.abs(given[:, :, 0].astype(int) - (ramp >> 8)).max() <= 1
    head = struct.pack(">IIBBBBB", 64, 48, 16, 2, 0, 0, 0)
    lines = b"".join(b"\0" + np.repeat(row.astype(">u2"), 3).tobytes() for row in ramp)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    assert np.abs(pixels(png, SPEC).astype(int) - (ramp >> 8)[..., None]).max() <= 1


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "L"])
@pytest.mark.parametrize("resize", ["cover", "contain"])
def test_what_is_transparent_is_white(mode: str, resize: Any) -> None:
    clear = Image.new("RGBA", (64, 48), (10, 10, 10, 0)).convert(mode)
    keys: dict[str, Any] = {"P": 0, "L": 10, "RGB": (10, 10, 10)}
    more = {"transparency": keys[mode]} if mode in keys else {}
    if mode == "P":
        clear = palette(clear.convert("RGB"))
    assert pixels(encoded(clear, "PNG", **more), ImageSpec("image", (48, 64), resize)).min() == 255


def test_profiles_texts_and_previews_never_reach_the_decoder() -> None:
    texts = PngImagePlugin.PngInfo()
    for at in range(20):
        texts.add_text(f"bomb {at}", "x" * 900_000, zip=True)
    png = encoded(PHOTOGRAPH, "PNG", pnginfo=texts, icc_profile=b"x" * 5_000_000)
    head = read(png, kind="", pixels_max=10**6)
    assert b"zTXt" in png
    assert b"zTXt" not in head.data
    assert b"iCCP" not in head.data
    assert apart(pixels(png, SPEC), by_hand(PHOTOGRAPH)) < 1
    jpeg = encoded(PHOTOGRAPH, comment=b"hello", icc_profile=b"y" * 100_000, exif=b"Exif\0\0nonsense")
    lean = read(jpeg, kind="", pixels_max=10**6).data
    assert len(lean) < len(jpeg) - 100_000
    assert b"hello" not in lean
