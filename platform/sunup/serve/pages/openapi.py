"""OpenAPI 3.1 of every way to call the functions there are, with examples that can be sent as they are."""

import csv
import io
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from sunup import __version__
from sunup.bundle.manifest import Manifest
from sunup.serve.describe import IMAGE_TYPES, request_schema, schema
from sunup.types import Field

_TEXT: Final = {"type": "string"}
_NAMES: Final = {"type": "array", "items": _TEXT}
_OBJECT: Final = {"type": "object"}
_REFUSAL: Final = {
    "type": "object",
    "properties": {"code": _TEXT, "message": _TEXT, "field": _TEXT, "hint": _TEXT},
    "required": ["code", "message"],
}
_SCHEMAS: Final = {
    "Error": {"type": "object", "properties": {"error": _REFUSAL}, "required": ["error"]},
    "ErrorText": {"type": "object", "properties": {"error": _TEXT}, "required": ["error"]},
    "ErrorMlflow": {"type": "object", "properties": {"error_code": _TEXT, "message": _TEXT}},
    "Tensor": {
        "type": "object",
        "properties": {
            "name": _TEXT,
            "shape": {"type": "array", "items": {"type": "integer"}},
            "datatype": _TEXT,
            "parameters": _OBJECT,
            "data": {"type": "array"},
        },
        "required": ["name", "shape", "datatype"],
    },
}
_FAILURES: Final = {
    "400": "The body cannot be read as the function's fields.",
    "413": "The body, or the number of records, is over the limit.",
    "415": "The content type or content encoding is none that is read here.",
    "503": "Not now: try again after Retry-After seconds.",
}


def openapi(manifests: Sequence[Manifest]) -> dict[str, Any]:
    """The document of these functions, in every protocol."""
    paths: dict[str, Any] = {
        "/functions": {"get": _get("List the functions", "Functions")},
        "/v2": {"get": _get("Server metadata", "Server")},
        "/v2/health/live": {"get": _get("Whether the server lives", "Server")},
        "/v2/health/ready": {"get": _get("Whether the server is ready", "Server")},
        "/v2/models": {"get": _get("List the models", "Server")},
        "/v2/models/stats": {"get": _get("Statistics of every model", "Server")},
        "/v2/repository/index": {"post": _get("The models, with their state", "Server")},
        "/v1/models": {"get": _get("List the models", "Server")},
    }
    schemas: dict[str, Any] = dict(_SCHEMAS)
    for manifest in manifests:
        schemas[f"{manifest.function}.request"] = request_schema(manifest)
        schemas[f"{manifest.function}.response"] = _prediction_schema(manifest)
        paths |= _pages(manifest) | _calls(manifest)
    info = {"title": "Sunup", "version": __version__}
    return {"openapi": "3.1.0", "info": info, "paths": paths, "components": {"schemas": schemas}}


def _pages(manifest: Manifest) -> dict[str, Any]:
    """What needs no model."""
    name = manifest.function
    v2, pages = f"/v2/models/{name}", f"/functions/{name}"
    told = {
        f"{pages}/ready": f"Whether {name} is ready",
        f"{pages}/ping": f"Whether {name} is ready, as MLflow and SageMaker ask",
        f"{pages}/health": f"Whether {name} is ready, as MLflow asks",
        f"{pages}/version": "The version of Sunup",
        v2: f"Metadata of {name}",
        f"{v2}/ready": f"Whether {name} is ready",
        f"{v2}/stats": f"Statistics of {name}",
        f"/v1/models/{name}": f"Whether {name} is ready",
    }
    return {path: {"get": _get(summary, name)} for path, summary in told.items()}


def _calls(manifest: Manifest) -> dict[str, Any]:
    """The predictions of one function."""
    name, version = manifest.function, manifest.model.version
    infer = _infer(manifest)
    return {
        f"/functions/{name}": {"get": _get(f"Describe {name}", name), "post": _native(manifest)},
        f"/functions/{name}/invocations": {"post": _invocations(manifest)},
        f"/v2/models/{name}/infer": {"post": infer},
        f"/v2/models/{name}/versions/{version}/infer": {"post": infer},
        f"/v1/models/{name}:predict": {"post": _predict(manifest)},
    }


