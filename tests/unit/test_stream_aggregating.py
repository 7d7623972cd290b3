"""When a worker is needed for the views a stream aggregates though no record waits, and what is shown of them."""

import asyncio
from typing import Any

import pytest
from tests.unit.test_state import revision
from tests.unit.test_streaming import SPEC, worker

from sunup.engine.local.streaming.aggregating import Aggregating
from sunup.engine.local.streaming.facts import facts
from sunup.engine.local.streaming.record import WHOLE, Pause
from sunup.engine.local.streaming.stream import Streaming
from sunup.engine.local.streaming.waking import needs, wakes_in
from sunup.limits import AGGREGATE_NEAR_SECONDS, AGGREGATE_VAIN_SECONDS, AGGREGATE_WAKE_SECONDS_MAX
from sunup.settings import STREAM_BROKER

WALL = 1_700_000_000.0


BOTH = (0, 1)


def due(at: float | None, *partitions: int) -> dict[str, Any]:
    return {"op": "due", "at": at, "partitions": partitions or BOTH}


def view(entities: int = 0, **more: Any) -> dict[str, Any]:
    return {
        **{"entities": entities, "late": 0, "duplicates": 0, "invalid": 0, "misplaced": 0},
        **{"reason": "", "freshness_ms": None, "behind": 0},
        **more,
    }


def features(**views: dict[str, Any]) -> dict[str, Any]:
    return {"op": "features", "views": views, "notes": ()}


def known(at: float | None) -> Aggregating:
    """One that a worker looked after and left, having said when values change next."""
    one = Aggregating(["shop/spend"])
    one.told("w1", due(at), 10.0)
    one.needs(["w1"], BOTH, WALL, 10.0)
    end(one, "w1", 10.0)
    return one


def end(one: Aggregating, name: str, now: float = 0.0) -> None:
    """In order, with nothing left to do."""
    one.told(name, {"op": "settled"}, now)
    one.ended(name)


def test_before_anything_is_known_one_worker_has_to_look() -> None:
    one = Aggregating(["shop/spend"])
    assert one.wakes_in(WALL, 10.0) == 0.0
    assert one.needs([], BOTH, WALL, 10.0)
    assert one.needs(["w1"], BOTH, WALL, 10.1), "it has not told yet"
    one.told("w1", due(None, 1), 10.2)
    assert one.needs(["w1"], BOTH, WALL, 10.3), "it may not speak for partitions that it does not have yet"
    one.told("w1", due(None), 10.3)
    assert not one.needs(["w1"], BOTH, WALL, 10.3)
    end(one, "w1")
    assert not one.needs([], BOTH, WALL, 10.3)
    assert one.wakes_in(WALL, 1e9) is None


def test_a_worker_is_there_when_a_value_changes_and_no_longer() -> None:
    one = known(WALL + 100.0)
    assert one.wakes_in(WALL, 50.0) == 100.0
    assert not one.needs([], BOTH, WALL + 99.9, 149.9)
    assert one.needs([], BOTH, WALL + 100.0, 150.0)
    assert one.needs(["w2"], BOTH, WALL + 100.1, 150.1), "who ended spoke of what is due now"
    one.told("w2", due(WALL + 160.0), 150.2)
    assert not one.needs(["w2"], BOTH, WALL + 100.2, 150.2)
    end(one, "w2")
    assert one.wakes_in(WALL + 100.2, 150.2) == pytest.approx(59.8)


def test_one_that_is_there_stays_for_what_is_near() -> None:
    one = known(WALL + 100.0)
    before = WALL + 100.0 - AGGREGATE_NEAR_SECONDS
    assert not one.needs([], BOTH, before, 50.0)
    assert not one.needs(["w2"], BOTH, before - 0.1, 50.0)
    assert one.needs(["w2"], BOTH, before, 50.0)
    one.told("w2", due(WALL + 100.0), 50.0)
    assert one.needs(["w2"], BOTH, before, 50.0)


