"""[kubernetes] of function.toml: what a pod asks for and who can reach it, where a function runs on Kubernetes."""

import json
from typing import Annotated, Literal

import msgspec

from sunup.bundle.declare.kubernetes.quantity import parse_quantity
from sunup.bundle.declare.lines import Lines
from sunup.bundle.manifest import Kubernetes
from sunup.limits import KUBERNETES_CPU_MILLIS_MIN, KUBERNETES_GPUS_MAX, KUBERNETES_MEMORY_BYTES_MIN


class KubernetesTable(msgspec.Struct):
    """The table as it stands in the file."""

    cpu: str | None = None
    memory: str | None = None
    visibility: Literal["public", "cluster"] = "public"
    gpu: Annotated[int, msgspec.Meta(ge=0, le=KUBERNETES_GPUS_MAX)] = 0


def kubernetes_spec(table: KubernetesTable | None, where: Lines) -> Kubernetes | None:
    """The table resolved. Raises UsageError."""
    if table is None:
        return None
    if table.cpu is not None and _amount(table, "cpu", where) * 1000 < KUBERNETES_CPU_MILLIS_MIN:
        least = f"{KUBERNETES_CPU_MILLIS_MIN}m"
        raise where.error("kubernetes", "cpu", f"[kubernetes] cpu: {table.cpu} of a core is less than {least}")
    if table.memory is not None and _amount(table, "memory", where) < KUBERNETES_MEMORY_BYTES_MIN:
        least = f"{KUBERNETES_MEMORY_BYTES_MIN // 1024**2}Mi"
        raise where.error("kubernetes", "memory", f"[kubernetes] memory: {table.memory} is less than {least}")
    return Kubernetes(table.cpu or "", table.memory or "", table.visibility, table.gpu)


def table(kubernetes: Kubernetes) -> list[str]:
    """The lines that read back as `kubernetes`."""
    said = msgspec.structs.asdict(kubernetes)
    return ["[kubernetes]", *(f"{key} = {json.dumps(value)}" for key, value in said.items() if value not in ("", 0))]


def _amount(table: KubernetesTable, key: str, where: Lines) -> float:
    text = getattr(table, key)
    try:
        return parse_quantity(text)
    except ValueError:
        some = '"500m" or "2"' if key == "cpu" else '"512Mi" or "2Gi"'
        said = f"[kubernetes] {key}: {text!r} is no quantity of Kubernetes, such as {some}"
        raise where.error("kubernetes", key, said) from None
