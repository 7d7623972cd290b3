"""Makes what up.sh applies from the projects' own YAML: definitions.yaml, objects.yaml and deployments.yaml.

    objects.py OUTPUT FOLDER...

Everything stays as its project ships it, but for the images, which are built here, for the few settings below, and for
what a node of two cores shared with tests has no room for: disruption budgets, autoscalers of the parts themselves,
large requests for CPU, probes that begin late, and leases among several of a kind.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

IMAGES = {
    r"ko://knative\.dev/(?:serving|net-kourier)/cmd/(\w+)": r"dev.local/kn-\1:1",
    r"docker\.io/envoyproxy/envoy:\S+": "dev.local/envoy:1",
    r"ghcr\.io/kedacore/keda:\S+": "dev.local/keda-operator:1",
    r"ghcr\.io/kedacore/keda-metrics-apiserver:\S+": "dev.local/keda-adapter:1",
    r"ghcr\.io/kedacore/keda-admission-webhooks:\S+": "dev.local/keda-webhooks:1",
    r"imagePullPolicy: Always": "imagePullPolicy: IfNotPresent",
}
SETTINGS = {
    "config-network": {"ingress-class": "kourier.ingress.networking.knative.dev"},
    "config-domain": {"example.com": ""},
    "config-deployment": {
        "queue-sidecar-image": "dev.local/kn-queue:1",
        # Tags there are not looked up: Knative would ask over TLS, and the node's own registry speaks plain HTTP.
        "registries-skipping-tag-resolving": "kind.local,ko.local,dev.local,10.77.0.1:5000",
    },
}
GATEWAY = "10.96.0.80"  # common.sh says so too


def documents(folder: Path) -> Iterator[dict[str, Any]]:
    """Every object below a folder."""
    for path in sorted(folder.rglob("*.yaml")):
        text = path.read_text("utf-8")
        for pattern, image in IMAGES.items():
            text = re.sub(pattern, image, text)
        for found in yaml.safe_load_all(text):
            if found and "metadata" in found and found["kind"] != "Kustomization":
                yield from found["items"] if found["kind"].endswith("List") else [found]


def shrink(container: dict[str, Any]) -> None:
    """Make room on a small node, and be ready as soon as it is."""
    container.setdefault("resources", {}).setdefault("requests", {})["cpu"] = "20m"
    # KEDA's operator starts again when it has made its certificates, and would wait for its own lease to run out.
    if "--leader-elect" in container.get("args", []):
        container["args"].remove("--leader-elect")
    container.pop("lifecycle", None)  # Kourier's calls a shell, which the image made here does not have
    for probe, delay in {"readinessProbe": 1, "livenessProbe": 30}.items():
        if probe in container:
            container[probe]["initialDelaySeconds"] = delay
    if "readinessProbe" in container:
        container["readinessProbe"]["periodSeconds"] = 1


def sort(found: dict[str, Any]) -> str | None:
    """Fit an object to this cluster, and say which file it belongs to."""
    kind, name = found["kind"], found["metadata"]["name"]
    if kind in ("HorizontalPodAutoscaler", "PodDisruptionBudget"):
        return None
    if kind in ("Namespace", "CustomResourceDefinition"):
        return "definitions"
    if kind == "ConfigMap" and name in SETTINGS:
        found.setdefault("data", {}).update(SETTINGS[name])
    if kind == "Service" and name == "kourier":
        found["spec"]["clusterIP"] = GATEWAY
    if kind == "Deployment":
        for container in found["spec"]["template"]["spec"]["containers"]:
            shrink(container)
        return "deployments"
    return "objects"


def main(output: Path, *folders: Path) -> None:
    """Write the three files."""
    files: dict[str, list[dict[str, Any]]] = {"definitions": [], "objects": [], "deployments": []}
    for folder in folders:
        for found in documents(folder):
            if place := sort(found):
                files[place].append(found)
    for place, members in files.items():
        # Roles and accounts before what they are for: the API server refuses some objects otherwise.
        members.sort(key=lambda each: each["kind"] not in ("Namespace", "ServiceAccount", "ClusterRole", "Role"))
        (output / f"{place}.yaml").write_text(yaml.safe_dump_all(members, sort_keys=False), "utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
