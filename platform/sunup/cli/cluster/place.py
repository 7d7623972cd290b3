"""Where functions are: on this machine, or in a namespace of a cluster. The options that say it, and the engine
there."""

import functools
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import click

from sunup.bundle.store import Store
from sunup.errors import CommandError, UsageError
from sunup.limits import ROLLOUT_SECONDS_MAX
from sunup.settings import Project

if TYPE_CHECKING:
    from sunup.engine.kubernetes.engine import KubernetesEngine

KUBERNETES: Final = "kubernetes"

Command = TypeVar("Command", bound=Callable[..., Any])


class Place(NamedTuple):
    """`engine`: local or kubernetes; `namespace`, `context`: of the cluster, None for those of the kubeconfig."""

    engine: str
    namespace: str | None
    context: str | None

    @property
    def is_cluster(self) -> bool:
        """Whether functions are on a cluster."""
        return self.engine == KUBERNETES

    def options(self) -> str:
        """The options that name this place again, for command lines that are shown."""
        said = f" --engine {self.engine}" if self.is_cluster else ""
        said += f" --namespace {self.namespace}" if self.namespace else ""
        return said + (f" --context {self.context}" if self.context else "")


class Wishes(NamedTuple):
    """How a deploy to a cluster is to be done: see the options."""

    registry: str = ""
    runtime: str = ""
    canary: int | None = None
    dry_run: bool = False
    force: bool = False
    wait_s: float = ROLLOUT_SECONDS_MAX
    pull_secrets: tuple[str, ...] = ()
    keys_secret: str = ""


def placing(command: Command) -> Command:
    """The options --engine, --namespace and --context (as `place`)."""

    @functools.wraps(command)
    def placed(*args: Any, engine: str, namespace: str | None, context: str | None, **more: Any) -> Any:
        place = Place(engine, namespace, context)
        if not place.is_cluster and context is not None:
            raise UsageError(f"--context names a cluster: add --engine {KUBERNETES}.")
        return command(*args, place=place, **more)

    engines = click.Choice(["local", KUBERNETES])
    made: Any = placed
    for flag, metavar, more in (
        ("--context", "C", {"help": "Which cluster of the kubeconfig. [default: its current one]"}),
        ("--namespace", "N", {"help": "Where in the cluster. [default: the context's]"}),
        ("--engine", None, {"help": "Where functions run.", "type": engines, "default": "local", "show_default": True}),
    ):
        variable = f"SUNUP_{flag[2:].upper()}"
        made = click.option(flag, metavar=metavar, envvar=variable, **more)(made)
    placed_command: Command = made
    return placed_command


def delivering(command: Command) -> Command:
    """The options of a deploy to a cluster (as `wishes`)."""

    @functools.wraps(command)
    def delivered(*args: Any, **given: Any) -> Any:
        values = {name: given.pop(name) for name in Wishes._fields}
        return command(*args, wishes=Wishes(**values), **given)

    wait: Any = {"metavar": "S", "default": ROLLOUT_SECONDS_MAX, "type": click.FloatRange(1), "help": "to get ready."}
    made: Any = delivered
    for name, flag, more in (
        ("keys_secret", "--keys-secret", _text("a Secret with the key file of callers, keys.jsonl.")),
        ("pull_secrets", "--pull-secret", {**_text("a Secret to fetch images with."), "default": (), "multiple": True}),
        ("wait_s", "--wait", wait),
        ("force", "--force", {"is_flag": True, "help": "take over fields that others have changed."}),
        ("dry_run", "--dry-run", {"is_flag": True, "help": "print what would be applied, and what would change."}),
        ("canary", "--canary", {"metavar": "N", "type": click.IntRange(1, 99), "help": "N % of the calls, no more."}),
        ("runtime", "--runtime-image", _text("what workers run.", "SUNUP_RUNTIME_IMAGE")),
        ("registry", "--registry", _text("where its nodes fetch images.", "SUNUP_REGISTRY")),
    ):
        made = click.option(flag, name, **{**more, "help": f"On a cluster: {more['help']}"})(made)
    delivered_command: Command = made
    return delivered_command


def cluster_engine(project: Project, place: Place, wishes: Wishes | None = None, **more: Any) -> "KubernetesEngine":
    """The engine of a cluster. `more`: partitions and begin_stream, for a deploy."""
    if find_spec("kubernetes") is None:
        raise CommandError("The Kubernetes client is not installed. Install it: pip install 'sunup[kubernetes]'.")
    # Import the Kubernetes client: 1 to 2 s that the local engine does not need.
    from sunup.engine.kubernetes.cluster.cluster import Cluster
    from sunup.engine.kubernetes.deploying.rolling import Manner  # as above
    from sunup.engine.kubernetes.engine import KubernetesEngine  # as above
    from sunup.engine.kubernetes.order import Delivery  # as above

    said = wishes or Wishes()
    partitions = more.get("partitions")
    delivery = Delivery(said.registry, said.runtime, partitions, said.pull_secrets, said.keys_secret)
    manner = Manner(said.canary, said.wait_s, said.force, more.get("begin_stream", _nothing))
    cluster = Cluster(place.context, place.namespace)
    return KubernetesEngine(cluster, Store(project.bundles), delivery, manner)


def _nothing() -> None:
    return None


def _text(said: str, variable: str | None = None) -> dict[str, Any]:
    return {"metavar": "NAME", "default": "", "envvar": variable, "help": said}
