"""What `platform status` and `platform stream status` show of a stream."""

from collections.abc import Mapping, Sequence
from typing import Any

from sunup.engine.local.streaming.stream import Streaming, said
from sunup.engine.local.workers import Life, Worker
from sunup.settings import EMBEDDED


def facts(stream: Streaming, workers: Sequence[Worker], counts: Mapping[str, int], now: float) -> dict[str, Any]:
    """`workers`: the living stream workers of the function, those that are ending too. `counts`: records by result."""
    serving = [w for w in workers if w.life is not Life.DRAINING and w.birth.revision == stream.revision.revision]
    state, reason = stream.state(serving)
    spec, topic = stream.spec, stream.topic
    ages = topic.ages(now)
    notes = _notes(stream)
    return {
        "broker": stream.broker,
        "client": stream.client,
        "group": spec.group,
        "input": spec.input,
        "output": spec.output,
        "dead_letter": spec.dead_letter,
        "guarantee": "exactly-once" if stream.broker == EMBEDDED else spec.guarantee,
        "state": state,
        **({"reason": reason} if reason else {}),
        **({"note": "; ".join(notes)} if notes else {}),
        "paused": "all" if stream.is_paused else stream.without,
        "lag": topic.lag,
        "oldest_seconds": round(max(ages.values()), 1) if ages else None,
        "records_per_second": round(topic.rate(now), 1),
        **counts,
        "workers": len(workers),
        "partitions": [_partition(stream, number, workers, ages) for number in sorted(topic.partitions)],
        "last_error": stream.last_error,
        **_features(stream, bool(serving)),
    }


def _features(stream: Streaming, reads: bool) -> dict[str, Any]:
    """Of the views it aggregates; nothing of a stream that aggregates none. `next_change`: seconds since the epoch when
    a value changes next without a record, None: none will, or not known."""
    known = stream.aggregating
    if known is None:
        return {}
    return {"features": known.facts(reads=reads, lag=stream.topic.lag), "next_change": known.due, "notes": known.notes}


def _partition(stream: Streaming, number: int, workers: Sequence[Worker], ages: Mapping[int, float]) -> dict[str, Any]:
    position, end = stream.topic.partitions[number]
    known = stream.readers.of(number)
    reader = next((worker.name for worker in workers if known and worker.name == known[0]), None)
    oldest = ages.get(number)
    return {
        "partition": number,
        "position": position,
        "end": end,
        "lag": max(0, end - position),
        "oldest_seconds": None if oldest is None else round(oldest, 1),
        "paused": stream.is_paused or number in stream.paused,
        "worker": reader,
    }


def _notes(stream: Streaming) -> list[str]:
    spec, count = stream.spec, len(stream.topic.partitions)
    notes = []
    if 0 < count < spec.max_workers:
        notes.append(
            f"{spec.input} has {count} partitions: no more than {count} of max_workers = {spec.max_workers} can work"
        )
    if stream.without and not stream.is_paused:
        waiting = stream.topic.lag - stream.topic.waiting(stream.without)
        which = ", ".join(f"{number} ({said(stream.paused[number])})" for number in stream.without)
        notes.append(f"{waiting:,} records wait in partition {which}")
    return notes
