"""Quantities as Kubernetes writes them: "500m", "2", "512Mi"."""

import re
from typing import Final

# k8s.io/apimachinery/pkg/api/resource/quantity.go: <sign><digits><suffix>; powers of 1024, of 1000, or an exponent
_QUANTITY: Final = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(Ki|Mi|Gi|Ti|Pi|Ei|n|u|m|k|M|G|T|P|E|[eE][+-]?\d+)?")
_BINARY: Final = {unit: 1024.0**power for power, unit in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), start=1)}
_DECIMAL: Final = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}


def parse_quantity(text: str) -> float:
    """What a quantity of Kubernetes amounts to: "500m" -> 0.5, "512Mi" -> 536870912. Raises ValueError."""
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no quantity of Kubernetes")
    number, unit = float(match[1]), match[2] or ""
    if unit[:1] in ("e", "E") and unit[1:]:
        return number * 10.0 ** int(unit[1:])
    return number * (_BINARY | _DECIMAL).get(unit, 1.0)
