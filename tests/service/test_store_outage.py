"""A whole engine whose feature store is killed, paused and emptied, asked over HTTP all the while."""

import json
import math
import re
import signal
import struct
import threading
import time
import urllib.request
from contextlib import closing

import numpy as np
from tests.engine_fixture import Engine, engine
from tests.redis_fixture import RedisServer
from tests.small_bundle import logistic, make_bundle
from tests.store_fill import put_redis

from sunup.lookup.keys import key_maker
from sunup.lookup.plan import Entity, Feature, JoinKey, ReadPlan, View, dump, entity_columns
from sunup.types import Field

__all__ = ["engine"]

USERS = 60
DEADLINE_MS = 20.0
LATE_MS_MAX = 5.0  # beyond the deadline, p99
SLACK = 3  # times a bound that a loaded machine may take
RECOVERY_SECONDS_MAX = 1.0
DEFAULT = -3.0

USER = JoinKey("user_id", "user_id", "INT64")
ENTITIES = (Entity((USER,), (View("stats", "stats", None, None, (Feature("f0", "f0", "DOUBLE", DEFAULT),)),)),)
PLAN = ReadPlan(1, "contract", 3, DEADLINE_MS, "default", ENTITIES, entity_columns(ENTITIES))
key = key_maker([USER], {"user_id": 0})
LOOKUP = re.compile(r"lookup;dur=([0-9.]+)")


def fill(server: RedisServer) -> None:
    with server.client() as client:
        for user in range(USERS):
            value = b"\x29" + struct.pack("<d", user / 10)
            put_redis(client, "stats", key((user,)), {"f0": value}, time.time())


def score(value: float) -> float:
    return 1.0 / (1.0 + math.exp(-value))


class Callers:
    """Four threads that call. A score that is no user's own and not named as defaulted is kept in `wrong`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._ended = threading.Event()
        self.served: list[float] = []  # when
        self.defaulted: list[float] = []
        self.lookup_ms: list[float] = []
        self.wrong: list[str] = []
        self._threads = [threading.Thread(target=self._call, args=(n,)) for n in range(4)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _call(self, number: int) -> None:
        with closing(self._engine.open()) as connection:
            user = number
            while not self._ended.wait(0.003):
                user = (user + 7) % USERS
                answer = self._engine.ask("POST", "/functions/f", json.dumps({"user_id": user}).encode(), connection)
                if answer.status != 200:
                    self.wrong.append(repr(answer))
                    return
                (said,) = answer.json["predictions"]
                named = said.get("defaulted", [])
                if abs(said["score"] - score(DEFAULT if named else user / 10)) > 1e-9:
                    self.wrong.append(f"user {user}: {said}")
                (self.defaulted if named else self.served).append(time.monotonic())
                found = LOOKUP.search(answer.headers["server-timing"])
                assert found is not None
                self.lookup_ms.append(float(found[1]))


def test_an_outage_costs_features_and_nothing_else(engine: Engine, redis_server: RedisServer) -> None:
    fill(redis_server)
    deploy(engine, redis_server, PLAN)
    callers = Callers(engine)
    try:
        for fault in ("killed", "paused", "emptied"):
            time.sleep(0.3)  # served
            before = len(callers.defaulted)
            begin(redis_server, fault)
            time.sleep(1.5)  # the outage
            end(redis_server, fault)
            back = time.monotonic()
            time.sleep(RECOVERY_SECONDS_MAX + 0.3)
            assert callers.wrong == []
            assert len(callers.defaulted) > before, f"{fault}: not felt"
            assert next(at for at in callers.served if at > back) < back + RECOVERY_SECONDS_MAX, fault
            served = sum(at > back + RECOVERY_SECONDS_MAX for at in callers.served)
            assert sum(at > back + RECOVERY_SECONDS_MAX for at in callers.defaulted) <= served // 10, fault
    finally:
        callers.stop()
    assert callers.wrong == []
    lookups = sorted(callers.lookup_ms)
    assert lookups[math.ceil(0.99 * len(lookups)) - 1] < SLACK * (DEADLINE_MS + LATE_MS_MAX)
    counted = failures(engine)
    assert counted["failed"] >= 3
    assert counted["refused"] > counted["failed"]  # a store that is known to be down is not waited for


def deploy(engine: Engine, server: RedisServer, plan: ReadPlan) -> None:
    """A function whose score is the user's own value through a sigmoid."""
    digest = make_bundle(
        engine.project.bundles,
        logistic(1),
        np.linspace(-1.0, 1.0, 8).reshape(8, 1),
        function="f",
        request=(Field("user_id", "int64"),),
        features=dump(plan),
    )
    engine.deploy("f", digest, settings={"features_url": server.url}, on_event=lambda _: None)


def begin(server: RedisServer, fault: str) -> None:
    if fault == "paused":
        server.signal(signal.SIGSTOP)
        return
    server.stop()
    if fault == "emptied":
        server.start()


def end(server: RedisServer, fault: str) -> None:
    if fault == "paused":
        server.signal(signal.SIGCONT)
        return
    if fault == "killed":
        server.start()
    fill(server)


def failures(engine: Engine) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{engine.metrics_port}/metrics") as answer:
        text = answer.read().decode()
    pattern = r'sunup_store_failures_total\{function="f",result="(\w+)"\} ([0-9.e+]+)'
    return {result: float(value) for result, value in re.findall(pattern, text)}


def test_a_function_that_rejects_says_so_at_once(engine: Engine, redis_server: RedisServer) -> None:
    fill(redis_server)
    deploy(engine, redis_server, ReadPlan(1, "contract", 3, 300.0, "reject", ENTITIES, entity_columns(ENTITIES)))
    body = json.dumps({"user_id": 1}).encode()
    with closing(engine.open()) as connection:
        assert engine.ask("POST", "/functions/f", body, connection).status == 200
        redis_server.signal(signal.SIGSTOP)
        seconds = []
        for _ in range(13):
            begun = time.monotonic()
            answer = engine.ask("POST", "/functions/f", body, connection)
            seconds.append(time.monotonic() - begun)
            assert answer.status == 503
            assert answer.headers["retry-after"] == "1"
        assert all(each > 0.25 for each in seconds[:3])  # the deadline
        assert sum(each < 0.1 for each in seconds[3:]) >= 8  # but for a trial or two
        redis_server.signal(signal.SIGCONT)
        begun = time.monotonic()
        while engine.ask("POST", "/functions/f", body, connection).status != 200:
            assert time.monotonic() - begun < RECOVERY_SECONDS_MAX
            time.sleep(0.01)
