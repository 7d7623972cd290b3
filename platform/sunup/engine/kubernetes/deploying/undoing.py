"""Taking back what a deploy did when its revision does not get ready: the cluster is then as it was."""

import time

from sunup.engine.kubernetes import streams
from sunup.engine.kubernetes.cluster.cluster import Cluster, Object
from sunup.engine.kubernetes.deploying.turn import SERVICE, Turn
from sunup.engine.kubernetes.rollout.objects import clean, of, secrets_in, template_of
from sunup.engine.kubernetes.rollout.traffic import held, number, stable
from sunup.engine.kubernetes.steps import Steps
from sunup.errors import ClusterError
from sunup.limits import ROLLOUT_LOOK_SECONDS, ROLLOUT_STUCK_SECONDS


class Undo:
    """`calls`: the objects to be applied, the Service last. `begun`: whether the Service was; `streaming`: whether the
    stream is another one now. Made before anything is applied: what is there now stays."""

    def __init__(self, cluster: Cluster, turn: Turn, steps: Steps, calls: list[Object]) -> None:
        self._cluster = cluster
        self._turn = turn
        self._steps = steps
        self._function = str(calls[-1]["metadata"]["name"])
        self._there = {one["metadata"]["name"] for one in cluster.select("Secret", of(self._function))}
        self._made = [one for one in calls[:-1] if one["kind"] == "Secret"]
        self.begun = False
        self.streaming = False

    def because(self, error: ClusterError) -> ClusterError:
        """Undo it; the error to raise, which says what is left."""
        try:
            with self._steps.step("undo", "back to how it was"):
                left = self._back()
        except ClusterError as trouble:
            left = (
                f"Taking it back failed, too: {trouble.message} The revision before keeps its calls; `platform deploy` "
                "or `platform remove` puts the rest in order."
            )
        sentence = error.message.rstrip(".") + "."
        head = f"{self._function} did not get ready: " if self.begun else ""
        told = ClusterError(f"{head}{sentence} {left}".strip(), hint=error.hint)
        told.code, told.status = error.code, error.status
        return told

    def _back(self) -> str:
        before = self._turn.before
        serving = stable(before)
        if not self.begun:
            self._forget_secrets()
            return "Nothing was changed."
        if before is None or not serving:
            self._turn.look()  # somebody else's deploy is not ours to delete
            self._cluster.delete(SERVICE, self._function)
            streams.apply(self._cluster, self._function, [], force=True)
            self._gone()
            for one in self._cluster.select("ConfigMap", of(self._function)):
                self._cluster.delete("ConfigMap", one["metadata"]["name"])
            self._forget_secrets(gone=True)
            return "Nothing of it is left on the cluster."
        failed = self._restore(before, serving)
        stream = streams.kept(self._cluster, serving) if self.streaming else None
        if stream is not None:
            streams.apply(self._cluster, self._function, stream, force=True)
        if failed and failed != serving:
            self._cluster.delete("Revision", failed)
            self._cluster.delete("ConfigMap", streams.kept_name(failed))
        self._forget_secrets()
        return f"Revision {number(serving)} serves on with every call it had."

    def _restore(self, before: Object, serving: str) -> str:
        """Give the Service the contents of what serves; the revision that failed, or ""."""
        revision = self._cluster.get("Revision", serving)
        if revision is None:
            return ""
        failed = str(self._turn.look().get("status", {}).get("latestCreatedRevisionName", ""))
        template = template_of(revision)
        made = clean(before)
        made["metadata"].setdefault("labels", {}).update(template["metadata"].get("labels", {}))
        made["metadata"].setdefault("annotations", {}).update(
            {k: v for k, v in template["metadata"].get("annotations", {}).items() if k.startswith("sunup.dev/")}
        )
        self._turn.apply({**made, "spec": {**made["spec"], "template": template, "traffic": held(before)}})
        until = time.monotonic() + ROLLOUT_STUCK_SECONDS
        # Knative makes the revision of a template again that it believes to be the newest.
        while self._turn.look().get("status", {}).get("latestCreatedRevisionName") == failed:
            if time.monotonic() > until:
                return ""
            time.sleep(ROLLOUT_LOOK_SECONDS)  # the period of looking
        return failed

    def _gone(self) -> None:
        until = time.monotonic() + ROLLOUT_STUCK_SECONDS
        while self._cluster.get(SERVICE, self._function) is not None and time.monotonic() < until:
            time.sleep(ROLLOUT_LOOK_SECONDS)  # as above

    def _forget_secrets(self, *, gone: bool = False) -> None:
        """Delete the Secrets this deploy made, unless a revision uses them meanwhile. `gone`: no revision stays."""
        made = {one["metadata"]["name"] for one in self._made} - self._there
        if made:
            revisions = [] if gone else self._cluster.select("Revision", of(self._function))
            for name in made - secrets_in(*revisions):
                self._cluster.delete("Secret", name)
