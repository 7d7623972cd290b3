"""What is wrong between objects: references that lead nowhere, volumes nobody mounts, settings no pod can use."""

import hashlib
import json
from base64 import b64decode
from collections.abc import Iterator, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from sunup.bundle.declare.kubernetes.quantity import parse_quantity
from sunup.engine.kubernetes.check.findings import each, get, keys, sentences, title, word
from sunup.engine.kubernetes.check.schema import Problem
from sunup.engine.kubernetes.render.settings import FILE, FOLDER, WORDS
from sunup.engine.kubernetes.render.target import Object
from sunup.settings import EMBEDDED, FEATURES_URL, SCHEMA_REGISTRY, STREAM_BROKER, STREAM_SECURITY

_POD: Final = "spec.template.spec"
_SECRET_BYTES_MAX: Final = 1024**2  # pkg/apis/core/types.go of Kubernetes: MaxSecretSize
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1", "[::1]")


def between(objects: Sequence[Object], secrets: frozenset[str] | None) -> Iterator[str]:
    """Every sentence about objects together. `secrets`: those of the namespace, None where they are not known."""
    names = {(word(thing, "kind"), word(thing, "metadata", "name")) for thing in objects}
    for thing in objects:
        problems = [*_namespaces(thing, objects), *_references(thing, names, secrets)]
        spec = keys(thing, "spec", "template", "spec")
        problems += [*_volumes(spec), *_resources(spec), *_variables(spec)]
        if thing.get("kind") == "Deployment":
            problems += _selector(thing)
        if thing.get("kind") == "TriggerAuthentication":
            problems += _parameters(thing, objects)
        if thing.get("kind") == "Secret":
            problems += _secret(thing)
        yield from sentences(thing, problems)


def _namespaces(thing: Object, objects: Sequence[Object]) -> Iterator[Problem]:
    here, first = get(thing, "metadata", "namespace"), get(objects[0], "metadata", "namespace")
    if here != first:
        yield "metadata.namespace", f"{here!r} is not {first!r}, where {title(objects[0])} is; put them together"


def _references(thing: Object, names: set[tuple[Any, Any]], secrets: frozenset[str] | None) -> Iterator[Problem]:
    def missing(kind: str, name: Any) -> bool:
        if not isinstance(name, str) or (kind, name) in names:
            return False  # what is no name is told elsewhere
        return kind != "Secret" or (secrets is not None and name not in secrets)

    spec = get(thing, "spec", "template", "spec")
    if missing("ServiceAccount", account := get(spec, "serviceAccountName")):
        yield (
            f"{_POD}.serviceAccountName",
            f"there is no ServiceAccount {account} among the objects; render it with them",
        )
    for number, volume in enumerate(each(spec, "volumes")):
        if missing("Secret", name := get(volume, "secret", "secretName")):
            path = f"{_POD}.volumes[{number}].secret.secretName"
            yield path, f"there is no Secret {name} in the namespace; create it first"
    for holder, path in ((spec, f"{_POD}.imagePullSecrets"), (thing, "imagePullSecrets")):
        for number, one in enumerate(each(holder, "imagePullSecrets")):
            if missing("Secret", one.get("name")):
                problem = f"there is no Secret {one['name']} in the namespace; create it with kubectl create secret"
                yield f"{path}[{number}].name", f"{problem} docker-registry"
    if missing("Deployment", target := get(thing, "spec", "scaleTargetRef", "name")):
        yield "spec.scaleTargetRef.name", f"there is no Deployment {target} among the objects"
    for number, trigger in enumerate(each(thing, "spec", "triggers")):
        if missing("TriggerAuthentication", name := get(trigger, "authenticationRef", "name")):
            path = f"spec.triggers[{number}].authenticationRef.name"
            yield path, f"there is no TriggerAuthentication {name} among the objects"
    for number, one in enumerate(each(thing, "spec", "secretTargetRef")):
        if missing("Secret", one.get("name")):
            yield f"spec.secretTargetRef[{number}].name", f"there is no Secret {one['name']} in the namespace"


def _volumes(spec: dict[str, Any]) -> Iterator[Problem]:
    volumes = each(spec, "volumes")
    names = [word(volume, "name") for volume in volumes]
    mounts = [m for container in each(spec, "containers") for m in each(container, "volumeMounts")]
    mounted = {word(mount, "name") for mount in mounts}
    for number, volume in enumerate(volumes):
        kinds = [key for key in volume if key != "name"]
        if names.index(name := word(volume, "name")) != number:
            yield f"{_POD}.volumes[{number}].name", f"{name} is the name of another volume already"
        if name not in mounted:
            yield f"{_POD}.volumes[{number}]", f"nobody mounts {name}; Knative wants each volume mounted"
        if len(kinds) != 1:
            yield f"{_POD}.volumes[{number}]", f"a volume is of one kind, and this one is of {len(kinds)}"
    paths: set[str | None] = set()
    for number, mount in enumerate(mounts):
        path, place = word(mount, "mountPath"), f"{_POD}.containers[0].volumeMounts[{number}]"
        if word(mount, "name") not in names:
            yield f"{place}.name", f"there is no volume {mount.get('name')}"
        elif "emptyDir" not in volumes[names.index(word(mount, "name"))] and mount.get("readOnly") is not True:
            yield f"{place}.readOnly", "it must be true: only an emptyDir can be written"
        if path in paths:
            yield f"{place}.mountPath", f"something else is mounted at {path} already"
        paths.add(path)


