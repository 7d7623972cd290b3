"""One namespace of a cluster: objects read, applied and deleted, the logs of pods.

Every request has an end, and is made again while the API does not answer: all of them may be. Objects are the plain
dicts of the API's JSON.
"""

import http.client
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from kubernetes.client import ApiException
from urllib3.exceptions import HTTPError

from sunup.engine.kubernetes.cluster.connect import Connection, connect
from sunup.engine.kubernetes.cluster.kinds import KINDS, name_of, path_of
from sunup.engine.kubernetes.cluster.refusals import is_retried, refusal
from sunup.errors import ClusterError
from sunup.limits import (
    CLUSTER_AGAIN_SECONDS,
    CLUSTER_AWAY_SECONDS_MAX,
    CLUSTER_KNOCK_SECONDS_MAX,
    CLUSTER_LISTED_MAX,
    CLUSTER_REQUEST_SECONDS_MAX,
)

MANAGER: Final = "sunup"  # who owns the fields of what we apply (server-side apply's field manager)
_APPLY: Final = "application/apply-patch+yaml"  # JSON is YAML
_MERGE: Final = "application/merge-patch+json"

Object = dict[str, Any]
Query = Sequence[tuple[str, str]]


class _Request(NamedTuple):
    """`what`: in words, as in "read Pod fraud-1"; `content`: the type of `body`."""

    method: str
    path: str
    what: str
    query: Query = ()
    body: object = None
    content: str = ""


