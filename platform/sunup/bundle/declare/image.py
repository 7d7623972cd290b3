"""[image] of function.toml: which request field is an image, and where that meets the model's input."""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import msgspec

from sunup.bundle.declare.lines import Lines
from sunup.bundle.declare.spec import Spec
from sunup.errors import UsageError
from sunup.limits import IMAGE_PIXELS_DEFAULT, IMAGE_SIZE_MAX
from sunup.types import PIXELS, Field, ImageSpec

Side = Annotated[int, msgspec.Meta(ge=1, le=IMAGE_SIZE_MAX)]


class ImageTable(msgspec.Struct):
    """The table as it stands in the file."""

    size: tuple[Side, Side]
    resize: Literal["cover", "contain", "stretch"] = "cover"
    pixels_max: Annotated[int, msgspec.Meta(ge=1, le=1_000_000_000)] = IMAGE_PIXELS_DEFAULT


def image_spec(given: ImageTable | None, request: Mapping[str, str], where: Lines) -> ImageSpec | None:
    """The table resolved: its field is the one of type bytes in [request]. Raises UsageError."""
    if given is None:
        return None
    fields = [name for name, dtype in request.items() if dtype == "bytes"]
    if len(fields) != 1:
        found = f"{len(fields)} fields are" if fields else "no field is"
        raise where.error(
            "image", "", f'{found} of type "bytes" in [request]; [image] needs exactly one, such as image = "bytes"'
        )
    return ImageSpec(fields[0], given.size, given.resize, given.pixels_max)


def table(image: ImageSpec) -> list[str]:
    """The lines that read back as `image`."""
    lines = ["[image]", f"size = {json.dumps(list(image.size))}"]
    if image.resize != "cover":
        lines.append(f"resize = {json.dumps(image.resize)}")
    if image.pixels_max != IMAGE_PIXELS_DEFAULT:
        lines.append(f"pixels_max = {image.pixels_max}")
    return lines


def derived(columns: Sequence[Field]) -> tuple[tuple[Field, ...], ImageSpec | None]:
    """Request fields and [image] of a model whose function nobody declared. Raises UsageError."""
    found = _image_of(columns)
    if found is None:
        return tuple(columns), None
    height, width, _ = found.shape
    if min(height, width) < 1:
        raise UsageError(
            "The model takes images of any size. Say which in functions/<name>/function.toml: "
            f'[request] {found.name} = "bytes" and [image] size = [height, width].'
        )
    request = tuple(Field(c.name, "bytes") if c.dtype == PIXELS else c for c in columns)
    return request, ImageSpec(found.name, (height, width))


def as_sent(spec: Spec, columns: Sequence[Field]) -> Sequence[Field]:
    """The model's columns with the image as callers send it: bytes, under the name it has in [request].

    Raises UsageError where the function and the model do not agree on what the image is.
    """
    found = _image_of(columns)
    if found is None:
        if spec.image is not None:
            raise UsageError(
                f"{spec.name} has an [image], but the model {spec.model} takes none. Log an image function's model "
                "with a signature whose input is a uint8 tensor [-1, height, width, 3]."
            )
        return columns
    if spec.image is None:
        raise UsageError(
            f"The model {spec.model} takes images. Add to function.toml of {spec.name}: [request] {found.name} = "
            f'"bytes" and [image] size = {list(found.shape[:2])}.'
        )
    for side, declared in zip(found.shape, spec.image.size, strict=False):
        if side not in (-1, declared):
            raise UsageError(
                f"[image] size of {spec.name} is {list(spec.image.size)}, but the model {spec.model} takes "
                f"{list(found.shape[:2])} (height, width)."
            )
    return [Field(spec.image.field, "bytes") if c.dtype == PIXELS else c for c in columns]


def as_taken(spec: Spec, columns: Sequence[Field]) -> tuple[Field, ...]:
    """The same with the image as the model takes it, at the size the function declares."""
    if spec.image is None:
        return tuple(columns)
    image = Field(spec.image.field, PIXELS, (*spec.image.size, 3))
    return tuple(image if c.dtype == PIXELS else c for c in columns)


def _image_of(columns: Sequence[Field]) -> Field | None:
    found = [column for column in columns if column.dtype == PIXELS]
    if len(found) > 1:
        raise UsageError(f"The model takes {len(found)} images ({', '.join(c.name for c in found)}); one is served.")
    return found[0] if found else None
