"""What a cluster's API answers when it refuses, as it was recorded, and what a person is told."""

import json

import pytest

from sunup.engine.kubernetes.cluster.kinds import path_of
from sunup.engine.kubernetes.cluster.refusals import is_retried, refusal
from sunup.errors import ClusterError


def status(code: int, message: str, **more: object) -> str:
    return json.dumps({"kind": "Status", "status": "Failure", "code": code, "message": message, **more})


FORBIDDEN = (
    'scaledobjects.keda.sh "fraud-stream" is forbidden: User "system:serviceaccount:shop:ci" cannot patch resource '
    '"scaledobjects" in API group "keda.sh" in the namespace "shop"'
)
WEBHOOK = (
    'admission webhook "validation.webhook.serving.knative.dev" denied the request: validation failed: invalid value: '
    "5000: spec.template.spec.containerConcurrency"
)
OWNED = 'Apply failed with 1 conflict: conflict with "kubectl-edit" using serving.knative.dev/v1: .spec.traffic'


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        ((401, status(401, "Unauthorized")), "cluster_unauthorized", ["expired", "--context"]),
        ((403, status(403, FORBIDDEN)), "cluster_forbidden", [
            "system:serviceaccount:shop:ci may not patch scaledobjects.keda.sh in namespace shop", "deployer.yaml",
        ]),
        ((403, status(403, 'pods "a" is forbidden: exceeded quota: small, requested: cpu=2')), "cluster_quota", [
            "small", "ResourceQuota",
        ]),
        ((400, status(400, WEBHOOK)), "cluster_refused", ["5000", "containerConcurrency", "validation.webhook"]),
        ((422, status(422, '"a" is invalid: data: field is immutable')), "cluster_refused", ["immutable"]),
        ((404, status(404, 'namespaces "shop" not found')), "cluster_namespace", ["kubectl create namespace shop"]),
        ((404, "404 page not found: could not find the requested resource"), "cluster_kind", ["Knative"]),
        ((409, status(409, OWNED, details={"causes": [{"field": ".spec.traffic"}]})), "cluster_owned", [
            "kubectl-edit", ".spec.traffic", "--force",
        ]),
        ((409, status(409, "the object has been modified")), "cluster_conflict", ["Somebody else"]),
        ((500, status(500, 'failed calling webhook "defaulting.webhook.serving.knative.dev": connection refused')),
         "cluster_webhook", ["does not answer", "knative-serving"]),
        ((418, "I am a teapot"), "cluster", ["HTTP 418", "teapot"]),
    ],
)  # fmt: skip
def test_each_refusal_has_its_sentence(answer: tuple[int, str], code: str, words: list[str]) -> None:
    error = refusal(*answer, "apply Service fraud")
    assert (error.code, error.exit_code, error.status) == (code, 1, answer[0])
    assert [word for word in words if word not in error.message] == []


@pytest.mark.parametrize(
    ("answer", "again"),
    [
        ((503, ""), True),
        ((429, ""), True),
        ((504, status(504, "Timeout")), True),
        ((500, status(500, 'failed calling webhook "a": connection refused')), True),
        ((500, status(500, "etcdserver: leader changed")), True),
        ((500, status(500, "nil pointer")), False),
        ((500, status(500, ".spec.timeoutSecond: field not declared in schema")), False),
        ((403, status(403, FORBIDDEN)), False),
        ((409, status(409, OWNED)), False),
    ],
)
def test_what_may_pass_is_asked_again(answer: tuple[int, str], again: bool) -> None:
    assert is_retried(*answer) is again


def test_paths() -> None:
    assert path_of("Pod", "shop", "a") == "/api/v1/namespaces/shop/pods/a"
    assert path_of("Service", "shop") == "/apis/serving.knative.dev/v1/namespaces/shop/services"
    assert path_of("Namespace", "shop", "shop") == "/api/v1/namespaces/shop"
    with pytest.raises(ClusterError, match="no kind"):
        path_of("Node", "shop")
