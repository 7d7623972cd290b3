"""The one error tree. Every error carries an HTTP status, a stable code, a public message and whether a retry helps.

Two branches: `CallError` reaches a caller of a function over the wire; `CommandError` reaches a person at the
command line. Internal detail belongs in the log, never in `message`.
"""

from collections.abc import Iterable


class SunupError(Exception):
    """Any failure Sunup explains. `message` is public and says what to do next where it can."""

    status = 500
    code = "internal"
    retry = False

    def __init__(self, message: str, *, field: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.hint = hint


class CallError(SunupError):
    """A prediction call that cannot be answered. `retry_after_s` is sent as Retry-After when `retry` is true."""

    retry_after_s = 1


class BadRequest(CallError):
    """The body cannot be decoded into the function's request fields."""

    status = 400
    code = "bad_request"

    def __init__(
        self, message: str, *, code: str = "bad_request", field: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, field=field, hint=hint)
        self.code = code


class Unauthorized(CallError):
    """No key was given, or none that is known."""

    status = 401
    code = "unauthorized"


class Forbidden(CallError):
    """The key does not cover what was asked for."""

    status = 403
    code = "forbidden"


class UnknownFunction(CallError):
    """No such function, version or route."""

    status = 404
    code = "not_found"


class MethodNotAllowed(CallError):
    """The route exists under another method."""

    status = 405
    code = "method_not_allowed"


class BodyTimeout(CallError):
    """The head or body did not arrive within its deadline."""

    status = 408
    code = "request_timeout"


class TooLarge(CallError):
    """The body, or the number of records in it, is over the function's limit."""

    status = 413
    code = "too_large"


class UnsupportedMedia(CallError):
    """The content type is none this route reads."""

    status = 415
    code = "unsupported_media_type"


class Misdirected(CallError):
    """The request is addressed to a host this server is not."""

    status = 421
    code = "wrong_host"


class HeadTooLarge(CallError):
    """The request head is over the limit."""

    status = 431
    code = "head_too_large"


class ExecutionFailed(CallError):
    """The model run itself failed; the reason is in the log under the request id."""

    status = 500
    code = "execution_failed"


class WorkerDied(ExecutionFailed):
    """The process ended while it scored this record, and again when it scored it alone."""

    code = "worker_died"


class HandlerFailed(ExecutionFailed):
    """The function's own code, handler.py, failed; the reason is in the log under the request id."""

    code = "handler_failed"


class FeaturesFailed(ExecutionFailed):
    """The code of on-demand feature view `view` failed; the reason is its `__cause__`, and in the log."""

    code = "features_failed"

    def __init__(self, message: str, *, view: str) -> None:
        super().__init__(message)
        self.view = view


class Unavailable(CallError):
    """Not now: queue full, worker lost, store down and the function rejects on missing features."""

    status = 503
    code = "unavailable"
    retry = True


class Overloaded(Unavailable):
    """A bounded queue is full, or the predicted wait is beyond the deadline."""

    code = "overloaded"


class DeadlineExceeded(Unavailable):
    """The call could not be answered within the function's time limit."""

    code = "deadline_exceeded"


class FeaturesMissing(Unavailable):
    """Features are missing or stale and the function says `on_missing = "reject"`."""

    code = "features_missing"


class FeaturesUnread(FeaturesMissing):
    """The same, because the store did not answer: it will, and then nothing may be missing."""

    def __init__(self, message: str) -> None:
        super().__init__(message, hint="The feature store does not answer.")


class SchemasUnavailable(Unavailable):
    """The registry that has a record's schema does not answer, or not as one."""

    code = "schema_registry"


_MLFLOW_CODES = {401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "RESOURCE_DOES_NOT_EXIST"}


def mlflow_code(status: int) -> str:
    """The `error_code` that MLflow's scoring server gives for an HTTP status (mlflow.protos.databricks_pb2)."""
    if status == 503:
        return "TEMPORARILY_UNAVAILABLE"
    if status in _MLFLOW_CODES:
        return _MLFLOW_CODES[status]
    return "INTERNAL_ERROR" if status >= 500 else "BAD_REQUEST"


class CommandError(SunupError):
    """A command that cannot be done. `exit_code` 1: failed, 2: usage. `message`: one paragraph that says what to do."""

    exit_code = 1
    status = 500


class UsageError(CommandError):
    """The command line, a name or function.toml is wrong."""

    exit_code = 2
    status = 400
    code = "usage"


class RegistryError(CommandError):
    """The model registry cannot be reached or does not answer."""

    code = "registry"


class ConversionRefused(CommandError):
    """The model cannot be converted, or its dependencies do not fit."""

    code = "conversion_refused"


class ParityFailed(CommandError):
    """The converted model does not give the original's answers."""

    code = "parity_failed"


class FeaturesRefused(CommandError):
    """The feature service does not exist or needs what a worker cannot do."""

    code = "features_refused"


class BundleDamaged(CommandError):
    """A file of a bundle is missing or does not match its digest."""

    code = "bundle_damaged"


class ProofFailed(CommandError):
    """A new revision's self-proof on this machine failed; the old revision keeps serving."""

    code = "proof_failed"


class EngineError(CommandError):
    """The engine cannot be started, reached, or refuses the operation."""

    code = "engine"


class ClusterError(EngineError):
    """A Kubernetes cluster cannot be reached, refuses, or does not get a function ready. `code` says which."""

    code = "cluster"


class ObjectsRefused(CommandError):
    """Objects that Kubernetes, Knative or KEDA would refuse, or take and not do. `findings`: a sentence for each."""

    code = "objects_refused"

    def __init__(self, findings: Iterable[str]) -> None:
        self.findings = tuple(findings)
        super().__init__(" ".join(self.findings))


class ImageError(CommandError):
    """A container image cannot be made, read or pushed."""

    code = "image"
