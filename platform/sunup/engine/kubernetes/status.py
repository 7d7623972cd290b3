"""The facts about functions on a cluster, in the shape the local engine gives them, where they mean something here."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sunup.engine.kubernetes.cluster.cluster import Cluster, Object
from sunup.engine.kubernetes.deploying.turn import SERVICE
from sunup.engine.kubernetes.rollout.objects import COMPONENT, DIGEST, FUNCTION, MODEL, of, setting
from sunup.engine.kubernetes.rollout.pods import is_leaving, is_ready, state
from sunup.engine.kubernetes.rollout.reasons import Observed, condition, explain, ready
from sunup.engine.kubernetes.rollout.traffic import generation, number, shares, stable, was_ready
from sunup.engine.kubernetes.streams import is_paused

Facts = dict[str, Any]


def status(cluster: Cluster, function: str | None) -> Facts:
    """{"engine": ..., "functions": [...]}: all of the namespace, or one."""
    labels = of(function)
    kinds = (SERVICE, "Revision", "Pod", "ScaledObject", "HorizontalPodAutoscaler")
    found = {kind: cluster.select(kind, labels) for kind in kinds[:-1]}
    # KEDA gives the autoscaler it makes the labels of its ScaledObject.
    found[kinds[-1]] = cluster.select(kinds[-1], labels) if found["ScaledObject"] else []
    functions = [_function(service, _of(found, service)) for service in found[SERVICE]]
    version = ".".join(map(str, cluster.version()))
    engine = {
        "engine": "kubernetes",
        "context": cluster.context,
        "namespace": cluster.namespace,
        "kubernetes": version,
        "processes": [],
    }
    return {"engine": engine, "functions": sorted(functions, key=lambda one: str(one["name"]))}


def url_of(service: Object) -> str:
    """Where a function is called, or "" while it has no route."""
    base = service.get("status", {}).get("url", "")
    return f"{base}/functions/{service['metadata']['name']}" if base else ""


def revision_facts(revision: Object) -> Facts:
    """revision, digest, model, at: one line of a function's history."""
    metadata = revision["metadata"]
    return {
        "revision": number(metadata["name"]),
        "digest": setting(revision["spec"], "SUNUP_DIGEST") or metadata.get("labels", {}).get(DIGEST, ""),
        "model": metadata.get("annotations", {}).get(MODEL, ""),
        "at": datetime.fromisoformat(metadata["creationTimestamp"]).timestamp(),
    }


def _of(found: Mapping[str, Sequence[Object]], service: Object) -> dict[str, list[Object]]:
    name = service["metadata"]["name"]
    return {
        kind: [one for one in each if one["metadata"].get("labels", {}).get(FUNCTION) == name]
        for kind, each in found.items()
    }


def _function(service: Object, its: Mapping[str, Sequence[Object]]) -> Facts:
    revisions = sorted(its["Revision"], key=generation)
    by_name = {one["metadata"]["name"]: one for one in revisions}
    serving = stable(service)
    main = (
        revision_facts(by_name[serving])
        if serving in by_name
        else {"revision": number(serving), "digest": "", "model": ""}
    )
    state_now, reason = _state(service, by_name, its["Pod"], serving)
    return {
        "name": service["metadata"]["name"],
        "revision": main["revision"],
        "digest": main["digest"],
        "model": main["model"],
        "state": state_now,
        **({"reason": reason} if reason else {}),
        "url": url_of(service),
        "traffic": _traffic(service, by_name),
        "workers": [_worker(pod) for pod in its["Pod"]],
        "revisions": [{**revision_facts(one), "ready": was_ready(one)} for one in revisions],
        **_stream(its),
    }


