"""What Knative's and KEDA's controllers do, as far as a deploy sees it: revisions of templates, statuses, pods.

A thread that looks at a namespace of a real API server. `outcomes` says by digest of the bundle what becomes of its
pods: a status that stays, or nothing where they get ready.
"""

import threading
from collections.abc import Mapping
from typing import Any, Final

from sunup.engine.kubernetes.cluster.cluster import Cluster, Object
from sunup.engine.kubernetes.cluster.kinds import path_of
from sunup.engine.kubernetes.streams import is_paused
from sunup.errors import ClusterError

LOOK_SECONDS: Final = 0.02
READY: Final = {"type": "Ready", "status": "True"}
_STATUS: Final = "application/merge-patch+json"


class Controllers:
    """Runs between `with` and its end. `cluster`: with every right."""

    def __init__(self, cluster: Cluster, outcomes: Mapping[str, Object]) -> None:
        self.outcomes = dict(outcomes)
        self.holds = False  # while it is true nothing is looked at: Knative is slow
        self._cluster = cluster
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Controllers":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(LOOK_SECONDS):
            if self.holds:
                continue
            try:
                for service in self._cluster.select("Service"):
                    self._service(service)
                for scaled in self._cluster.select("ScaledObject"):
                    self._scaled(scaled)
            except ClusterError as error:
                if error.status not in (404, 409):  # it went, or changed, while we looked
                    raise

    def _service(self, service: Object) -> None:
        name, metadata, status = service["metadata"]["name"], service["metadata"], service.get("status", {})
        template = service["spec"]["template"]
        made = self._cluster.select("Revision", {"serving.knative.dev/service": name})
        made.sort(key=lambda one: one["metadata"]["name"])
        latest = next((one for one in made if one["metadata"]["name"] == status.get("latestCreatedRevisionName")), None)
        if latest is None or latest["metadata"]["annotations"]["tests/template"] != str(hash(str(template))):
            number = int(status.get("latestCreatedRevisionName", "-00000").rpartition("-")[2]) + 1
            latest = self._revise(service, template, number)
            made.append(latest)
        for one in made:
            self._revision(one)
        ready = [one["metadata"]["name"] for one in made if self._outcome(one) is None]
        fine = latest["metadata"]["name"] in ready
        said: Object = {
            "observedGeneration": metadata["generation"],
            "latestCreatedRevisionName": latest["metadata"]["name"],
            "url": f"http://{name}.{metadata['namespace']}.example.com",
        }
        if ready:
            said["latestReadyRevisionName"] = ready[-1]
        routed = [
            {**one, "revisionName": one.get("revisionName") or ready[-1], "latestRevision": False}
            for one in service["spec"]["traffic"]
            if one.get("revisionName") or ready
        ]
        well = "True" if fine and routed else "False"
        said["traffic"] = routed
        said["conditions"] = [
            {"type": "ConfigurationsReady", "status": "True" if fine else "Unknown"},
            {"type": "RoutesReady", "status": "True" if routed else "Unknown"},
            {"type": "Ready", "status": well},
        ]
        self._write("Service", service, said)

    def _revise(self, service: Object, template: Object, number: int) -> Object:
        name = service["metadata"]["name"]
        labels = {
            **template["metadata"].get("labels", {}),
            "serving.knative.dev/service": name,
            "serving.knative.dev/configurationGeneration": str(number),
        }
        annotations = {**template["metadata"].get("annotations", {}), "tests/template": str(hash(str(template)))}
        made = {
            "apiVersion": "serving.knative.dev/v1",
            "kind": "Revision",
            "metadata": {"name": f"{name}-{number:05}", "labels": labels, "annotations": annotations},
            "spec": template["spec"],
        }
        return self._cluster.apply(made, force=True)

    def _outcome(self, revision: Object) -> Object | None:
        return self.outcomes.get(revision["metadata"]["labels"].get("sunup.dev/digest", ""))

    def _revision(self, revision: Object) -> None:
        name, outcome = revision["metadata"]["name"], self._outcome(revision)
        if outcome is None:
            self._write("Revision", revision, {"conditions": [READY]})
            return
        self._write("Revision", revision, {"conditions": [{"type": "Ready", "status": "Unknown"}]})
        labels = {**revision["metadata"]["labels"], "serving.knative.dev/revision": name}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"{name}-pod", "labels": labels},
            "spec": {"containers": [{"name": "worker", "image": "example.com/image"}]},
        }
        if self._cluster.get("Pod", f"{name}-pod") is None:
            self._write("Pod", self._cluster.apply(pod, force=True), outcome)

    def _scaled(self, scaled: Object) -> None:
        paused = {"type": "Paused", "status": "True" if is_paused(scaled) else "False"}
        self._write("ScaledObject", scaled, {"conditions": [READY, paused]})
        deployment = self._cluster.get("Deployment", scaled["metadata"]["name"])
        if deployment is not None:
            self._write("Deployment", deployment, {"observedGeneration": deployment["metadata"]["generation"]})

    def _write(self, kind: str, made: Object, status: Object) -> None:
        if made.get("status") == status:
            return
        namespace = self._cluster.namespace
        path = f"{path_of(kind, namespace, made['metadata']['name'])}/status"
        self._cluster._ask("PATCH", path, f"write the status of {kind}", (), {"status": status}, _STATUS)


def failed(**terminated: Any) -> Object:
    """The status of a pod whose worker ended."""
    one = {"name": "worker", "image": "example.com/image", "imageID": "", "ready": False, "restartCount": 1}
    ended = {"exitCode": 1, "reason": "Error", **terminated}
    return {"phase": "Running", "containerStatuses": [{**one, "state": {"terminated": ended}}]}


def waiting(reason: str, message: str) -> Object:
    """The status of a pod whose container waits for something."""
    one = {"name": "worker", "image": "example.com/image", "imageID": "", "ready": False, "restartCount": 0}
    return {
        "phase": "Pending",
        "containerStatuses": [{**one, "state": {"waiting": {"reason": reason, "message": message}}}],
    }
