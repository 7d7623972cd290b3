"""Pictures in files, and what the documentation says becomes of them."""

import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_images

from sunup.types import ImageSpec

PHOTOGRAPH = Image.fromarray(load_sample_images().images[0])  # 640 x 427
SPEC = ImageSpec("image", (48, 64))
KINDS = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}


def encoded(image: Image.Image, format: str = "JPEG", **more: Any) -> bytes:
    """The bytes of a picture in a file."""
    file = BytesIO()
    image.save(file, format, **more)
    return file.getvalue()


def by_hand(image: Image.Image, spec: ImageSpec = SPEC) -> NDArray[np.int64]:
    """What the documentation says, at full scale: the largest centred part of the size's shape, scaled."""
    height, width = spec.size
    scale = min(image.width / width, image.height / height)
    w, h = width * scale, height * scale
    left, top = (image.width - w) / 2, (image.height - h) / 2
    box = (left, top, left + w, top + h)
    return np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR, box)).astype(np.int64)


def apart(a: NDArray[Any], b: NDArray[Any]) -> float:
    """The mean difference, in levels of 256."""
    return float(np.abs(a.astype(np.int64) - b).mean())


def chunk(name: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def after_head(png: bytes, *chunks: bytes) -> bytes:
    """A PNG with more chunks behind its first."""
    return png[:33] + b"".join(chunks) + png[33:]


def palette(image: Image.Image) -> Image.Image:
    """With 256 colours of its own."""
    return image.convert("P", palette=Image.Palette.ADAPTIVE, colors=256)