def _state(service: Object, revisions: Mapping[str, Object], pods: Sequence[Object], serving: str) -> tuple[str, str]:
    """ready, starting, failed or cold, and why it is not well."""
    mine = [pod for pod in pods if pod["metadata"]["labels"].get("serving.knative.dev/revision") == serving]
    living = [pod for pod in mine if not is_leaving(pod)]
    reason = explain(Observed(service=service, revision=revisions.get(serving), pods=living))
    latest = service.get("status", {}).get("latestCreatedRevisionName", "")
    newer = revisions.get(latest)
    trouble = "" if reason is None else reason.sentence
    if newer is not None and latest != serving and not was_ready(newer):
        theirs = [pod for pod in pods if pod["metadata"]["labels"].get("serving.knative.dev/revision") == latest]
        why = explain(Observed(revision=newer, pods=theirs))
        said = "is not ready yet" if why is None else f"is not ready: {why.sentence}"
        trouble = f"revision {number(latest)} {said}"
    if not serving:
        return "failed" if reason is not None and not reason.patience_s else "starting", trouble
    if any(map(is_ready, living)):
        return "ready", trouble
    if living:
        return "failed" if reason is not None else "starting", trouble
    return "cold", trouble


def _traffic(service: Object, revisions: Mapping[str, Object]) -> list[Facts]:
    urls = {
        (one.get("revisionName"), one.get("tag") or ""): one.get("url", "")
        for one in service.get("status", {}).get("traffic", ())
    }
    found = []
    for one in shares(service):
        revision = revisions.get(one.revision)
        model = "" if revision is None else revision["metadata"].get("annotations", {}).get(MODEL, "")
        tagged = {"tag": one.tag, "url": urls.get((one.revision, one.tag), "")} if one.tag else {}
        found.append({"revision": number(one.revision), "model": model, "percent": one.percent, **tagged})
    return found


def _worker(pod: Object) -> Facts:
    labels, statuses = pod["metadata"]["labels"], pod.get("status", {}).get("containerStatuses", ())
    return {
        "id": pod["metadata"]["name"],
        "role": labels.get(COMPONENT, "calls"),
        "revision": number(labels.get("serving.knative.dev/revision", "")) or None,
        "state": state(pod),
        "node": pod.get("spec", {}).get("nodeName", ""),
        "restarts": sum(one.get("restartCount", 0) for one in statuses),
    }


def _stream(its: Mapping[str, Sequence[Object]]) -> Facts:
    if not its["ScaledObject"]:
        return {}
    scaled = its["ScaledObject"][0]
    trigger = scaled["spec"]["triggers"][0]["metadata"]
    reading = [pod for pod in its["Pod"] if pod["metadata"]["labels"].get(COMPONENT) == "stream"]  # until they are gone
    pods = [pod for pod in reading if not is_leaving(pod)]
    active = condition(scaled, "Active").get("status") == "True"
    works = "ready" if any(map(is_ready, pods)) else "starting" if pods or active else "cold"
    if is_paused(scaled):
        works = "paused"
    elif not ready(scaled):
        works = "failed"
    reason = explain(Observed(scaled=scaled, pods=pods))
    return {
        "stream": {
            "input": trigger.get("topic", ""),
            "group": trigger.get("consumerGroup", ""),
            "broker": trigger.get("bootstrapServers", ""),
            "state": works,
            **({"reason": reason.sentence} if reason is not None else {}),
            "paused": "all" if is_paused(scaled) else [],
            "workers": len(reading),
            "max_workers": scaled["spec"].get("maxReplicaCount"),
            "lag": _lag(its["HorizontalPodAutoscaler"], active=active),
        }
    }


def _lag(scalers: Sequence[Object], *, active: bool) -> int | None:
    """Records that wait, as the autoscaler saw them last: per worker times workers. None where nobody has looked."""
    for one in scalers:
        for metric in one.get("status", {}).get("currentMetrics") or ():
            value = metric.get("external", {}).get("current", {})
            if "averageValue" in value:
                count = max(1, one["status"].get("currentReplicas", 1))
                return round(_quantity(value["averageValue"]) * int(count))
            if "value" in value:
                return round(_quantity(value["value"]))
    return None if active else 0


def _quantity(text: str) -> float:
    """A quantity as autoscalers write it: 12, 1500m, 3k."""
    scale = {"m": 0.001, "k": 1e3, "M": 1e6}
    return float(text[:-1]) * scale[text[-1]] if text[-1] in scale else float(text)
