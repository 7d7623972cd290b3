"""One command's hold on a function's Service: what it changes, nobody else has changed meanwhile.

The API gives every change of a spec another generation. A command that finds one it did not make was overtaken: another
one is at work, and wins.
"""

from typing import Any

from sunup.engine.kubernetes.cluster.cluster import Cluster, Object
from sunup.engine.kubernetes.rollout.objects import is_ours
from sunup.errors import ClusterError
from sunup.limits import CLUSTER_CHANGES_MAX

SERVICE = "Service"


class Turn:
    """`before`: the Service as it was when the command looked; None where there was none."""

    def __init__(self, cluster: Cluster, function: str, *, force: bool = False) -> None:
        self._cluster = cluster
        self._function = function
        self._force = force
        self.before: Object | None = cluster.get(SERVICE, function)
        self._generation = _generation(self.before)
        self._spec: dict[str, Any] = (self.before or {}).get("spec", {})
        if self.before is not None and not is_ours(self.before):
            raise ClusterError(
                f"There is a Service {function} in namespace {cluster.namespace} that Sunup did not make. Deploy to "
                "another --namespace, or delete it first."
            )

    def __repr__(self) -> str:
        return f"Turn({self._function}, generation {self._generation})"

    def apply(self, wanted: Object) -> Object:
        """Apply the Service if nobody else has changed it. Raises ClusterError `overtaken` otherwise."""
        for _ in range(CLUSTER_CHANGES_MAX):
            now = self._cluster.get(SERVICE, self._function)
            if self._generation:
                self._check(now)
            elif now is not None:
                raise _overtaken(self._function, "deploys it for the first time")
            metadata = dict(wanted["metadata"])
            if now is not None:
                metadata["resourceVersion"] = now["metadata"]["resourceVersion"]
            try:
                made = self._cluster.apply({**wanted, "metadata": metadata}, force=self._force)
            except ClusterError as error:
                if error.code != "cluster_conflict":
                    raise
                continue  # most often Knative wrote a status in between
            self._generation, self._spec = _generation(made), made["spec"]
            return made
        raise ClusterError(
            f"The Service {self._function} changes all the time, so that nothing can be applied. Try again."
        )

    def look(self) -> Object:
        """The Service now. Raises ClusterError `overtaken` when somebody else has changed it."""
        now = self._cluster.get(SERVICE, self._function)
        self._check(now)
        assert now is not None
        return now

    def _check(self, now: Object | None) -> None:
        if now is None:
            raise _overtaken(self._function, "removed it")
        generation = _generation(now)
        if generation == self._generation:
            return
        # Another command of the same contents may have gone a step further: it does what we would do.
        if now["spec"].get("template") != self._spec.get("template"):
            raise _overtaken(self._function, "deploys something else")
        self._generation, self._spec = generation, now["spec"]


def _generation(service: Object | None) -> int:
    return 0 if service is None else int(service["metadata"].get("generation", 0))


def _overtaken(function: str, what: str) -> ClusterError:
    error = ClusterError(
        f"Another command {what} meanwhile: that one wins, and this one ends here without changing {function} further. "
        "`platform status --engine kubernetes` shows what serves."
    )
    error.code = "overtaken"
    return error
