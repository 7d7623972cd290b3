"""When a store is asked and when it is not, on a timeline; and what a lookup makes of that."""

import asyncio
import math

import pytest
from msgspec.structs import replace
from tests.unit.test_lookup_join import REQUEST, SHOP, WALL, CountingStore, make_plan

from sunup.clock import ManualClock
from sunup.limits import CIRCUIT_FAILURES_MAX, CIRCUIT_SECONDS_MIN, CIRCUIT_TRIAL_SECONDS
from sunup.lookup.cache import CachedStore
from sunup.lookup.circuit import Circuit, CircuitOpen, GuardedStore, State
from sunup.lookup.join import Lookup
from sunup.lookup.keys import key_maker
from sunup.lookup.store import Answer, Keys, PartUnavailable, StoreUnavailable

DEADLINE = 0.03
TRIAL_MAX = 1.25 * CIRCUIT_TRIAL_SECONDS


def circuit_at_zero(chance: float = 0.5) -> tuple[Circuit, ManualClock]:
    clock = ManualClock()
    return Circuit(clock, chance=lambda: chance), clock


def fail_one(circuit: Circuit, clock: ManualClock) -> bool:
    """A read that waits for its deadline in vain."""
    began = clock.now()
    circuit.admit(began, began + DEADLINE)
    clock.advance(DEADLINE)
    return circuit.failed(began)


def opened() -> tuple[Circuit, ManualClock]:
    circuit, clock = circuit_at_zero()
    while not fail_one(circuit, clock):
        pass
    return circuit, clock


def test_it_opens_after_a_bounded_number_of_failures() -> None:
    circuit, clock = circuit_at_zero()
    assert [fail_one(circuit, clock) for _ in range(CIRCUIT_FAILURES_MAX)] == [False, False, True]
    assert circuit.state is State.OPEN
    with pytest.raises(CircuitOpen):
        circuit.admit(clock.now(), clock.now() + DEADLINE)
    assert repr(circuit) == "Circuit(open, 3 failed reads)"


def test_an_answer_in_between_starts_the_count_anew() -> None:
    circuit, clock = circuit_at_zero()
    for _ in range(10):
        for _ in range(CIRCUIT_FAILURES_MAX - 1):
            assert not fail_one(circuit, clock)
        assert circuit.troubled
        assert not circuit.succeeded()
        assert not circuit.troubled
    assert repr(circuit) == "Circuit(closed)"


def test_reads_that_fail_together_are_one_failure() -> None:
    circuit, clock = circuit_at_zero()
    began = clock.now()
    clock.advance(DEADLINE)
    assert not any(circuit.failed(began + n * 1e-5) for n in range(1000))
    assert circuit.state is State.CLOSED


def test_reads_refused_at_once_open_it_no_sooner_than_a_while() -> None:
    """A writer's lock of some milliseconds must not cost the calls behind it their features."""
    circuit, clock = circuit_at_zero()
    while not circuit.failed(clock.now()):
        clock.advance(0.001)
    assert clock.now() >= CIRCUIT_SECONDS_MIN


def test_one_trial_at_a_time_and_a_success_closes() -> None:
    circuit, clock = opened()
    clock.advance(TRIAL_MAX)
    now = clock.now()
    circuit.admit(now, now + DEADLINE)  # the trial
    assert circuit.state is State.TRYING
    for _ in range(100):
        with pytest.raises(CircuitOpen):
            circuit.admit(now, now + DEADLINE)
    assert circuit.succeeded()
    assert repr(circuit) == "Circuit(closed)"
    circuit.admit(now, now + DEADLINE)


def test_a_failed_trial_is_followed_by_another_after_the_interval() -> None:
    circuit, clock = opened()
    trials = 0
    for _ in range(2000):  # two seconds of a call each millisecond
        began = clock.now()
        try:
            circuit.admit(began, began + DEADLINE)
        except CircuitOpen:
            pass
        else:
            trials += 1
            clock.advance(DEADLINE)
            assert not circuit.failed(began)
        clock.advance(0.001)
    assert 2.0 / (DEADLINE + TRIAL_MAX) - 1 <= trials <= 1 + 3.0 / CIRCUIT_TRIAL_SECONDS


def test_a_trial_that_was_cancelled_does_not_stop_further_ones() -> None:
    circuit, clock = opened()
    clock.advance(TRIAL_MAX)
    circuit.admit(clock.now(), clock.now() + DEADLINE)  # and nothing more is ever heard of it
    clock.advance(DEADLINE + CIRCUIT_TRIAL_SECONDS)
    circuit.admit(clock.now(), clock.now() + DEADLINE)


def test_reads_from_before_it_opened_do_not_put_trials_off() -> None:
    circuit, clock = opened()
    clock.advance(CIRCUIT_TRIAL_SECONDS)
    assert not circuit.failed(0.0)
    circuit.admit(clock.now(), clock.now() + DEADLINE)