def test_of_several_workers_the_earliest_counts_and_the_last_word_of_one_that_ended_stands() -> None:
    one = Aggregating(["shop/spend"])
    one.told("w1", due(WALL + 50.0, 0), 10.0)
    one.told("w2", due(WALL + 20.0, 1), 10.0)
    assert not one.needs(["w1", "w2"], BOTH, WALL, 10.0)
    assert one.due == WALL + 20.0
    end(one, "w2")
    assert not one.needs(["w1"], BOTH, WALL, 11.0), "w1 does not have its partitions yet"
    assert one.due == WALL + 20.0
    one.told("w1", due(WALL + 30.0), 12.0)
    assert not one.needs(["w1"], BOTH, WALL, 12.0)
    assert one.due == WALL + 30.0, "w1 speaks for all of them"


def test_a_store_that_is_down_keeps_one_for_a_while_and_then_wakes_one_later_and_later() -> None:
    one = Aggregating(["shop/spend"])
    one.told("w1", due(WALL), 10.0)
    one.told("w1", features(spend=view(5, behind=3)), 10.0)
    assert one.needs(["w1"], BOTH, WALL, 10.0 + AGGREGATE_VAIN_SECONDS)
    one.told("w1", features(spend=view(5, behind=2)), 30.0)
    assert one.needs(["w1"], BOTH, WALL, 20.0 + AGGREGATE_VAIN_SECONDS), "something came of it"
    now, pauses = 31.0 + AGGREGATE_VAIN_SECONDS, []
    for number in range(2, 12):
        assert not one.needs([f"w{number - 1}"], BOTH, WALL, now)
        end(one, f"w{number - 1}")
        pause = one.wakes_in(WALL, now)
        assert pause is not None
        pauses.append(pause)
        assert not one.needs([], BOTH, WALL, now + pause - 0.1)
        now += pause
        assert one.needs([], BOTH, WALL, now)
        one.told(f"w{number}", due(WALL), now)
        one.told(f"w{number}", features(spend=view(5, behind=2)), now)
        now += 1.0 + AGGREGATE_VAIN_SECONDS
    assert pauses[:4] == [5.0, 10.0, 20.0, 40.0]
    assert pauses[-1] == AGGREGATE_WAKE_SECONDS_MAX
    one.told("w11", features(spend=view(5)), now)
    one.told("w11", due(None), now)
    assert not one.needs(["w11"], BOTH, WALL, now)
    assert one.wakes_in(WALL, now) is None


def test_who_never_tells_is_not_kept_for_ever_and_not_believed() -> None:
    one = Aggregating(["shop/spend"])
    assert one.needs([], BOTH, WALL, 10.0)
    late = 10.1 + AGGREGATE_VAIN_SECONDS
    assert not one.needs(["w1"], BOTH, WALL, late)
    end(one, "w1")
    assert one.wakes_in(WALL, late) == 5.0


def test_after_one_that_was_killed_somebody_has_to_look() -> None:
    one = known(WALL + 100.0)
    one.told("w2", due(WALL + 100.0), 20.0)
    assert not one.needs(["w2"], BOTH, WALL, 20.0)
    one.ended("w2")
    assert one.wakes_in(WALL, 20.0) == 0.0
    assert one.needs([], BOTH, WALL, 20.0), "it may have committed what it never told of"
    one.told("w3", due(WALL + 50.0), 21.0)
    assert not one.needs(["w3"], BOTH, WALL, 21.0)
    end(one, "w3")
    assert one.wakes_in(WALL, 21.0) == 50.0


def test_where_others_of_the_group_read_the_rest_what_ours_tell_is_believed_in_the_end() -> None:
    one = Aggregating(["shop/spend"])
    one.told("w1", due(WALL + 500.0, 1), 10.0)
    assert one.needs(["w1"], BOTH, WALL, 11.0)
    late = 10.1 + AGGREGATE_VAIN_SECONDS
    assert not one.needs(["w1"], BOTH, WALL, late)
    end(one, "w1")
    assert one.wakes_in(WALL, late) == 500.0


