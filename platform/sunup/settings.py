"""Where things are: the project folder, the state folder inside it, and what the environment says."""

import os
from dataclasses import dataclass
from pathlib import Path

from sunup.errors import UsageError
from sunup.limits import SOCKET_PATH_BYTES_MAX

STATE = ".sunup"
EMBEDDED_LOG = "log.db"
AGGREGATES = "aggregates"
FEATURES_URL = "features_url"  # the setting of a revision that says where its online store is
STREAM_BROKER = "stream_broker"  # the setting of a revision that says where its topics are: host:port,... or EMBEDDED
STREAM_SECURITY = "stream_security"  # the same: how Kafka lets its workers in, a stream.kafka.security.Security as JSON
SCHEMA_REGISTRY = "schema_registry"  # the same: where schemas of records are, a wire.confluent.registry.Address as JSON
EMBEDDED = "embedded"
STREAM_CLIENT = "stream_client"  # the setting that says what speaks to Kafka: KAFKA_PYTHON (also without it), CONFLUENT
KAFKA_PYTHON = "kafka-python"
CONFLUENT = "confluent-kafka"
KAFKA_CLIENT = "SUNUP_KAFKA_CLIENT"  # environment variable: which of the two a deploy chooses, whatever is installed
TAKES = "takes"  # the setting of a revision whose workers need more than others: PICTURES
PICTURES = "pictures"
TRAINING_SAMPLE = "training.parquet"  # beside MLmodel, if logged: rows drawn from those the model was trained on
REGISTRY = "SUNUP_REGISTRY"  # environment variable: where images are pushed, as --registry says it
API_KEY = "SUNUP_API_KEY"  # environment variable: the key `platform call` sends; no process of an engine gets it


class Settings(dict[str, str]):
    """What the workers of a revision get at birth. It may hold passwords: only its names are shown."""

    def __repr__(self) -> str:
        return f"Settings({', '.join(self)})"


@dataclass(frozen=True, slots=True)
class Project:
    """A project folder: the nearest parent that holds `functions/` or `.sunup/`."""

    root: Path

    @property
    def functions(self) -> Path:
        return self.root / "functions"

    @property
    def features(self) -> Path:
        return self.root / "features"

    @property
    def state(self) -> Path:
        return self.root / STATE

    @property
    def bundles(self) -> Path:
        return self.state / "bundles"

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def embedded_log(self) -> Path:
        """The topics of functions whose stream says `embedded`: one SQLite file."""
        return self.state / EMBEDDED_LOG

    @property
    def aggregates(self) -> Path:
        """The tiles of stream feature views: a folder per function, a SQLite file per partition."""
        return self.state / AGGREGATES

    @property
    def served(self) -> Path:
        """What the recorder notes while it moves rows of the served-feature log; mode 0700."""
        return self.state / "served"

    @property
    def spool(self) -> Path:
        """Rows of the served-feature log that are in no file yet."""
        return self.served / "spool"

    @property
    def keys(self) -> Path:
        """The key file of `platform keys`, where no other one is named."""
        return self.state / "keys.jsonl"

    @property
    def rules(self) -> Path:
        """What the last `platform up` said about who may call, for engines that other commands start."""
        return self.state / "rules.json"

    @property
    def run(self) -> Path:
        """Sockets and counters of living processes; mode 0700."""
        return self.state / "run"

    @property
    def tracking_uri(self) -> str:
        """MLflow's tracking and registry address: `MLFLOW_TRACKING_URI`, else SQLite under the state folder."""
        return os.environ.get("MLFLOW_TRACKING_URI") or self.own_registry

    @property
    def own_registry(self) -> str:
        """The registry's address where the environment names none."""
        return f"sqlite:///{self.state / 'mlflow' / 'mlflow.db'}"

    @property
    def artifacts(self) -> Path:
        """Where the default registry keeps artifacts (MLflow's own default would litter the working folder)."""
        return self.state / "mlflow" / "artifacts"


def find_project(start: Path, explicit: Path | None = None) -> Project:
    """The project around `start`, or `explicit`. A folder with neither marker becomes a project itself.

    Raises UsageError when an explicit folder does not exist or its path is too long for Unix sockets.
    """
    if explicit is not None and not explicit.is_dir():
        raise UsageError(f"{explicit} is not a folder. Give --project the folder that holds functions/.")
    here = (explicit or start).resolve()
    root = here
    if explicit is None:
        root = next((p for p in (here, *here.parents) if (p / "functions").is_dir() or (p / STATE).is_dir()), here)
    project = Project(root)
    if len(os.fsencode(project.run / "worker-000000000000.sock")) > SOCKET_PATH_BYTES_MAX:
        raise UsageError(f"The path {root} is too long for Unix sockets. Move the project to a shorter path.")
    return project
