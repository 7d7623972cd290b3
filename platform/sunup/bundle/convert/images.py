"""The rows a model that takes an image is proven with: its own examples, what cameras never see, and noise."""

import struct
import zlib
from base64 import b64encode
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from mlflow.models import Model
from numpy.typing import NDArray

from sunup.bundle.convert.original import Original
from sunup.bundle.convert.trees.model import Converted
from sunup.bundle.parity import Answer, Arrays
from sunup.errors import ConversionRefused
from sunup.limits import IMAGE_PROOF_BYTES_MAX, IMAGE_PROOF_ROWS_MAX, IMAGE_PROOF_RUN_ROWS
from sunup.types import PIXELS, Field

Pixels = NDArray[np.uint8]

NOISE_ROWS: Final = 16
EXAMPLE_SIDE: Final = 8  # pixels; the example of a function's call is short enough for a command line


def takes_image(columns: Sequence[Field]) -> bool:
    """Whether one of a model's columns is an image."""
    return any(column.dtype == PIXELS for column in columns)


def real_images(folder: Path, columns: Sequence[Field], more: str) -> dict[str, NDArray[Any]]:
    """The model's input example and the rows of the .npz file `more` ("" for none), by column; invented values for the
    columns that stand beside an image without an example. Half of what a proof compares at most, evenly chosen.
    """
    example = Model.load(str(folder)).load_input_example(str(folder))
    image = _image(columns)
    parts = [_arrays(example, columns)]
    if more:
        with np.load(more, allow_pickle=False) as arrays:
            parts.append({name: arrays[name] for name in arrays.files})
    for part in parts:
        given = part.get(image.name)
        if given is not None and (given.dtype != np.uint8 or given.shape[1:] != image.shape):
            raise ConversionRefused(
                f"The model's example is {given.dtype} {list(given.shape)}; its images are uint8 {[-1, *image.shape]}."
            )
    images = np.concatenate([part.get(image.name, np.empty((0, *image.shape), np.uint8)) for part in parts])
    keep = np.linspace(0, len(images) - 1, min(len(images), _budget(image) // 2)).astype(int)
    found: dict[str, NDArray[Any]] = {image.name: np.ascontiguousarray(images[keep])}
    for column in columns:
        if column is not image:
            values = [part[column.name].reshape(-1) for part in parts if column.name in part]
            found[column.name] = _beside(np.concatenate(values) if values else np.empty(0), column, len(keep))
    return found


def image_rows(
    original: Original,
    converted: Converted,
    columns: Sequence[Field],
    real: Arrays,
) -> tuple[Arrays, dict[str, Any]]:
    """The rows to prove with, and what `prove` is told of them: real_rows, threshold_rows, how, refused."""
    image = _image(columns)
    count = len(real[image.name])
    made = [(name, pixels) for name, pixels in _made(image.shape, real[image.name]) if len(pixels)]
    images = np.concatenate([real[image.name], *(pixels for _, pixels in made)])[: max(_budget(image), count + 1)]
    rows: dict[str, NDArray[Any]] = {image.name: images}
    for column in columns:
        if column is not image:
            rows[column.name] = _beside(real[column.name], column, len(images))
    if not original.takes({name: values[:1] for name, values in rows.items()}):
        raise ConversionRefused("The model does not answer its own example, or an image of its signature's shape.")
    given = f"{count} real images" if count else "no example"
    how = f"{', '.join([given, *(f'{len(pixels)} {name}' for name, pixels in made)])}; {converted.note}"
    return rows, {"real_rows": count, "threshold_rows": 0, "how": how}


def in_parts(answer: Answer) -> Answer:
    """The same, asked for so few rows at a time that a network's memory is bounded."""

    def ask(rows: Arrays) -> Arrays:
        count = len(next(iter(rows.values())))
        starts = range(0, count, IMAGE_PROOF_RUN_ROWS)
        parts = [answer({n: values[at : at + IMAGE_PROOF_RUN_ROWS] for n, values in rows.items()}) for at in starts]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    return ask


def image_example(pixels: Pixels) -> str:
    """An image to try calls with: every few pixels of this one, as a PNG in base64."""
    height, width = (max(1, side // EXAMPLE_SIDE) for side in pixels.shape[:2])
    return b64encode(png(pixels[::height, ::width][:EXAMPLE_SIDE, :EXAMPLE_SIDE])).decode()


def png(pixels: Pixels) -> bytes:
    """uint8 [height, width, 3] as a PNG, without filters."""
    height, width, _ = pixels.shape
    lines = b"".join(b"\0" + line.tobytes() for line in pixels)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(lines, 9)),
        (b"IEND", b""),
    )
    made = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(made)


def _made(shape: tuple[int, ...], real: Pixels) -> Iterator[tuple[str, Pixels]]:
    """Images nobody took."""
    height, width, _ = shape
    random = np.random.default_rng(0)
    yield "of one colour", np.stack([np.full(shape, value, np.uint8) for value in (0, 1, 127, 128, 254, 255)])
    across = np.broadcast_to(np.linspace(0, 255, width)[None, :, None], shape)
    down = np.broadcast_to(np.linspace(0, 255, height)[:, None, None], shape)
    checks = np.broadcast_to(255 * ((np.arange(height)[:, None, None] + np.arange(width)[None, :, None]) % 2), shape)
    yield "gradients and checks", np.stack([across, down, 255 - across, checks]).astype(np.uint8)
    yield "of noise", random.integers(0, 256, (NOISE_ROWS, *shape), dtype=np.uint8)
    if len(real):
        few = real[:NOISE_ROWS].astype(np.int64)
        yield "darkened", (few // 4).astype(np.uint8)
        yield "inverted", (255 - few).astype(np.uint8)
        yield "with noise", np.clip(few + random.integers(-32, 33, few.shape), 0, 255).astype(np.uint8)


def _image(columns: Sequence[Field]) -> Field:
    return next(column for column in columns if column.dtype == PIXELS)


def _budget(image: Field) -> int:
    size = int(np.prod(image.shape))
    return max(8, min(IMAGE_PROOF_ROWS_MAX, IMAGE_PROOF_BYTES_MAX // size))


def _arrays(example: Any, columns: Sequence[Field]) -> dict[str, NDArray[Any]]:
    """An example as MLflow gives it back: one array, or a dictionary of them."""
    image = _image(columns)
    if isinstance(example, np.ndarray):
        return {image.name: _whole(example)}
    if not isinstance(example, dict):
        return {}
    images = [name for name, value in example.items() if np.ndim(value) == 4]
    return {image.name if name in images else name: _whole(np.asarray(value)) for name, value in example.items()}


def _whole(array: NDArray[Any]) -> NDArray[Any]:
    """JSON has no uint8: whole numbers that are bytes become bytes again."""
    if array.ndim == 4 and array.dtype.kind in "iu" and array.size and array.min() >= 0 and array.max() <= 255:
        return array.astype(np.uint8)
    return array


def _beside(values: NDArray[Any], column: Field, count: int) -> NDArray[Any]:
    """`count` values of a column that stands beside an image: the real ones in turn, or zeros."""
    if column.dtype == "string":
        return np.resize(values if len(values) else np.array(["a"]), count).astype(object)
    return np.resize(values.astype(np.float64) if len(values) else np.zeros(1), count)
