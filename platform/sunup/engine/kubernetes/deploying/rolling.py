"""One deploy, from the objects of an order to calls that reach them; or back to how it was.

The old revision is named in the Service's traffic while the new one gets ready, so nothing that fails is ever called.
Each step can be done again: a deploy that was killed is completed by the next one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sunup.engine.kubernetes import streams
from sunup.engine.kubernetes.cluster.cluster import Cluster, Object
from sunup.engine.kubernetes.deploying.tidying import tidy
from sunup.engine.kubernetes.deploying.turn import Turn
from sunup.engine.kubernetes.deploying.undoing import Undo
from sunup.engine.kubernetes.deploying.watching import Watch
from sunup.engine.kubernetes.order import Order, split_stream
from sunup.engine.kubernetes.rollout.traffic import (
    SERVED,
    Traffic,
    held,
    is_as,
    number,
    served,
    serves,
    split,
    stable,
    steady,
    was_ready,
)
from sunup.engine.kubernetes.steps import Steps
from sunup.errors import ClusterError, CommandError

# What is not the revision's fault: whoever gives the command again goes on where this one ended.
ACCOUNT: Final = "ServiceAccount"
_NOT_ITS_FAULT: Final = ("cluster_unreachable", "cluster_unauthorized", "overtaken")


@dataclass(frozen=True, slots=True)
class Manner:
    """How to roll out. `canary`: percent of calls for the new revision, None for all; `wait_s`: how long it may take
    to get ready; `force`: take over fields that others have changed; `begin_stream`: makes the group of the function's
    topic begin somewhere, before KEDA looks at its lag."""

    canary: int | None = None
    wait_s: float = 0.0
    force: bool = False
    begin_stream: Callable[[], None] = lambda: None


class Rollout:
    """`steps`: is told what goes on."""

    def __init__(self, cluster: Cluster, order: Order, manner: Manner, steps: Steps) -> None:
        self._cluster = cluster
        self._order = order
        self._manner = manner
        self._steps = steps
        self._turn = Turn(cluster, order.function, force=manner.force)
        self._watch = Watch(cluster, order.function, steps.tell, manner.wait_s)

    def plan(self) -> tuple[list[Object], list[str]]:
        """The objects, and a diff for each that would change. Nothing is changed."""
        before = self._turn.before
        if self._manner.canary is not None and not stable(before):
            split(before, "", self._manner.canary)  # says why that cannot be
        latest = (before or {}).get("status", {}).get("latestCreatedRevisionName", "")
        history = " ".join(served(before))
        objects = [
            with_traffic(one, held(before), history) if one["kind"] == "Service" else one
            for one in self._order.objects(held(before), number(latest) or 1)
        ]
        calls, stream = split_stream(objects)
        with self._steps.step("compare"):
            # Knative has the pods of a Service judged, and those are refused whose account is not there.
            judged = self._cluster.get(ACCOUNT, self._account(calls)) is not None
            found = [streams.change(self._cluster, one, force=self._manner.force, judged=judged) for one in calls]
            if self._manner.canary is None:
                found += streams.changes(self._cluster, self._order.function, stream, force=self._manner.force)
        return objects, [text for text in found if text]

    def run(self) -> dict[str, Any]:
        """Do it. Returns revision, service, and whether anything was changed at all. Raises CommandError."""
        self._make_account()
        objects, differing = self.plan()
        calls, _ = split_stream(objects)
        service = calls[-1]
        if not differing and (same := self._settled(service)) is not None:
            return {"revision": same, "service": self._turn.before, "unchanged": True}
        undo = Undo(self._cluster, self._turn, self._steps, calls)
        try:
            revision = self._calls(calls, undo)
            name = revision["metadata"]["name"]
            wanted = self._wanted(name)
            self._stream(name, undo)
            with self._steps.step("route", "as told"):
                if not is_as(self._turn.look(), wanted):
                    history = serves(self._turn.before, name) if self._manner.canary is None else ""
                    self._turn.apply(with_traffic(service, wanted, history))
                now = self._watch.until_routed(self._turn, wanted)
        except ClusterError as error:
            if error.code in _NOT_ITS_FAULT:
                raise
            raise undo.because(error) from error
        with self._steps.step("tidy"):
            tidy(self._cluster, self._order.function, now)
        return {"revision": name, "service": now, "unchanged": False}

    def _make_account(self) -> None:
        """The account of pods, which may do nothing, comes before everything: it is every function's, and stays."""
        for one in self._order.objects(held(self._turn.before)):
            if one["kind"] == ACCOUNT and self._cluster.get(ACCOUNT, one["metadata"]["name"]) is None:
                self._cluster.apply(one, force=self._manner.force)

    def _account(self, calls: list[Object]) -> str:
        return str(next(one["metadata"]["name"] for one in calls if one["kind"] == ACCOUNT))

    def _calls(self, calls: list[Object], undo: Undo) -> Object:
        """The revision that answers calls, ready."""
        with self._steps.step("apply", f"to namespace {self._cluster.namespace}"):
            for one in calls[:-1]:
                self._cluster.apply(one, force=self._manner.force)
            undo.begun = True
            self._turn.apply(calls[-1])
        with self._steps.step("ready", "Knative"):
            return self._watch.until_ready(self._turn, calls[-1]["spec"]["template"])

    def _stream(self, revision: str, undo: Undo) -> None:
        """The stream of this revision; during a canary that of the one before goes on."""
        _, stream = split_stream(self._order.objects(held(self._turn.before), number(revision)))
        streams.keep(self._cluster, self._order.function, revision, stream)
        if self._manner.canary is not None or not (
            stream or streams.changes(self._cluster, self._order.function, [], force=True)
        ):
            return
        with self._steps.step("stream", "its group and KEDA"):
            self._manner.begin_stream()
            undo.streaming = True
            follow_stream(self._cluster, self._watch, self._order.function, stream, force=self._manner.force)

    def _settled(self, service: Object) -> str | None:
        """The revision that is made of this template already, ready, and called as it is to be."""
        before = self._turn.before
        if before is None:
            return None
        found = self._watch.revision(before, service["spec"]["template"])
        if found is None or not was_ready(found):
            return None
        name = str(found["metadata"]["name"])
        try:
            return name if is_as(before, self._wanted(name)) else None
        except CommandError:
            return None  # --canary of what serves already: the rollout says so

    def _wanted(self, revision: str) -> Traffic:
        percent = self._manner.canary
        return steady(revision) if percent is None else split(self._turn.before, revision, percent)


def follow_stream(cluster: Cluster, watch: Watch, function: str, stream: list[Object], *, force: bool) -> None:
    """Make the function's stream this one, and wait until KEDA has taken it."""
    streams.apply(cluster, function, stream, force=force)
    for one in stream:
        if one["kind"] == "ScaledObject":
            watch.until_scaled(one["metadata"]["name"])


def with_traffic(service: Mapping[str, Any], traffic: Traffic, remembered: str) -> Object:
    """The same Service with other shares. `remembered`: which revisions had all calls."""
    annotations = {**service["metadata"].get("annotations", {}), **({SERVED: remembered} if remembered else {})}
    metadata = {**service["metadata"], "annotations": annotations}
    return {**service, "metadata": metadata, "spec": {**service["spec"], "traffic": traffic}}
