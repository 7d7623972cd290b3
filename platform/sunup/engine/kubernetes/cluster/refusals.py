"""What a cluster's API says when it refuses, as a person needs it. Pure.

The bodies are Kubernetes' Status objects (meta/v1 Status: code, reason, message, details.causes).
"""

import json
import re
from typing import Any, Final

from sunup.errors import ClusterError

RETRIED: Final = frozenset({429, 500, 502, 503, 504})  # the API is overloaded, starting, or behind a proxy without it

_RIGHT: Final = re.compile(
    r'User "(?P<user>[^"]+)" cannot (?P<verb>\S+) resource "(?P<resource>[^"]+)"'
    r'(?: in API group "(?P<group>[^"]*)")?(?:.*?in the namespace "(?P<namespace>[^"]+)")?'
)
_WEBHOOK: Final = re.compile(r'admission webhook "(?P<name>[^"]+)" denied the request: (?P<why>.*)', re.DOTALL)
_UNCALLED: Final = re.compile(r'failed calling webhook "(?P<name>[^"]+)"')
_LATE: Final = re.compile(r"etcd|\btimeout\b|timed out", re.IGNORECASE)  # not a field such as timeoutSeconds
_OWNER: Final = re.compile(r'conflicts? with "(?P<owner>[^"]+)"')
_NAMESPACE: Final = re.compile(r'namespaces "(?P<name>[^"]+)" not found')
_QUOTA: Final = re.compile(r"exceeded quota: (?P<what>.*?)(?:: spec\.template)?$", re.DOTALL)


def refusal(status: int, body: str, what: str) -> ClusterError:
    """The error for an answer that is none. `what`: what was wanted, as in "apply Service fraud"."""
    said = _status(body)
    message = str(said.get("message") or body[:500] or f"HTTP {status}").strip()
    code, sentence = _sentence(status, message, said, what)
    error = ClusterError(sentence)
    error.code, error.status = code, status
    return error


def is_retried(status: int, body: str) -> bool:
    """Whether the same request may be answered in a moment."""
    if status == 500:  # also an answer of webhooks that run and refuse for good: only those that do not run come back
        said = str(_status(body).get("message", ""))
        return bool(_UNCALLED.search(said) or _LATE.search(said))
    return status in RETRIED


def _sentence(status: int, message: str, said: dict[str, Any], what: str) -> tuple[str, str]:
    if status == 401:
        return "cluster_unauthorized", (
            "The cluster does not know who asks (401): the token or certificate of the kubeconfig is wrong or has "
            "expired. Log in to the cluster again, or name another --context."
        )
    if quota := _QUOTA.search(message):
        return "cluster_quota", (
            f"The namespace's quota does not allow to {what}: {quota['what']}. Ask for a larger ResourceQuota, or "
            "lower [kubernetes] cpu and memory."
        )
    if refused := _WEBHOOK.search(message):
        return "cluster_refused", f"The cluster refuses to {what}: {refused['why'].strip()} (webhook {refused['name']})"
    if uncalled := _UNCALLED.search(message):
        return "cluster_webhook", (
            f"The cluster cannot {what} now: its webhook {uncalled['name']} does not answer. Look whether its pod runs "
            "(knative-serving, keda), and deploy again."
        )
    if status in _BY_STATUS:
        return _BY_STATUS[status](message, said, what)
    return "cluster", f"The cluster did not {what} (HTTP {status}): {message}"


def _refused(message: str, _: dict[str, Any], what: str) -> tuple[str, str]:
    return "cluster_refused", f"The cluster refuses to {what}: {message}"


def _missing(message: str, _: dict[str, Any], what: str) -> tuple[str, str]:
    if missing := _NAMESPACE.search(message):
        return "cluster_namespace", (
            f"There is no namespace {missing['name']}. Make it (kubectl create namespace {missing['name']}), with the "
            "Role of infra/kubernetes/deployer.yaml, or name another one with --namespace."
        )
    if "could not find the requested resource" in message:
        return "cluster_kind", f"The cluster cannot {what}: it does not know that kind. Is Knative (KEDA) installed?"
    return "cluster", f"The cluster did not {what}: {message}"


def _conflict(message: str, said: dict[str, Any], what: str) -> tuple[str, str]:
    if owner := _OWNER.search(message):
        fields = ", ".join(cause.get("field", "") for cause in said.get("details", {}).get("causes", ()))
        return "cluster_owned", (
            f"{what.partition(' ')[2]} was changed by {owner['owner']}, and is not overwritten: {fields or message}. "
            "Undo that change, or take the fields over with --force."
        )
    return "cluster_conflict", f"Somebody else changed it meanwhile, so the cluster did not {what}: {message}"


def _forbidden(message: str, _: dict[str, Any], what: str) -> tuple[str, str]:
    if right := _RIGHT.search(message):
        group = f".{right['group']}" if right["group"] else ""
        where = f" in namespace {right['namespace']}" if right["namespace"] else ""
        return "cluster_forbidden", (
            f"{right['user']} may not {right['verb']} {right['resource']}{group}{where}. Bind it to the Role of "
            "infra/kubernetes/deployer.yaml, which has this right."
        )
    return "cluster_forbidden", f"The cluster does not allow to {what}: {message}"


def _status(body: str) -> dict[str, Any]:
    try:
        said = json.loads(body)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


_BY_STATUS: Final = {400: _refused, 403: _forbidden, 404: _missing, 409: _conflict, 422: _refused}