def _resources(spec: dict[str, Any]) -> Iterator[Problem]:
    for number, container in enumerate(each(spec, "containers")):
        asked, most = keys(container, "resources", "requests"), keys(container, "resources", "limits")
        for key in asked:
            try:
                over = key in most and parse_quantity(asked[key]) > parse_quantity(most[key])
            except (TypeError, ValueError):
                continue  # no quantity: said elsewhere
            if over:
                path = f"{_POD}.containers[{number}].resources.requests.{key}"
                yield path, f"{asked[key]} is more than the limit, {most[key]}"


def _variables(spec: dict[str, Any]) -> Iterator[Problem]:
    for number, container in enumerate(each(spec, "containers")):
        seen: set[str | None] = set()
        for place, variable in enumerate(each(container, "env")):
            name = word(variable, "name")
            if name in seen:
                yield f"{_POD}.containers[{number}].env[{place}].name", f"{name} is set twice, and the last one counts"
            seen.add(name)


def _selector(thing: Object) -> Iterator[Problem]:
    wanted = keys(thing, "spec", "selector", "matchLabels")
    there = keys(thing, "spec", "template", "metadata", "labels")
    for key in wanted:
        if there.get(key) != wanted[key]:
            path = f'spec.selector.matchLabels["{key}"]'
            yield path, f"pods have {there.get(key)!r} there, so the Deployment would not find its own"


def _parameters(thing: Object, objects: Sequence[Object]) -> Iterator[Problem]:
    data = {word(one, "metadata", "name"): keys(one, "data") for one in objects if one.get("kind") == "Secret"}
    references = each(thing, "spec", "secretTargetRef")
    given = {word(one, "parameter") for one in references}
    for number, one in enumerate(references):
        held = data.get(word(one, "name"))
        if held is not None and word(one, "key") not in held:
            path = f"spec.secretTargetRef[{number}].key"
            yield path, f"Secret {one.get('name')} holds no {one.get('key')}"
    for one_, other in (("username", "password"), ("cert", "key")):
        if (one_ in given) != (other in given):
            lacking, there = (other, one_) if one_ in given else (one_, other)
            yield "spec.secretTargetRef", f"{lacking} is missing; it comes with {there}"


def _secret(thing: Object) -> Iterator[Problem]:
    data, name = keys(thing, "data"), word(thing, "metadata", "name")
    if name is None or "data" not in thing:
        return
    whole = hashlib.sha256(msgspec.json.encode(data, order="sorted")).hexdigest()[:8]
    if not name.endswith(f"-{whole}"):
        yield "data", f"its contents are others than {name} says; render it again, or call it ...-{whole}"
    try:
        size = sum(len(b64decode(value)) for value in data.values())
    except (TypeError, ValueError):
        return  # no base64: told elsewhere
    if size > _SECRET_BYTES_MAX:
        yield "data", f"it holds {size} bytes, and {_SECRET_BYTES_MAX} is the most a Secret can; use smaller files"
    if FILE in data:
        try:
            settings = json.loads(b64decode(data[FILE]))
            said = msgspec.convert(settings, dict[str, str])
        except (TypeError, ValueError, msgspec.ValidationError):
            yield f'data["{FILE}"]', "it is no JSON object of texts"
        else:
            yield from _settings(said, data)


def _settings(said: dict[str, str], data: dict[str, Any]) -> Iterator[Problem]:
    """What pods could not use. Values may hold passwords: none is shown."""
    at = f'data["{FILE}"]'
    try:
        url = urlsplit(said.get(FEATURES_URL, ""))
        host = url.hostname
    except ValueError:
        yield f"{at}.{FEATURES_URL}", "it is no URL; set FEATURES_URL to that of a Redis or PostgreSQL"
        return
    if url.scheme == "sqlite":
        problem = "it is a SQLite file of the deployer's machine; set FEATURES_URL to a Redis or PostgreSQL"
        yield f"{at}.{FEATURES_URL}", f"{problem} that pods reach"
    elif host in _LOOPBACK:
        yield f"{at}.{FEATURES_URL}", f"{host} is the pod itself; name a host that pods reach"
    broker = said.get(STREAM_BROKER, "")
    if broker == EMBEDDED:
        problem = "the embedded log is a file of the deployer's machine; set the environment variable that [stream]"
        yield f"{at}.{STREAM_BROKER}", f"{problem} broker names to Kafka's host:port"
    elif any(part.rpartition(":")[0] in _LOOPBACK for part in broker.split(",")):
        yield f"{at}.{STREAM_BROKER}", "localhost is the pod itself; name brokers that pods reach"
    for key in (STREAM_SECURITY, SCHEMA_REGISTRY):
        for path in _paths(_decoded(said.get(key, "{}"))):
            if not path.startswith(f"{FOLDER}/") or path.removeprefix(f"{FOLDER}/") not in data:
                yield f"{at}.{key}", f"{path} is no file of the pod; files of settings come along in the Secret"


def _decoded(text: str) -> dict[str, Any]:
    """The JSON object of a setting; empty for what workers refuse anyway."""
    try:
        made = json.loads(text)
    except ValueError:
        return {}
    return made if isinstance(made, dict) else {}


def _paths(given: dict[str, Any]) -> Iterator[str]:
    for key in ("ca", "certificate", "key"):
        yield from filter(None, [word(given, key)])
    for key in (*WORDS, "url"):
        yield from filter(None, [word(given, key, "file")])