def _native(manifest: Manifest) -> dict[str, Any]:
    name = manifest.function
    record = _ref(f"{name}.request")
    reply = _object(
        function=_TEXT, revision={"type": "integer"}, model=_TEXT, id=_TEXT, predictions=_list(_ref(f"{name}.response"))
    )
    examples = {"one": _example(manifest), "several": [_example(manifest)]}
    bodies: dict[str, Any] = {"application/json": _media({"oneOf": [record, _list(record)]}, examples)}
    if manifest.image is not None and len(manifest.request) == 1:
        bodies |= {kind: {"schema": {"contentMediaType": kind}} for kind in IMAGE_TYPES}
    return _post(f"Predict with {name}: one record, or several", name, bodies, reply, "Error")


def _infer(manifest: Manifest) -> dict[str, Any]:
    example = {"inputs": [_tensor(field, _example(manifest)[field.name]) for field in manifest.request]}
    asked = _object(id=_TEXT, parameters=_OBJECT, inputs=_list(_ref("Tensor")), outputs=_list(_OBJECT))
    reply = _object(model_name=_TEXT, model_version=_TEXT, id=_TEXT, outputs=_list(_ref("Tensor")))
    body = {"application/json": _media(asked, {"one": example})}
    summary = f"Predict with {manifest.function} (Open Inference Protocol v2)"
    return _post(summary, manifest.function, body, reply, "ErrorText")


def _predict(manifest: Manifest) -> dict[str, Any]:
    example = _example(manifest)
    rows = [[example[field.name] for field in manifest.request]]
    examples = {"records": {"instances": [example]}, "rows": {"instances": rows}}
    body = {"application/json": _media(_object(instances={"type": "array"}, inputs={}), examples)}
    summary = f"Predict with {manifest.function} (KServe v1)"
    return _post(summary, manifest.function, body, _predictions(), "ErrorText")


def _invocations(manifest: Manifest) -> dict[str, Any]:
    example = _example(manifest)
    names = [field.name for field in manifest.request]
    row = [example[name] for name in names]
    examples: dict[str, Any] = {
        "dataframe_split": {"dataframe_split": {"columns": names, "data": [row]}},
        "dataframe_records": {"dataframe_records": [example]},
        "instances": {"instances": [example]},
        "inputs": {"inputs": {name: [example[name]] for name in names}},
    }
    shapes = _object(dataframe_split=_OBJECT, dataframe_records=_list(_OBJECT), instances={"type": "array"}, inputs={})
    body = {"application/json": _media(shapes, examples)}
    if not any(field.dtype.endswith("[]") for field in manifest.request):
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([names, row])
        body["text/csv"] = _media(_TEXT, {"one": text.getvalue()})
    summary = f"Predict with {manifest.function} (MLflow)"
    return _post(summary, manifest.function, body, _predictions(), "ErrorMlflow")


# --- Pieces -----------------------------------------------------------------------------------------------------------


def _example(manifest: Manifest) -> dict[str, Any]:
    example: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(manifest.example))
    return example


def _tensor(field: Field, value: Any) -> dict[str, Any]:
    is_list = field.dtype.endswith("[]")
    shape = [1, len(value)] if is_list else [1]
    tensor: dict[str, Any] = {"name": field.name, "shape": shape, "datatype": field.datatype}
    if field.dtype.startswith("bytes"):
        tensor["parameters"] = {"content_type": "base64"}
    return {**tensor, "data": value if is_list else [value]}


def _prediction_schema(manifest: Manifest) -> dict[str, Any]:
    """A record's answer: the response fields, or why there are none; and which features took their default."""
    properties = {field.name: schema(field.field) for field in manifest.answers}
    return {"type": "object", "properties": {**properties, "defaulted": _NAMES, "stale": _NAMES, "error": _REFUSAL}}


def _predictions() -> dict[str, Any]:
    return _object(predictions={"type": "array"}, defaulted=_NAMES, stale=_NAMES)


def _get(summary: str, tag: str) -> dict[str, Any]:
    return {"summary": summary, "tags": [tag], "responses": {"200": _content("Found", _OBJECT)}}


def _post(summary: str, tag: str, body: dict[str, Any], reply: dict[str, Any], error: str) -> dict[str, Any]:
    failures = {code: _content(why, _ref(error)) for code, why in _FAILURES.items()}
    return {
        "summary": summary,
        "tags": [tag],
        "requestBody": {"required": True, "content": body},
        "responses": {"200": _content("One prediction per record, in order", reply), **failures},
    }


def _media(schema: dict[str, Any], examples: dict[str, Any]) -> dict[str, Any]:
    return {"schema": schema, "examples": {name: {"value": value} for name, value in examples.items()}}


def _content(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}
