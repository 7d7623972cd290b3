"""The way to a cluster: a kubeconfig, or inside a pod its ServiceAccount."""

import os
from pathlib import Path
from typing import Final, NamedTuple

from kubernetes.client import ApiClient, Configuration
from kubernetes.config import incluster_config, kube_config
from kubernetes.config.config_exception import ConfigException
from yaml import YAMLError

from sunup.errors import ClusterError

_KUBECONFIG: Final = "~/.kube/config"
_IN_POD: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class Connection(NamedTuple):
    """`api`: the client, authenticated; `context`: what the kubeconfig calls it ("in-cluster" in a pod); `namespace`:
    the one to use where none is named; `server`: the API's address."""

    api: ApiClient
    context: str
    namespace: str
    server: str


def connect(context: str | None, namespace: str | None) -> Connection:
    """Read where the cluster is and how it lets us in; nothing is asked of it yet.

    KUBECONFIG, else ~/.kube/config; in a pod without either, its ServiceAccount. Raises ClusterError without any, or
    for a context that is not there.
    """
    configuration = Configuration()
    paths = os.environ.get("KUBECONFIG") or _KUBECONFIG
    there = any(Path(path).expanduser().is_file() for path in paths.split(os.pathsep))
    try:
        if not there and context is None and os.environ.get("KUBERNETES_SERVICE_HOST"):
            incluster_config.load_incluster_config(client_configuration=configuration)
            found, its = "in-cluster", _IN_POD.read_text().strip()
        else:
            if not there:
                raise ClusterError(
                    f"There is no kubeconfig: {paths} is not there. Set KUBECONFIG to the file that says where the "
                    "cluster is, or make it with your provider's command (docs/kubernetes.md names them)."
                )
            found, its = _context(paths, context)
            kube_config.load_kube_config(
                config_file=paths, context=found, client_configuration=configuration, persist_config=False
            )
    except (ConfigException, YAMLError, OSError) as error:
        raise ClusterError(f"The kubeconfig {paths} cannot be used: {error}") from error
    configuration.retries = 0  # the Cluster tries again, for as long as it may
    return Connection(ApiClient(configuration), found, namespace or its or "default", configuration.host)


def _context(paths: str, wanted: str | None) -> tuple[str, str]:
    """The context to use and its namespace ("" where it names none)."""
    contexts, current = kube_config.list_kube_config_contexts(paths)
    by_name = {one["name"]: one for one in contexts}
    name = wanted or (current or {}).get("name", "")
    if name not in by_name:
        there = ", ".join(sorted(by_name)) or "none"
        said = f"has no context {wanted!r}" if wanted else "names no current context"
        raise ClusterError(f"The kubeconfig {paths} {said}. Give --context one of: {there}.")
    return name, by_name[name]["context"].get("namespace", "")
