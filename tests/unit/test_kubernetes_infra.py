"""What infra/kubernetes ships: rights that name what they are for, and the account that is rendered."""

from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from tests.kubernetes_objects import bare

from sunup.engine.kubernetes.cluster.kinds import KINDS

FOLDER: Final = Path(__file__).resolve().parents[2] / "infra" / "kubernetes"


def documents(name: str) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all((FOLDER / name).read_text("utf-8")) if one]


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.name)
def test_each_file_is_objects(path: Path) -> None:
    assert all({"apiVersion", "kind", "metadata"} <= one.keys() for one in documents(path.name))


def test_the_deployers_role_names_every_right() -> None:
    (role,) = (one for one in documents("deployer.yaml") if one["kind"] == "Role")
    words = [word for rule in role["rules"] for key in ("apiGroups", "resources", "verbs") for word in rule[key]]
    assert "*" not in words
    resources = {resource for rule in role["rules"] for resource in rule["resources"]}
    assert resources - {"pods/log"} <= {kind.plural for kind in KINDS.values()}
    assert not resources & {"roles", "rolebindings", "nodes", "namespaces", "pods/exec"}


def test_the_workers_account_is_the_one_that_is_rendered() -> None:
    (account,) = documents("worker.yaml")
    (rendered,) = (one for one in bare().objects if one["kind"] == "ServiceAccount")
    rendered["metadata"].pop("namespace")
    assert account == rendered
