"""The body of an error that no codec made: its shape follows the protocol that the request's target belongs to."""

from typing import Any

from sunup.errors import CallError, mlflow_code


def shaped(target: bytes, error: CallError) -> dict[str, Any]:
    """What is encoded as JSON. `target`: the request target as sent, or b"" where it was not read.

    Open Inference Protocol and KServe v1: `{"error": message}`; MLflow: `{"error_code", "message"}`; everything else is
    native: `{"error": {"code", "message", "field"?, "hint"?}}`.
    """
    message = f"{error.message}; {error.hint}" if error.hint else error.message
    if target.startswith((b"/v1", b"/v2")):
        return {"error": message}
    if target.partition(b"?")[0].endswith(b"/invocations"):
        return {"error_code": mlflow_code(error.status), "message": message}
    said = {"code": error.code, "message": error.message, "field": error.field, "hint": error.hint}
    return {"error": {name: value for name, value in said.items() if value is not None}}
