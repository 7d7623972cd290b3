"""Bytes of a picture -> uint8 [height, width, 3], RGB. The only file that names Pillow, for image functions only.

What is done, in this order, and what a model is therefore trained on:

1. decode; a JPEG at 1/2, 1/4 or 1/8 of its size where that is still no smaller than needed (libjpeg scales while it
   decodes, which is most of the speed here)
2. more than 8 bits per sample: the upper 8; palettes are looked up; grey becomes three equal colours; CMYK as Adobe
   stores it, converted without a colour profile; profiles of other pictures are not applied either
3. scale with Pillow's bilinear filter, which averages over all source pixels: "cover" fills the size and cuts off what
   overhangs on both sides equally, "contain" fits in and pads with white on both sides, "stretch" does neither
4. what is transparent is laid on white
5. turn as the Exif orientation says
"""

from collections.abc import Callable
from io import BytesIO
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image, Resampling, Transpose, fromarray, new
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from sunup.errors import CallError, Unavailable
from sunup.types import ImageSpec
from sunup.wire.image.heads import Head, broken, read

Size = tuple[int, int]  # width, height

# Not Image.open: it would import other formats, and look at pictures before heads.py has.
_OPENERS: Final[dict[str, Callable[[BytesIO], Any]]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "WebP": WebPImageFile,
}
_TURNS: Final = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
_GAP: Final = 2.0  # a picture much larger than needed is first averaged over whole blocks, to twice the size at least
_WHITE: Final = (255, 255, 255)


def pixels(data: bytes, spec: ImageSpec, *, kind: str = "") -> NDArray[np.uint8]:
    """The picture as uint8 [*spec.size, 3], C-contiguous. `kind`: the content type it was sent with, if any.

    Raises BadRequest: see heads.read, and invalid_image for what only decoding shows. Unavailable without memory.
    """
    head = read(data, kind=kind, pixels_max=spec.pixels_max)
    height, width = spec.size
    turned = head.orientation >= 5
    target = (height, width) if turned else (width, height)
    try:
        image = _opened(head, target, spec.resize)
        image = _on_white(_scaled(image, target, spec.resize))
        if head.orientation in _TURNS:
            image = image.transpose(_TURNS[head.orientation])
        array = np.array(image, dtype=np.uint8)
    except CallError:
        raise
    except MemoryError:
        raise Unavailable("there is no memory to decode the image now") from None
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error and others
        raise broken(head.format, _reason(error)) from error
    if array.shape != (height, width, 3):
        raise broken(head.format, "its pixels are none that are known")
    return array


def _opened(head: Head, target: Size, resize: str) -> Image:
    """Decoded, in a mode that can be scaled: L, RGB, RGBA, LA or CMYK."""
    image: Any = _OPENERS[head.format](BytesIO(head.data))
    if image.size != (head.width, head.height):
        raise broken(head.format, "it states two sizes")
    if head.format == "JPEG":
        image.draft(None, _needed(image.size, target, resize))
        image.decodermaxblock = len(head.data)  # in one go, not in blocks of 64 KiB
    image.load()
    transparent = "transparency" in image.info
    if image.mode.startswith("I"):
        return fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    if image.mode in ("P", "PA") or (transparent and image.mode in ("1", "L", "RGB")):
        image = image.convert("RGBA" if transparent or image.mode == "PA" else "RGB")
    elif image.mode not in ("L", "RGB", "RGBA", "LA", "CMYK"):
        image = image.convert("RGB")
    opened: Image = image
    return opened


def _needed(size: Size, target: Size, resize: str) -> Size:
    """The least size a picture may be decoded at: what it will be scaled to, before anything is cut off."""
    if resize == "stretch":
        return target
    scales = (target[0] / size[0], target[1] / size[1])
    scale = max(scales) if resize == "cover" else min(scales)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _scaled(image: Image, target: Size, resize: str) -> Image:
    """Scaled to `target`. Every pixel of the source counts, however much smaller the target is."""
    width, height = image.size
    if resize == "cover":
        scale = min(width / target[0], height / target[1])
        w, h = target[0] * scale, target[1] * scale
        left, top = (width - w) / 2, (height - h) / 2
        box = (max(0.0, left), max(0.0, top), min(float(width), left + w), min(float(height), top + h))
        return image.resize(target, Resampling.BILINEAR, box, _GAP)
    if resize == "stretch":
        return image.resize(target, Resampling.BILINEAR, reducing_gap=_GAP)
    fitted = _needed(image.size, target, resize)
    fitted = (min(fitted[0], target[0]), min(fitted[1], target[1]))
    padded = new("RGB", target, _WHITE)
    at = ((target[0] - fitted[0]) // 2, (target[1] - fitted[1]) // 2)
    padded.paste(_on_white(image.resize(fitted, Resampling.BILINEAR, reducing_gap=_GAP)), at)
    return padded


def _on_white(image: Image) -> Image:
    if image.mode == "RGB":
        return image
    if image.mode not in ("RGBA", "LA"):
        return image.convert("RGB")
    colours = image.convert("RGBA")
    white = new("RGB", image.size, _WHITE)
    white.paste(colours, mask=colours.getchannel("A"))
    return white


def _reason(error: Exception) -> str:
    """Pillow's own words, where they are short and plain."""
    text = str(error)
    return text if isinstance(error, OSError | SyntaxError) and text and len(text) < 100 else "it is damaged"