class Cluster:
    """`context`: of the kubeconfig (None: the current one); `namespace`: None for that of the context.

    Nothing is asked before the first method is called. Every method raises ClusterError.
    """

    def __init__(self, context: str | None, namespace: str | None) -> None:
        self._wanted = context, namespace
        self._connection: Connection | None = None
        self._answered = False

    def __repr__(self) -> str:
        return f"Cluster({self._wanted[0] or 'current context'}, {self._wanted[1] or 'its namespace'})"

    @property
    def namespace(self) -> str:
        """Where objects are read and made."""
        return self._open().namespace

    @property
    def context(self) -> str:
        """What the kubeconfig calls the cluster."""
        return self._open().context

    def get(self, kind: str, name: str, namespace: str | None = None) -> Object | None:
        """One object; None when it, or its kind, is not there. `namespace`: another than the cluster's own."""
        try:
            return self._ask("GET", path_of(kind, namespace or self.namespace, name), f"read {kind} {name}")
        except ClusterError as error:
            if error.status == 404:
                return None
            raise

    def select(self, kind: str, labels: Mapping[str, str] | None = None, fields: str = "") -> list[Object]:
        """The objects with all of `labels` and these `fields` (a field selector); none where the kind is unknown."""
        query = [("limit", str(CLUSTER_LISTED_MAX))]  # a page
        if labels:
            query.append(("labelSelector", ",".join(f"{name}={value}" for name, value in labels.items())))
        if fields:
            query.append(("fieldSelector", fields))
        items: list[Object] = []
        more = ""
        while True:
            page = [*query, ("continue", more)] if more else query
            try:
                found = self._ask("GET", path_of(kind, self.namespace), f"list {KINDS[kind].plural}", page)
            except ClusterError as error:
                if error.status == 404:
                    return []
                raise
            items += [{"kind": kind, **one} for one in found.get("items", ())]
            more = found.get("metadata", {}).get("continue", "")
            if not more:
                return items

    def apply(self, made: Object, *, dry_run: bool = False, force: bool = False) -> Object:
        """Server-side apply; the object as it is then. `force`: take over fields that others have changed.

        With metadata.resourceVersion it is applied only to that very version; else ClusterError `cluster_conflict`.
        """
        query = [("fieldManager", MANAGER), ("force", "true" if force else "false")]
        if dry_run:
            query.append(("dryRun", "All"))
        metadata = {"namespace": self.namespace, **made["metadata"]}
        path = path_of(made["kind"], metadata["namespace"], metadata["name"])
        return self._ask("PATCH", path, f"apply {name_of(made)}", query, {**made, "metadata": metadata}, _APPLY)

    def annotate(self, kind: str, name: str, annotations: Mapping[str, str | None], manager: str) -> Object:
        """Set annotations, or take away those that are None, as another manager than `apply`'s: applying keeps them."""
        body = {"metadata": {"annotations": dict(annotations)}}
        query = [("fieldManager", manager)]
        return self._ask("PATCH", path_of(kind, self.namespace, name), f"annotate {kind} {name}", query, body, _MERGE)

    def delete(self, kind: str, name: str) -> bool:
        """Delete one object and, in the background, what it made; whether it was there."""
        body = {"propagationPolicy": "Background"}
        path = path_of(kind, self.namespace, name)
        try:
            self._ask("DELETE", path, f"delete {kind} {name}", (), body, "application/json")
        except ClusterError as error:
            if error.status == 404:
                return False
            raise
        return True

    def logs(
        self, pod: str, container: str, *, lines: int, follow: bool = False, previous: bool = False
    ) -> Iterator[str]:
        """The last lines of a container's log. `follow`: and those that come; `previous`: of the one that ended before.

        A pod or container that is not there (any more) has none.
        """
        query = [("container", container), ("tailLines", str(lines))]
        query += [("follow", "true")] if follow else []
        query += [("previous", "true")] if previous else []
        path = f"{path_of('Pod', self.namespace, pod)}/log"
        try:
            answer = self._send(_Request("GET", path, f"read the log of pod {pod}", query), follow=follow)
        except ClusterError as error:
            if error.status in (400, 404):  # not started, or gone
                return
            raise
        with closing(answer):
            rest = b""
            try:
                for chunk in answer.stream(65536, decode_content=True):
                    *whole, rest = (rest + chunk).split(b"\n")
                    yield from (line.decode("utf-8", "replace") for line in whole)
            except (HTTPError, http.client.HTTPException, OSError):
                return  # the connection ended with the pod, or with its node
            if rest:
                yield rest.decode("utf-8", "replace")

    def version(self) -> tuple[int, int]:
        """Of Kubernetes: (1, 36)."""
        said = self._ask("GET", "/version", "say its version")
        return int(said["major"]), int("".join(c for c in said["minor"] if c.isdigit()))  # GKE and EKS write "31+"

    def serves(self, kind: str) -> bool:
        """Whether the cluster knows the kind at all, whatever we may do with it."""
        try:
            known = self._ask("GET", KINDS[kind].root, f"say what {KINDS[kind].root} is")
        except ClusterError as error:
            if error.status == 404:
                return False
            raise
        return any(one["name"] == KINDS[kind].plural for one in known.get("resources", ()))

    def _ask(self, *request: Any) -> Object:
        answer = self._send(_Request(*request))
        found: Object = json.loads(answer.data)
        return found

    def _send(self, request: _Request, *, follow: bool = False) -> Any:
        """The answer to a request, unread; asked again while the API is away, for as long as it may be."""
        connection = self._open()
        headers = {"Accept": "application/json", **({"Content-Type": request.content} if request.content else {})}
        began = time.monotonic()
        while True:
            try:
                answer = connection.api.call_api(
                    request.path,
                    request.method,
                    query_params=list(request.query),
                    header_params=headers,
                    body=request.body,
                    auth_settings=["BearerToken"],
                    _preload_content=False,
                    _return_http_data_only=True,
                    _request_timeout=(CLUSTER_KNOCK_SECONDS_MAX, None if follow else CLUSTER_REQUEST_SECONDS_MAX),
                )
            except ApiException as error:
                said = error.body.decode("utf-8", "replace") if isinstance(error.body, bytes) else str(error.body or "")
                refused = refusal(error.status or 0, said or str(error.reason), request.what)
                if not is_retried(error.status or 0, said):
                    self._answered = True
                    raise refused from error
                trouble: Exception = refused
            except (HTTPError, OSError) as error:
                trouble = error
            else:
                self._answered = True
                return answer
            self._pause(began, request.what, trouble)

    def _pause(self, began: float, what: str, trouble: Exception) -> None:
        """Wait a moment before the next try. Raises ClusterError when there have been enough."""
        patience = CLUSTER_AWAY_SECONDS_MAX if self._answered else CLUSTER_KNOCK_SECONDS_MAX
        if time.monotonic() - began > patience:
            if isinstance(trouble, ClusterError):
                raise trouble
            raise _unreachable(self._open(), what, patience, trouble, known=self._answered) from trouble
        time.sleep(CLUSTER_AGAIN_SECONDS)  # the period of trying

    def _open(self) -> Connection:
        if self._connection is None:
            self._connection = connect(*self._wanted)
        return self._connection


def _unreachable(connection: Connection, what: str, seconds: float, trouble: Exception, *, known: bool) -> ClusterError:
    place = urlsplit(connection.server).netloc or connection.server
    why = str(getattr(trouble, "reason", None) or trouble).rpartition(": ")[2][:200]
    if known:
        said = (
            f"The cluster's API at {place} went away and has not answered for {seconds:.0f} s ({why}); it was to "
            f"{what}. What was serving goes on. Give the same command again when it is back: it goes on where this one "
            "ended."
        )
    else:
        said = (
            f"The cluster's API at {place} (context {connection.context}) does not answer: {why}. Look whether the "
            "cluster runs and this machine reaches it, or name another --context."
        )
    error = ClusterError(said)
    error.code = "cluster_unreachable"
    return error
