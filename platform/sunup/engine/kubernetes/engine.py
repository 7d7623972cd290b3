"""The engine `kubernetes`: a function is a Knative Service, its stream a Deployment that KEDA scales.

Nothing of it runs beside the cluster: what it knows it reads from the cluster's API, and what it does it applies there.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sunup.bundle.store import Store
from sunup.engine.engine import Event
from sunup.engine.kubernetes import streams
from sunup.engine.kubernetes.cluster.cluster import Cluster, Object
from sunup.engine.kubernetes.cluster.facts import read_facts
from sunup.engine.kubernetes.deploying.rolling import Manner, Rollout, follow_stream, with_traffic
from sunup.engine.kubernetes.deploying.tidying import remove, unknown
from sunup.engine.kubernetes.deploying.turn import Turn
from sunup.engine.kubernetes.deploying.watching import Watch
from sunup.engine.kubernetes.logs import follow as follow_logs
from sunup.engine.kubernetes.logs import last_lines
from sunup.engine.kubernetes.order import Delivery, Given, take_order
from sunup.engine.kubernetes.rollout.objects import clean, of
from sunup.engine.kubernetes.rollout.traffic import before, canary, is_as, number, serves, stable, steady
from sunup.engine.kubernetes.status import revision_facts, status, url_of
from sunup.engine.kubernetes.steps import Steps
from sunup.errors import ClusterError, UsageError


class KubernetesEngine:
    """The functions of one namespace of a cluster. `store`: this project's bundles; `delivery`, `manner`: how deploys
    are done, of no meaning to other methods. Every method raises a CommandError that says what to do."""

    def __init__(self, cluster: Cluster, store: Store, delivery: Delivery, manner: Manner) -> None:
        self._cluster = cluster
        self._store = store
        self._delivery = delivery
        self._manner = manner

    def __repr__(self) -> str:
        return f"KubernetesEngine({self._cluster!r})"

    def deploy(
        self,
        function: str,
        digest: str,
        *,
        settings: Mapping[str, str],
        on_event: Event,
        follow: Mapping[str, Any] | None = None,
        dry_run: bool = False,
    ) -> dict[str, Any]:
        """Prove and route a bundle of the store, as Engine.deploy says. `dry_run`: push images and change nothing else;
        returns objects and differences."""
        if follow is not None:
            raise UsageError(
                "--follow is the local engine's: nothing of Sunup stays running on a cluster. Deploy NAME@ALIAS from a "
                "CronJob or a pipeline; a deploy that finds nothing new changes nothing."
            )
        began, steps = time.monotonic(), Steps(on_event)
        with steps.step("cluster", f"{self._cluster.context}, namespace {self._cluster.namespace}"):
            facts = read_facts(self._cluster)
        given = Given(self._store.open(digest), digest, dict(settings))
        order = take_order(self._cluster.namespace, given, self._delivery, facts, steps)
        rollout = Rollout(self._cluster, order, self._manner, steps)
        if dry_run:
            objects, differing = rollout.plan()
            return {"function": function, "objects": objects, "differences": differing}
        done = rollout.run()
        share = canary(done["service"])
        return {
            "function": function,
            "revision": number(done["revision"]),
            "digest": digest,
            "model": f"{order.manifest.model.name}/{order.manifest.model.version}",
            "url": url_of(done["service"]),
            "unchanged": done["unchanged"],
            "seconds": round(time.monotonic() - began, 4),
            "follows": None,
            "namespace": self._cluster.namespace,
            "way": order.target.way,
            "percent": 100 if share is None else share.percent,
            **({} if share is None else {"tags": _tags(done["service"])}),
        }

    def promote(self, function: str) -> dict[str, Any]:
        """Give all calls to the revision that is tried. Returns what `rollback` does."""
        turn = self._turn(function)
        share = canary(turn.before)
        if share is None:
            raise UsageError(
                f"{function} tries no revision out. `platform deploy NAME --engine kubernetes --canary 20` gives a new "
                "one 20 % of the calls."
            )
        return self._move(turn, function, share.revision)

    def rollback(self, function: str, revision: int | None) -> dict[str, Any]:
        """All calls to an earlier revision (None: the one before; of a canary, the one it is compared with)."""
        turn = self._turn(function)
        assert turn.before is not None
        return self._move(turn, function, before(turn.before, self._cluster.select("Revision", of(function)), revision))

    def remove(self, function: str) -> dict[str, Any]:
        """Delete all of the function's objects, and wait until its pods are gone."""
        return remove(self._cluster, function)

    def pause(self, function: str, partitions: Sequence[int] | None) -> dict[str, Any]:
        """Read nothing of the function's topic until `resume`; deploys in between leave it so."""
        return self._pause(function, partitions, paused=True)

    def resume(self, function: str, partitions: Sequence[int] | None) -> dict[str, Any]:
        """Read on."""
        return self._pause(function, partitions, paused=False)

    def status(self, function: str | None, *, latency: bool = False) -> dict[str, Any]:  # noqa: ARG002 - pods have those
        """Facts about the cluster and its functions (None: all)."""
        facts = status(self._cluster, function)
        if function is not None and not facts["functions"]:
            raise unknown(self._cluster, function)
        return facts

    def logs(self, function: str, lines: int, *, follow: bool) -> Iterator[str]:
        """The last lines of each of the function's pods. `follow`: and those that come."""
        if not self._cluster.select("Service", of(function)):
            raise unknown(self._cluster, function)
        return (follow_logs if follow else last_lines)(self._cluster, function, lines)

    def _turn(self, function: str) -> Turn:
        turn = Turn(self._cluster, function, force=self._manner.force)
        if turn.before is None:
            raise unknown(self._cluster, function)
        return turn

    def _move(self, turn: Turn, function: str, name: str) -> dict[str, Any]:
        """All calls to the revision `name`, its stream first."""
        service = turn.before
        assert service is not None
        watch = Watch(self._cluster, function, lambda _: None, self._manner.wait_s)
        stream, was = streams.kept(self._cluster, name), streams.kept(self._cluster, stable(service))
        if stream is not None and streams.changes(self._cluster, function, stream, force=self._manner.force):
            try:
                follow_stream(self._cluster, watch, function, stream, force=self._manner.force)
            except ClusterError:
                if was is not None:
                    streams.apply(self._cluster, function, was, force=True)
                raise
        wanted = steady(name)
        if not is_as(service, wanted):
            turn.apply(with_traffic(clean(service), wanted, serves(service, name)))
        now = watch.until_routed(turn, wanted)
        revision = self._cluster.get("Revision", name)
        known = {} if revision is None else revision_facts(revision)
        return {"function": function, **known, "revision": number(name), "url": url_of(now)}

    def _pause(self, function: str, partitions: Sequence[int] | None, *, paused: bool) -> dict[str, Any]:
        if partitions:
            raise UsageError(
                "On a cluster a stream is paused whole: partitions are shared out by Kafka. Leave --partition out."
            )
        return streams.pause(self._cluster, function, paused=paused)


def _tags(service: Object) -> dict[str, str]:
    """The URL of each tag."""
    return {one["tag"]: one.get("url", "") for one in service.get("status", {}).get("traffic", ()) if one.get("tag")}