def test_workers_do_not_try_together() -> None:
    """The first trial after a common failure is anywhere within the interval."""
    firsts = []
    for chance in (0.0, 0.5, 0.99):
        circuit, clock = circuit_at_zero(chance)
        while not fail_one(circuit, clock):
            pass
        opened_at = clock.now()
        while circuit.state is State.OPEN:
            try:
                circuit.admit(clock.now(), clock.now() + DEADLINE)
            except CircuitOpen:
                clock.advance(0.001)
        firsts.append(round((clock.now() - opened_at) / CIRCUIT_TRIAL_SECONDS, 2))
    assert firsts == [0.0, pytest.approx(0.5, abs=0.02), pytest.approx(0.99, abs=0.02)]


# --- In a lookup ------------------------------------------------------------------------------------------------------


class AwaitedStore(CountingStore):
    """Awaited, and every failure takes its reader's deadline."""

    inline = False

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(make_plan())
        self.clock = clock
        self.reads = 0
        self.error: StoreUnavailable | None = None

    async def read(self, keys: Keys, deadline: float) -> Answer:
        self.reads += 1
        if self.error is not None:
            self.clock.advance(deadline - self.clock.now())
            raise self.error
        return await super().read(keys, math.inf)


def guarded(store: CountingStore, clock: ManualClock) -> Lookup:
    return Lookup(make_plan(), GuardedStore(store, make_plan(), clock=clock), REQUEST)


def read(lookup: Lookup, clock: ManualClock, until: float = math.inf) -> bool:
    """One call; whether it got its values."""
    found = asyncio.run(lookup.read([(1.0, 1, "a")], now=clock.now(), wall=WALL, until=until))
    return found.ages != {} or found.values[0][3] != "?"


def test_a_lookup_stops_asking_and_comes_back() -> None:
    clock = ManualClock()
    store = AwaitedStore(clock)
    store.put("shops_v3", key_maker([SHOP], {"shop": 0})(("a",)), {"city": b"\x12\x04Oslo"}, WALL)
    lookup = guarded(store, clock)
    told: list[bool] = []
    lookup.on_failure = told.append
    assert read(lookup, clock)
    store.error = StoreUnavailable("the deadline passed")
    for _ in range(50):
        assert not read(lookup, clock)
    assert store.reads == 1 + CIRCUIT_FAILURES_MAX
    assert told == [False] * CIRCUIT_FAILURES_MAX + [True] * (50 - CIRCUIT_FAILURES_MAX)
    assert "open" in repr(lookup)
    store.error = None
    clock.advance(TRIAL_MAX)
    assert read(lookup, clock)
    assert read(lookup, clock)
    assert "closed" in repr(lookup)


@pytest.mark.parametrize("late", [True, False])
def test_what_says_nothing_about_the_store_opens_nothing(late: bool) -> None:
    """A call that had no time left, or whose part of the store was away."""
    clock = ManualClock()
    store = AwaitedStore(clock)
    lookup = guarded(store, clock)
    store.error = StoreUnavailable("the deadline passed") if late else PartUnavailable("one node is down")
    for _ in range(50):
        read(lookup, clock, until=clock.now() + 0.002 if late else math.inf)
    assert store.reads == 50


def test_an_inline_store_has_one_too() -> None:
    clock = ManualClock()
    store = CountingStore(make_plan())
    lookup = guarded(store, clock)
    store.down = True
    for _ in range(100):
        store.asked = []
        lookup.read_now([(1.0, 1, "a")], now=clock.now(), wall=WALL)
        clock.advance(0.002)
    assert "open" in repr(lookup) or "trying" in repr(lookup)
    store.down = False
    clock.advance(TRIAL_MAX)
    lookup.read_now([(1.0, 1, "a")], now=clock.now(), wall=WALL)
    assert "closed" in repr(lookup)


def test_what_a_cache_remembers_is_served_while_the_circuit_is_open() -> None:
    clock = ManualClock()
    plan = make_plan()
    entities = tuple(
        replace(entity, views=tuple(replace(view, cache_s=60.0) for view in entity.views)) for entity in plan.entities
    )
    plan = replace(plan, entities=entities)
    store = AwaitedStore(clock)
    store.put("shops_v3", key_maker([SHOP], {"shop": 0})(("a",)), {"city": b"\x12\x04Oslo"}, WALL)
    guard = GuardedStore(store, plan, clock=clock)
    lookup = Lookup(plan, CachedStore(guard, plan, clock=clock), REQUEST)
    assert read(lookup, clock)
    store.error = StoreUnavailable("the deadline passed")
    for _ in range(10):
        asyncio.run(lookup.read([(1.0, 2, "b")], now=clock.now(), wall=WALL))
        assert read(lookup, clock)  # an answer of the cache's says nothing about the store
    assert guard.circuit.state is State.OPEN
    assert store.reads == 1 + CIRCUIT_FAILURES_MAX
