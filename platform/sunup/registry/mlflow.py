"""The MLflow registry, through MLflow's own client: whatever MLflow can reach, works here.

Importing this file imports MLflow, which takes 1-4 s; only what needs a registry does, and then lazily. (For the
default registry, MLflow's SQLite file, sqlite.py gives the same answers in milliseconds.)
"""

import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read at import; MLflow reports its use otherwise
import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from sunup.errors import RegistryError
from sunup.limits import REGISTRY_RETRIES_MAX, REGISTRY_SECONDS_MAX
from sunup.registry.source import Entry, Reference, Resolved, Version, choose, problem
from sunup.settings import TRAINING_SAMPLE, Project

_PAGE: Final = 200  # versions per request
_UNKNOWN: Final = frozenset({"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"})  # no such name, or no possible name
_DENIED: Final = frozenset({"PERMISSION_DENIED", "UNAUTHENTICATED"})


class MlflowSource:
    """A Source over any MLflow tracking address (a server, SQLite, another database). Connects at the first question.

    Sets MLflow's environment variables for time-outs, retries and progress bars where they are not set: MLflow's own
    defaults keep trying an absent server for minutes, and it reads them from nowhere else.
    """

    def __init__(self, tracking_uri: str) -> None:
        self._uri = tracking_uri
        self._client: MlflowClient | None = None

    def __repr__(self) -> str:
        return f"MlflowSource({public(self._uri)!r})"

    def resolve(self, reference: Reference) -> Resolved:
        """See Source."""
        return choose(reference, find=self._find, names=self.models, where=public(self._uri))

    def fetch(self, resolved: Resolved, into: Path) -> Path:
        """Download the model's files to `into`/<name>-<version>."""
        target = into / f"{resolved.name}-{resolved.version}"
        with _explained(self._uri):
            # Not by its models:/ address: MLflow would look that up at the process's address instead of this one.
            files = self._connected().get_model_version_download_uri(resolved.name, resolved.version)
            folder = mlflow.artifacts.download_artifacts(
                artifact_uri=files, dst_path=str(target), tracking_uri=self._uri
            )
        if not (Path(folder) / "MLmodel").is_file():
            raise RegistryError(f"{resolved.name} version {resolved.version} holds no MLmodel file. Register it again.")
        return Path(folder)

    def models(self) -> list[str]:
        """See Source. A SQLite registry whose file does not exist yet holds no models (and is not made)."""
        if not self._exists():
            return []
        with _explained(self._uri):
            names: list[str] = []
            token: str | None = None
            while True:
                page = self._connected().search_registered_models(max_results=_PAGE, page_token=token)
                names += [model.name for model in page]
                token = page.token
                if not token:
                    return sorted(names)

    def _find(self, name: str) -> Entry | None:
        quote = '"' if "'" in name else "'"
        if not self._exists() or quote in name:
            return None
        with _explained(self._uri):
            try:
                model = self._connected().get_registered_model(name)
            except MlflowException as error:
                if error.error_code in _UNKNOWN:
                    return None
                raise
            aliases = {alias: str(version) for alias, version in dict(model.aliases).items()}
            return Entry(name, dict(self._versions(f"name={quote}{name}{quote}")), aliases)

    def _versions(self, condition: str) -> Iterator[tuple[str, Version]]:
        token: str | None = None
        while True:
            page = self._connected().search_model_versions(condition, max_results=_PAGE, page_token=token)
            for found in page:
                why = problem(str(found.status), found.status_message)
                yield str(found.version), Version(found.run_id or "", found.source or "", why)
            token = page.token
            if not token:
                return

    def _exists(self) -> bool:
        """False for a SQLite file that is not there: MLflow would make an empty registry of it, which takes seconds."""
        path = self._uri.removeprefix("sqlite:///") if self._uri.startswith("sqlite:///") else None
        return path is None or Path(path).exists()

    def _connected(self) -> MlflowClient:
        if self._client is None:
            bound_requests()
            self._client = MlflowClient(tracking_uri=self._uri)
        return self._client


def use(project: Project, *, experiment: str = "sunup") -> None:
    """Point MLflow at the project's registry and experiment, for code that trains: log and register as usual after it.

    `MLFLOW_TRACKING_URI` is used unchanged. Without it the registry is SQLite under the project's state folder, with
    artifacts beside it (MLflow's own default would put them into the working folder). Raises RegistryError when the
    registry cannot be reached.
    """
    bound_requests()
    uri = project.tracking_uri
    local = "MLFLOW_TRACKING_URI" not in os.environ
    if local:
        project.artifacts.mkdir(parents=True, exist_ok=True)
    with _explained(uri):
        mlflow.set_tracking_uri(uri)
        if mlflow.get_experiment_by_name(experiment) is None:
            mlflow.create_experiment(experiment, artifact_location=project.artifacts.as_uri() if local else None)
        mlflow.set_experiment(experiment)


def log_sample(model_id: str, rows: Any) -> None:
    """Put `rows` beside a logged model as what it was trained on. `model_id`: of what `log_model` returned.

    `rows`: a pandas DataFrame of the model's input columns, drawn at random from the training set as the model saw it,
    missing features replaced. Bundles get counts and quantiles of it, which serving can be compared with.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / TRAINING_SAMPLE
        rows.to_parquet(path, index=False)
        MlflowClient().log_model_artifact(model_id, str(path))


def bound_requests() -> None:
    """Bound MLflow's requests in time and keep its downloads quiet, where the environment does not say otherwise."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(REGISTRY_SECONDS_MAX))
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", str(REGISTRY_RETRIES_MAX))
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


def public(uri: str) -> str:
    """`uri` without a user name and password."""
    parts = urlsplit(uri)
    if parts.hostname is None or "@" not in parts.netloc:
        return uri
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    """Every way a registry can fail, as one error that says where it is and what to do."""
    try:
        with warnings.catch_warnings():
            # MLflow 3.17's tables under SQLAlchemy 2.1: MLflow's to mend, and nothing here may print.
            warnings.filterwarnings("ignore", message="The ``noload`` loader strategy is deprecated")
            yield
    except MlflowException as error:
        if error.error_code in _DENIED:
            raise RegistryError(
                f"The model registry at {public(uri)} refuses access. Set MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN."
            ) from error
        raise RegistryError(_unreachable(uri, error)) from error
    except (OSError, SQLAlchemyError) as error:
        raise RegistryError(_unreachable(uri, error)) from error


def _unreachable(uri: str, error: BaseException) -> str:
    """What happened, from the innermost cause: "Connection refused" rather than the six layers around it."""
    cause = error
    while cause.__cause__ is not None or cause.__context__ is not None:
        cause = cause.__cause__ or cause.__context__ or cause
    reason = " ".join((str(cause) or repr(cause)).split())[:300]
    secret = urlsplit(uri).netloc.rpartition("@")[0]
    if secret:
        reason = reason.replace(f"{secret}@", "")
    return (
        f"The model registry at {public(uri)} does not answer: {reason}. Start it, or set MLFLOW_TRACKING_URI to where "
        "it is (unset: SQLite under .sunup/)."
    )
