"""What a function takes and gives, for people and programs: its description, its OIP metadata, OpenAPI 3.1."""

from collections.abc import Sequence
from typing import Any, Final

from sunup import __version__
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
_TEXT: Final = {"type": "string"}
_NAMES: Final = {"type": "array", "items": _TEXT}
_ERROR: Final = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {"code": _TEXT, "message": _TEXT, "field": _TEXT, "hint": _TEXT},
            "required": ["code", "message"],
        }
    },
    "required": ["error"],
}
_FAILURES: Final = {
    "400": "The body cannot be read as the function's fields.",
    "413": "The body, or the number of records, is over the limit.",
    "415": "The content type is not JSON.",
    "503": "Not now: try again after Retry-After seconds.",
}


def describe(manifest: Manifest, revision: int, state: str) -> dict[str, Any]:
    """The body of GET /functions/F."""
    return {
        "function": manifest.function,
        "revision": revision,
        "model": f"{manifest.model.name}/{manifest.model.version}",
        "state": state,
        "request": record_schema(manifest.request),
        "response": record_schema([field.field for field in manifest.response]),
        "examples": [manifest.example],
        "limits": {"body_bytes": manifest.limits.body_bytes, "timeout_s": manifest.limits.timeout_s},
    }


def metadata(manifest: Manifest) -> bytes:
    """The body of GET /v2/models/F."""
    codec = OipCodec(
        request=manifest.request,
        response=[field.field for field in manifest.response],
        function=manifest.function,
        version=manifest.model.version,
    )
    return codec.metadata()


def record_schema(fields: Sequence[Field]) -> dict[str, Any]:
    """The JSON Schema of one record."""
    return {
        "type": "object",
        "properties": {field.name: _schema(field) for field in fields},
        "required": [field.name for field in fields],
        "additionalProperties": False,
    }


def openapi(manifests: Sequence[Manifest]) -> dict[str, Any]:
    """An OpenAPI 3.1 document of the native calls of these functions."""
    paths: dict[str, Any] = {"/functions": {"get": _get("List the functions")}}
    schemas: dict[str, Any] = {"Error": _ERROR}
    for manifest in manifests:
        name = manifest.function
        schemas[f"{name}.request"] = record_schema(manifest.request)
        schemas[f"{name}.response"] = _prediction_schema(manifest)
        paths[f"/functions/{name}"] = {"get": _get(f"Describe {name}"), "post": _post(manifest)}
        paths[f"/functions/{name}/ready"] = {"get": _get(f"Whether {name} is ready")}
    info = {"title": "Sunup", "version": __version__}
    return {"openapi": "3.1.0", "info": info, "paths": paths, "components": {"schemas": schemas}}


def _schema(field: Field) -> dict[str, Any]:
    schema: dict[str, Any] = _SCALARS[field.dtype.removesuffix("[]")]
    shape = field.shape or ((-1,) if field.dtype.endswith("[]") else ())
    for size in reversed(shape):
        schema = {"type": "array", "items": schema, **({"minItems": size, "maxItems": size} if size >= 0 else {})}
    return schema


def _prediction_schema(manifest: Manifest) -> dict[str, Any]:
    """A record's answer: the response fields, or why there are none; and which features took their default."""
    fields = [field.field for field in manifest.response]
    properties = {field.name: _schema(field) for field in fields}
    notes = {"defaulted": _NAMES, "stale": _NAMES, "error": _ERROR["properties"]["error"]}  # type: ignore[index]
    return {"type": "object", "properties": {**properties, **notes}}


def _get(summary: str) -> dict[str, Any]:
    return {"summary": summary, "responses": {"200": _content("Found", {"type": "object"})}}


def _post(manifest: Manifest) -> dict[str, Any]:
    name = manifest.function
    record = {"$ref": f"#/components/schemas/{name}.request"}
    media = {"schema": {"oneOf": [record, {"type": "array", "items": record}]}, "example": manifest.example}
    reply = {
        "type": "object",
        "properties": {
            "function": _TEXT,
            "revision": {"type": "integer"},
            "model": _TEXT,
            "id": _TEXT,
            "predictions": {"type": "array", "items": {"$ref": f"#/components/schemas/{name}.response"}},
        },
    }
    failures = {code: _content(why, {"$ref": "#/components/schemas/Error"}) for code, why in _FAILURES.items()}
    return {
        "summary": f"Predict with {name}: one record, or several",
        "requestBody": {"required": True, "content": {"application/json": media}},
        "responses": {"200": _content("One prediction per record, in order", reply), **failures},
    }


def _content(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}
