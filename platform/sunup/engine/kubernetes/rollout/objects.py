"""Objects beside each other: what differs, what is no longer needed, what a revision was made of. Pure."""

import base64
import copy
import difflib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from yaml import safe_dump

from sunup.engine.kubernetes.rollout.traffic import generation

Object = Mapping[str, Any]

FUNCTION: Final = "sunup.dev/function"
DIGEST: Final = "sunup.dev/digest"
MODEL: Final = "sunup.dev/model"
COMPONENT: Final = "app.kubernetes.io/component"
MANAGED_BY: Final = "app.kubernetes.io/managed-by"
SUNUP: Final = "sunup"

_SERVERS: Final = ("managedFields", "resourceVersion", "uid", "generation", "creationTimestamp", "ownerReferences")
_KNATIVES: Final = "serving.knative.dev/"
_KUBERNETES: Final = ("deployment.kubernetes.io/", "autoscaling.keda.sh/paused", "scaledobject.keda.sh/")


def of(function: str | None = None) -> dict[str, str]:
    """The labels of what Sunup made, for one function or for all."""
    return {MANAGED_BY: SUNUP, **({FUNCTION: function} if function else {})}


def is_ours(made: Object) -> bool:
    """Whether Sunup made it."""
    return bool(made["metadata"].get("labels", {}).get(MANAGED_BY) == SUNUP)


def clean(made: Object) -> dict[str, Any]:
    """An object without what servers write into it. Secret values are replaced by what tells them apart."""
    found = copy.deepcopy(dict(made))
    found.pop("status", None)
    metadata = {name: value for name, value in found["metadata"].items() if name not in _SERVERS}
    for kind in ("annotations", "labels"):
        kept = {k: v for k, v in metadata.get(kind, {}).items() if not k.startswith((_KNATIVES, *_KUBERNETES))}
        metadata.pop(kind, None)
        if kept:
            metadata[kind] = kept
    found["metadata"] = metadata
    if found["kind"] == "Secret":
        for name, value in found.pop("stringData", {}).items():
            found.setdefault("data", {})[name] = base64.b64encode(value.encode()).decode()
        found["data"] = {name: f"(sha256 {_digest(value)})" for name, value in found.get("data", {}).items()}
    return found


def differences(live: Object | None, wanted: Object | None) -> str:
    """What would change: a unified diff in YAML, "" for nothing. None: not there."""
    before, after = (_lines(one) for one in (live, wanted))
    named = wanted or live or {"kind": "", "metadata": {"name": ""}}
    title = f"{named['kind']} {named['metadata']['name']}"
    return "".join(difflib.unified_diff(before, after, f"{title} (there)", f"{title} (to be)"))


def template_of(revision: Object) -> dict[str, Any]:
    """The template of a Service that makes another revision of the same contents."""
    made = clean({**revision, "kind": "Revision"})
    metadata = {name: made["metadata"][name] for name in ("labels", "annotations") if name in made["metadata"]}
    return {"metadata": metadata, "spec": made["spec"]}


def made_of(revision: Object, template: Object) -> bool:
    """Whether a revision was made of a template: same images, settings, volumes, labels and annotations. Other fields
    come back in other words (quantities, defaults)."""
    for kind in ("labels", "annotations"):
        there = revision["metadata"].get(kind, {})
        if any(there.get(name) != value for name, value in template.get("metadata", {}).get(kind, {}).items()):
            return False
    return _contents(revision["spec"]) == _contents(template["spec"])


def secrets_in(*found: Object) -> set[str]:
    """The names of the Secrets that objects refer to, wherever they do."""
    return {name for one in found for name in _secrets(one)}


def outdated(revisions: Sequence[Object], keep: set[str], most: int) -> list[str]:
    """The revisions to delete: those beyond the newest `most`, but for those that are needed."""
    newest = sorted(revisions, key=generation, reverse=True)
    return [one["metadata"]["name"] for one in newest[most:] if one["metadata"]["name"] not in keep]


def setting(spec: Object, name: str) -> str:
    """An environment variable of the first container of a pod's spec, or ""."""
    containers = spec.get("containers") or [{}]
    return next((one.get("value", "") for one in containers[0].get("env", ()) if one["name"] == name), "")


def _contents(spec: Object) -> str:
    first = spec["containers"][0]
    volumes = [
        (one["name"], sorted(secrets_in(one)), one.get("image", {}).get("reference")) for one in spec.get("volumes", ())
    ]
    env = sorted((one["name"], json.dumps(one.get("value", one.get("valueFrom")))) for one in first.get("env", ()))
    return json.dumps([first["image"], env, sorted(volumes, key=str)])


def _secrets(found: Any) -> Iterator[str]:
    if isinstance(found, Mapping):
        for key, value in found.items():
            if key == "secretName" and isinstance(value, str):
                yield value
            elif key in ("secretRef", "secretKeyRef", "secret") and isinstance(value, Mapping) and "name" in value:
                yield value["name"]
            elif key in ("imagePullSecrets", "secretTargetRef"):
                yield from (one["name"] for one in value)
            yield from _secrets(value)
    elif isinstance(found, list | tuple):
        for one in found:
            yield from _secrets(one)


def _lines(made: Object | None) -> list[str]:
    return [] if made is None else safe_dump(clean(made), sort_keys=True, width=120).splitlines(keepends=True)


def _digest(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()[:12]
