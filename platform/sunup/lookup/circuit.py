"""When to stop asking a store that does not answer, and when to ask it again; and a store around one that does so.

    CLOSED --CIRCUIT_FAILURES_MAX failed reads, one after the other--> OPEN: calls go without their store, at once
    OPEN --after about CIRCUIT_TRIAL_SECONDS, by the next call--> TRYING: its read is the trial, others are refused
    TRYING --trial failed--> OPEN          any read answered --> CLOSED

Reads that are under way together fail together when a network hiccups, so of reads that overlap one counts; and reads
that fail at once say little in a microsecond, so nothing opens before CIRCUIT_SECONDS_MIN of failures.
"""

import logging
import random
from collections.abc import Callable
from enum import Enum

from sunup.clock import Clock, SystemClock
from sunup.limits import CIRCUIT_FAILURES_MAX, CIRCUIT_SECONDS_MIN, CIRCUIT_TRIAL_SECONDS
from sunup.lookup.plan import ReadPlan
from sunup.lookup.store import Answer, Keys, Reading, Store, StoreUnavailable, Told

_log = logging.getLogger("sunup.lookup")


class State(Enum):
    """Of a circuit."""

    CLOSED = "closed"  # reads go to the store
    OPEN = "open"  # they are refused
    TRYING = "trying"  # one of them goes to the store, the others are refused


class CircuitOpen(StoreUnavailable):
    """A read that was refused without asking the store."""

    counts = False


class Circuit:
    """One store's, in one process. Pure. Times are monotonic seconds.

    `troubled`: a read failed since the last one that was answered. While it is False, which is the rule, nothing needs
    to be asked or told: that is all a call pays. `chance` gives numbers in [0, 1): workers must not try together.
    """

    def __init__(self, clock: Clock, *, chance: Callable[[], float] = random.random) -> None:
        self._clock = clock
        self._chance = chance
        self.state = State.CLOSED
        self.troubled = False
        self._failures = 0
        self._since = 0.0  # CLOSED: the first failed read began; else: the circuit opened
        self._failed_at = 0.0
        self._trial_at = 0.0

    def __repr__(self) -> str:
        return f"Circuit({self.state.value}{f', {self._failures} failed reads' if self.troubled else ''})"

    def admit(self, now: float, deadline: float) -> None:
        """A read is about to begin and may last until `deadline`. Raises CircuitOpen when it must not."""
        if self.state is State.CLOSED:
            return
        if now < self._trial_at:
            raise CircuitOpen(f"it did not answer {self._failures} reads, and is tried again now and then")
        self.state = State.TRYING
        # A trial whose caller was cancelled never says how it ended; another one may be made when its time is up.
        self._trial_at = deadline + CIRCUIT_TRIAL_SECONDS

    def failed(self, began: float) -> bool:
        """A read that was admitted at `began` got no answer in the time a read has. Whether that opened the circuit."""
        now = self._clock.now()
        if self.state is not State.CLOSED:
            if began >= self._since:  # a trial; reads from before it opened say nothing new
                self._failures += 1
                self._open_until(now + CIRCUIT_TRIAL_SECONDS * (0.75 + 0.5 * self._chance()))
            return False
        if self.troubled and began < self._failed_at:
            return False
        if not self.troubled:
            self.troubled, self._failures, self._since = True, 0, began
        self._failures += 1
        self._failed_at = now
        if self._failures < CIRCUIT_FAILURES_MAX or now - self._since < CIRCUIT_SECONDS_MIN:
            return False
        self._since = now
        self._open_until(now + CIRCUIT_TRIAL_SECONDS * self._chance())
        return True

    def succeeded(self) -> bool:
        """A read was answered. Whether that closed the circuit."""
        closed = self.state is not State.CLOSED
        self.state, self.troubled = State.CLOSED, False
        return closed

    def _open_until(self, at: float) -> None:
        self.state, self._trial_at = State.OPEN, at


class GuardedStore(Store):
    """`store` with a circuit. Below a cache, so that what is remembered is served while the circuit is open.

    Costs a call 0.4 us. A read counts against the store if it had the time of the plan: what is left of a late call's
    may be too little for any store.
    """

    def __init__(self, store: Store, plan: ReadPlan, *, clock: Clock | None = None) -> None:
        self.inline = store.inline
        self._store = store
        self._clock = clock or SystemClock()
        self._whole_s = plan.deadline_ms / 1000 * 0.9  # keys were made meanwhile
        self.circuit = Circuit(self._clock)

    def __repr__(self) -> str:
        return f"<{self._store!r}, {self.circuit!r}>"

    async def open(self) -> None:
        """See Store."""
        await self._store.open()

    def read_now(self, keys: Keys, deadline: float) -> Answer:
        began = self._begun(deadline)
        try:
            answer = self._store.read_now(keys, deadline)
        except StoreUnavailable as error:
            self._failed(error, began, deadline)
            raise
        if self.circuit.troubled:
            self._succeeded()
        return answer

    async def read(self, keys: Keys, deadline: float) -> Answer:
        began = self._begun(deadline)
        try:
            answer = await self._store.read(keys, deadline)
        except StoreUnavailable as error:
            self._failed(error, began, deadline)
            raise
        if self.circuit.troubled:
            self._succeeded()
        return answer

    def ask(self, keys: Keys, deadline: float, told: Told) -> Reading:
        began = self._begun(deadline)

        def answered(answer: Answer | Exception) -> None:
            if isinstance(answer, StoreUnavailable):
                self._failed(answer, began, deadline)
            elif self.circuit.troubled and not isinstance(answer, Exception):
                self._succeeded()
            told(answer)

        try:
            return self._store.ask(keys, deadline, answered)
        except StoreUnavailable as error:
            self._failed(error, began, deadline)
            raise

    async def close(self) -> None:
        """See Store."""
        await self._store.close()

    def _begun(self, deadline: float) -> float:
        """Monotonic seconds now. Raises CircuitOpen."""
        now = self._clock.now()
        if self.circuit.troubled:
            self.circuit.admit(now, deadline)
        return now

    def _failed(self, error: StoreUnavailable, began: float, deadline: float) -> None:
        if error.counts and deadline - began >= self._whole_s and self.circuit.failed(began):
            _log.warning("feature store is not waited for until it answers again: %s: %r", error.message, self._store)

    def _succeeded(self) -> None:
        if self.circuit.succeeded():
            _log.warning("feature store answers again: %r", self._store)
