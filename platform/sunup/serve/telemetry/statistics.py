"""What a function's workers counted, as the Open Inference Protocol's statistics extension (Triton's) tells it."""

from collections import defaultdict
from pathlib import Path
from time import monotonic, time
from typing import Any

from sunup.link.counters import Segment

Sums = dict[tuple[str, str], list[float]]  # (series, its code, stage or cache) -> slots, summed over workers


def model_statistics(folder: Path, *, function: str, version: str, revision: int) -> dict[str, Any]:
    """An element of `model_stats`, for the workers of one revision whose counters are in `folder`.

    `inference_count` is records, `execution_count` calls that ran the model: calls that shared a run count each. How
    long failed calls took is not measured. A call's time is split so: queue = waiting for the model and making its
    arrays, compute_input = decode and lookup, compute_infer = the model run, compute_output = encode.
    """
    sums = _sums(folder, function, revision)
    codes = {code: int(values[0]) for (series, code), values in sums.items() if series == "sunup_requests_total"}
    answered = codes.pop("200", 0)
    last = max(sums.get(("sunup_last_activity", ""), [0.0]))
    return {
        "name": function,
        "version": version,
        "last_inference": int(1000 * (time() - monotonic() + last)) if last else 0,
        "inference_count": int(sums.get(("sunup_records_total", ""), [0.0])[0]),
        "execution_count": _duration(sums, "execute")["count"],
        "inference_stats": {
            "success": {"count": answered, "ns": _duration(sums, "total")["ns"]},
            "fail": {"count": sum(codes.values()), "ns": 0},
            "queue": _duration(sums, "batch"),
            "compute_input": _duration(sums, "decode", "lookup"),
            "compute_infer": _duration(sums, "execute"),
            "compute_output": _duration(sums, "encode"),
            **_cached(sums),
        },
        "batch_stats": [],
    }


def _duration(sums: Sums, *stages: str) -> dict[str, int]:
    """How often the first of the stages was measured, and the time of all of them."""
    values = [sums.get(("sunup_request_seconds", stage), [0.0]) for stage in stages]
    return {"count": int(sum(values[0][:-1])), "ns": int(1e9 * sum(one[-1] for one in values))}


def _cached(sums: Sums) -> dict[str, dict[str, int]]:
    """Rows that a prediction cache answered, and the others. Identical ones are not looked for among similar ones."""
    hits, looked = (
        [int(sums.get((series, cache), [0.0])[0]) for cache in ("identical", "similar")]
        for series in ("sunup_cache_hits_total", "sunup_cache_lookups_total")
    )
    return {"cache_hit": {"count": sum(hits), "ns": 0}, "cache_miss": {"count": max(looked) - sum(hits), "ns": 0}}


def _sums(folder: Path, function: str, revision: int) -> Sums:
    sums: Sums = defaultdict(list)
    for path in sorted(folder.glob(f"{function}.*.seg")):
        try:
            segment = Segment.open(path)
        except FileNotFoundError:
            continue  # its owner is just writing it anew
        if any(series.labels.get("revision") == str(revision) for series in segment.series):
            for index, series in enumerate(segment.series):
                labels = (series.labels.get(label) for label in ("code", "stage", "cache"))
                name = (series.name, next(filter(None, labels), ""))
                values = segment.read(index)
                known = sums[name] or [0.0] * len(values)
                both = zip(known, values, strict=True)
                sums[name] = [max(a, b) if series.kind == "gauge" else a + b for a, b in both]
        segment.close()
    return sums