def test_counts_are_of_all_workers_there_ever_were_and_entities_of_those_that_speak() -> None:
    one = Aggregating(["shop/spend", "shop/visits"])
    one.told("w1", features(spend=view(10, late=1, invalid=2, reason="id is missing", freshness_ms=3.21)), 10.0)
    one.told("w2", features(spend=view(20, late=2, duplicates=5, freshness_ms=7.0), visits=view()), 10.0)
    spend, visits = one.facts(reads=True, lag=0)
    assert (spend["state"], visits["state"]) == ("looking", "looking")
    one.told("w1", due(None), 10.0)
    one.told("w2", due(None), 10.0)
    assert not one.needs(["w1", "w2"], BOTH, WALL, 10.0)
    spend, visits = one.facts(reads=True, lag=0)
    assert spend == {
        **{"view": "spend", "state": "aggregating", "entities": 30, "freshness_ms": 7.0, "behind": 0},
        **{"late": 3, "duplicates": 5, "invalid": 2, "misplaced": 0, "reason": "id is missing"},
    }
    assert visits == {**view(), "view": "visits", "state": "aggregating"}
    end(one, "w1")
    end(one, "w2")
    one.told("w3", features(spend=view(30, late=1)), 20.0)
    one.told("w3", due(None), 20.0)
    one.needs(["w3"], BOTH, WALL, 20.0)
    spend, _ = one.facts(reads=True, lag=3)
    assert (spend["state"], spend["entities"], spend["late"], spend["duplicates"]) == ("catching up", 30, 4, 5)
    one.begin(["shop/spend", "shop/visits"])
    spend, _ = one.facts(reads=False, lag=0)
    assert (spend["state"], spend["entities"], spend["late"]) == ("unknown", None, 4)
    one.begin(["shop/spend"])
    (spend,) = one.facts(reads=False, lag=0)
    assert (spend["view"], spend["late"]) == ("spend", 0)


def streaming(**paused: Pause) -> Streaming:
    routed = revision(2)._replace(settings={STREAM_BROKER: "a:1"})
    some = {WHOLE if name == "whole" else int(name[1:]): pause for name, pause in paused.items()}
    return Streaming(routed, SPEC, 5.0, some, ["shop/spend"])


def test_a_stream_wakes_for_its_views_only_where_it_can_be_read() -> None:
    stream = streaming()
    assert (needs(stream, [], 10.0), wakes_in(stream, 10.0)) == (0, None), "nobody has asked the broker yet"
    stream.topic.see({0: (5, 5), 1: (5, 5)}, 10.0)
    assert (needs(stream, [], 10.0), wakes_in(stream, 10.0)) == (1, 0.0)
    stream.watched = ("unreachable", "why")
    assert (needs(stream, [], 10.0), wakes_in(stream, 10.0)) == (0, None)
    paused = streaming(whole=Pause("eva", 0.0))
    paused.topic.see({0: (5, 5), 1: (5, 5)}, 10.0)
    assert (needs(paused, [], 10.0), wakes_in(paused, 10.0)) == (0, None)
    plain = streaming()
    plain.switch(plain.revision, SPEC, 5.0)
    plain.topic.see({0: (5, 5), 1: (5, 5)}, 10.0)
    assert (needs(plain, [], 10.0), wakes_in(plain, 10.0)) == (0, None)


def test_a_worker_speaks_for_a_stream_when_it_reads_all_that_is_not_paused() -> None:
    async def run() -> None:
        stream = streaming(p1=Pause("eva", 0.0))
        stream.topic.see({0: (5, 5), 1: (5, 5), 2: (7, 7)}, 10.0)
        one = worker("w1")
        assert stream.aggregating is not None
        stream.aggregating.told("w1", due(None, 0), 10.0)
        assert needs(stream, [one], 10.0) == 1
        stream.aggregating.told("w1", due(None, 0, 2), 10.0)
        assert needs(stream, [one], 10.0) == 0
        shown = facts(stream, [one], {}, 10.0)
        assert shown["features"] == [{**view(), "view": "spend", "state": "aggregating", "entities": None}]
        assert shown["next_change"] is None

    asyncio.run(run())
