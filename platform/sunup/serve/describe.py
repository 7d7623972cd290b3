"""What a function takes and gives, for people and programs: its description, its OIP metadata, JSON Schemas."""

from collections.abc import Sequence
from typing import Any, Final

from sunup.bundle.manifest import Manifest
from sunup.types import Field
from sunup.wire.oip import OipCodec

_SCALARS: Final[dict[str, dict[str, Any]]] = {
    "bool": {"type": "boolean"},
    "int32": {"type": "integer", "format": "int32"},
    "int64": {"type": "integer", "format": "int64"},
    "float32": {"type": "number", "format": "float"},
    "float64": {"type": "number", "format": "double"},
    "string": {"type": "string"},
    "bytes": {"type": "string", "contentEncoding": "base64"},
}

_IMAGE: Final[dict[str, Any]] = {
    "description": "A JPEG, PNG or WebP picture in base64.",
    "oneOf": [
        _SCALARS["bytes"],
        {
            "type": "object",
            "properties": {"b64": _SCALARS["bytes"], "content_type": {"type": "string"}},
            "required": ["b64"],
            "additionalProperties": False,
        },
    ],
}
IMAGE_TYPES: Final = ("image/jpeg", "image/png", "image/webp")  # of a body that is a picture


def describe(manifest: Manifest, revision: int, state: str) -> dict[str, Any]:
    """The body of GET /functions/F."""
    return {
        "function": manifest.function,
        "revision": revision,
        "model": f"{manifest.model.name}/{manifest.model.version}",
        "state": state,
        "request": request_schema(manifest),
        "response": record_schema([field.field for field in manifest.answers]),
        "examples": [manifest.example],
        "limits": {"body_bytes": manifest.limits.body_bytes, "timeout_s": manifest.limits.timeout_s},
    }


def metadata(manifest: Manifest) -> bytes:
    """The body of GET /v2/models/F."""
    codec = OipCodec(
        request=manifest.request,
        response=[field.field for field in manifest.answers],
        function=manifest.function,
        version=manifest.model.version,
    )
    return codec.metadata()


def request_schema(manifest: Manifest) -> dict[str, Any]:
    """The JSON Schema of one record that callers send."""
    made = record_schema(manifest.request)
    if manifest.image is not None:
        made["properties"][manifest.image.field] = _IMAGE
    return made


def record_schema(fields: Sequence[Field]) -> dict[str, Any]:
    """The JSON Schema of one record."""
    return {
        "type": "object",
        "properties": {field.name: schema(field) for field in fields},
        "required": [field.name for field in fields if not field.optional],
        "additionalProperties": False,
    }


def schema(field: Field) -> dict[str, Any]:
    """The JSON Schema of one field's value."""
    value: dict[str, Any] = _SCALARS[field.dtype.removesuffix("[]")]
    shape = field.shape or ((-1,) if field.dtype.endswith("[]") else ())
    for size in reversed(shape):
        value = {"type": "array", "items": value, **({"minItems": size, "maxItems": size} if size >= 0 else {})}
    return value
