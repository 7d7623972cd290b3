"""Records no function can score, and records it cannot score now: none holds up the others, or is lost.

Whole engines, real processes, on the embedded log and on a real Kafka broker.
"""

import json
import time
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from tests.engine_fixture import Engine, until
from tests.proxy import Proxy
from tests.redis_fixture import RedisServer
from tests.service.test_store_outage import ENTITIES, USERS, fill, score
from tests.service.test_stream import code_of
from tests.small_bundle import logistic, make_bundle
from tests.topics import Scored, Topics, entry, sources

from sunup.limits import STREAM_TRIES_MAX, STREAM_TRY_SECONDS
from sunup.lookup.plan import ReadPlan, dump, entity_columns
from sunup.settings import STREAM_BROKER
from sunup.types import Field

pytestmark = pytest.mark.timeout(300)
DEADLY, SPOILT = 666, 555
HANDLER = f"""
import os

def preprocess(rows):
    if (rows["x"] == {DEADLY}).any():
        os._exit(3)
    if (rows["x"] == {SPOILT}).any():
        raise RuntimeError("spoilt")
    return {{}}
"""
REJECTING = ReadPlan(1, "contract", 3, 100.0, "reject", ENTITIES, entity_columns(ENTITIES))


def test_a_record_that_kills_every_worker_becomes_a_dead_letter(engine: Engine, topics: Topics) -> None:
    scored = Scored(engine, topics, max_workers=1)
    scored.create()
    scored.deploy(handler=HANDLER)
    numbers = range(1000)
    scored.send(numbers)
    began = time.monotonic()
    scored.wait_for_zero(150.0)
    print(f"on {topics.broker}: found after {time.monotonic() - began:.1f} s")
    dead = {record.key: record for record in scored.dead()}
    assert {key: code_of(record.headers) for key, record in dead.items()} == {
        b"666": "worker_died",
        b"555": "handler_failed",
    }
    assert dead[b"666"].value == entry(DEADLY)[1]
    assert len(scored.dead()) == 2
    outputs = scored.outputs()
    assert len(set(sources(outputs))) == len(numbers) - 2
    assert {record.key: json.loads(record.value or b"")["y"] for record in outputs} == {
        b"%d" % number: 2.0 * number for number in numbers if number not in (DEADLY, SPOILT)
    }
    scored.send([1, 2, 3])  # and it goes on as ever
    scored.wait_for_zero()
    assert scored.facts["state"] == "idle"
    assert not list((engine.project.run / "deaths").iterdir())


def deploy_with_features(engine: Engine, scored: Scored, store: str) -> None:
    """A function whose one feature is in the store at this URL, and without it there is no score."""
    digest = make_bundle(
        engine.project.bundles,
        logistic(1),
        np.linspace(-1.0, 1.0, 8).reshape(8, 1),
        function=scored.name,
        request=(Field("user_id", "int64"),),
        features=dump(REJECTING),
        stream=scored.stream,
        scale=scored.scale,
    )
    settings = {"features_url": store, STREAM_BROKER: scored.stream.broker}
    engine.deploy(scored.name, digest, settings=settings, on_event=lambda _: None)


def send_users(scored: Scored, users: Sequence[int]) -> None:
    scored.send_entries([(b"%d" % user, json.dumps({"user_id": user}).encode(), []) for user in users])


def test_features_may_take_longer_than_a_call_would_wait(
    engine: Engine, topics: Topics, redis_server: RedisServer
) -> None:
    scored = Scored(engine, topics, max_workers=1)
    scored.create()
    fill(redis_server)
    with Proxy(redis_server.port).running() as proxy:
        deploy_with_features(engine, scored, f"redis://127.0.0.1:{proxy.port}/0")
        proxy.delay = 4 * REJECTING.deadline_ms / 1000
        send_users(scored, range(USERS))
        until(lambda: scored.facts["scored"] == USERS, f"scores, not {scored.facts}")
    assert scored.facts["dead"] == 0


def test_a_store_that_is_down_is_waited_for(engine: Engine, topics: Topics, redis_server: RedisServer) -> None:
    scored = Scored(engine, topics, max_workers=1, idle_s=5.0)
    scored.create()
    deploy_with_features(engine, scored, redis_server.url)
    redis_server.stop()
    users = [number % USERS for number in range(200)]
    send_users(scored, users)
    until(lambda: scored.facts["state"] == "waiting", f"waiting, not {scored.facts}")
    (worker,) = scored.workers
    assert "features_missing" in scored.facts["reason"]
    time.sleep(2 * STREAM_TRY_SECONDS * 2**STREAM_TRIES_MAX)  # an outage, longer than a value that is missing may take
    assert (scored.facts["state"], scored.facts["dead"], scored.facts["scored"]) == ("waiting", 0, 0)
    redis_server.start()
    fill(redis_server)
    back = time.monotonic()
    until(lambda: scored.facts["scored"] == len(users), f"scores, not {scored.facts}")
    print(f"on {topics.broker}: scored {time.monotonic() - back:.1f} s after the store was back")
    assert scored.workers == [worker]
    assert scored.facts["state"] == "running"
    assert not scored.dead()
    outputs = scored.outputs()
    assert Counter(record.key for record in outputs) == Counter(b"%d" % user for user in users)
    for record in outputs:
        assert record.key is not None
        assert json.loads(record.value or b"")["score"] == pytest.approx(score(int(record.key) / 10))


def test_a_tombstone_is_ignored_and_counted(engine: Engine, topics: Topics) -> None:
    scored = Scored(engine, topics)
    scored.create()
    scored.deploy()
    scored.send_entries([(b"a", None, []), entry(1), (b"c", None, [("h", b"1")]), (b"b", b"", [])])
    scored.wait_for_zero()
    facts = scored.facts
    assert (facts["scored"], facts["dead"], facts["ignored"]) == (1, 1, 2)
    assert [code_of(record.headers) for record in scored.dead()] == ["empty_value"]
