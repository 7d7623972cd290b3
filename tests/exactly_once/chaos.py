"""A stream under faults: records written while workers, the broker and the engine are killed and revisions change.

One step after the other: some records are written, and while they are scored a worker is killed with SIGKILL at a
random moment; a few steps do more than that. Then everything is read back and every record is accounted for.
"""

import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.engine_fixture import until
from tests.exactly_once.ledger import Faults, Ledger, entries, tell
from tests.kafka_fixture import KafkaServer, collect_sockets, settled
from tests.topics import Entry, Scored

# A transaction whose worker was killed and not replaced ends by the broker's clock: its time-out, looked at every 10 s.
SETTLE_SECONDS_MAX = 60.0
LOG_LINES = 25
CHUNK = 5000  # records that are written together


@dataclass(frozen=True)
class Plan:
    """`calm`: seconds from one step to the next, at least and at most; `moment`: from the first record of a step to its
    kill. `bad`: share of malformed records. `head`: share of the records that are there at the beginning. `..._at`:
    after which share of the kills; 1 is never."""

    records: int
    kills: int
    seconds_max: float
    calm: tuple[float, float] = (2.0, 6.0)
    moment: tuple[float, float] = (0.0, 0.5)
    bad: float = 0.0
    head: float = 0.2
    partitions: int = 8
    workers: int = 4
    seed: int = 1
    watcher_at: float = 0.2
    broker_at: float = 0.4
    deploy_at: float = 0.6
    supervisor_at: float = 0.8

    def step(self, share: float) -> int:
        return int(share * self.kills)


@dataclass
class Outcome:
    """What was done and what came of it. `seconds`: from the first record written until the last worker ended."""

    kills: int = 0
    while_reading: int = 0  # kills of a worker while records waited
    acts: list[str] = field(default_factory=list)
    seconds: float = 0.0
    settle_seconds: float = 0.0  # from the last worker's end until no transaction was open
    faults: Faults = field(default_factory=Faults)
    revisions: dict[int, int] = field(default_factory=dict)  # how many records each scored
    letters: int = 0

    def line(self) -> str:
        """For people."""
        done = ", ".join(self.acts)
        return (
            f"{sum(self.revisions.values()):,} scored by revisions {self.revisions}, {self.letters:,} dead letters, in "
            f"{self.seconds:.1f} s and {self.settle_seconds:.1f} s until settled; {self.kills} workers killed, "
            f"{self.while_reading} of them with records waiting, {done}: {self.faults}"
        )


class Chaos:
    """One run. `server`: the broker to kill, of a stream that has one to itself."""

    def __init__(self, scored: Scored, plan: Plan, server: KafkaServer | None = None) -> None:
        self.outcome = Outcome()
        self._scored = scored
        self.plan = plan
        self._server = server
        self._draw = random.Random(plan.seed)
        self._codes: dict[bytes, str] = {}  # of malformed records
        self._factors: dict[int, float] = {}  # of revisions
        self._begun = 0.0

    def run(self) -> Outcome:
        """To the end, or AssertionError with an account of everything. The outcome's faults are not judged here."""
        plan, scored = self.plan, self._scored
        scored.create(plan.partitions)
        self._deploy(2.0)
        self._begun = time.monotonic()
        try:
            self._steps()
            collect_sockets()
            self._wait(self._is_done, "no lag and no worker")
        except Exception as error:
            raise AssertionError(f"{error}\n{self.account()}") from error
        self.outcome.seconds = time.monotonic() - self._begun
        self._settle()
        self._judge()
        return self.outcome

    def account(self) -> str:
        """Everything that is known of a run that did not come to its end."""
        scored, parts = self._scored, []
        facts: list[tuple[str, Callable[[], object]]] = [
            ("done", lambda: f"{self.outcome.kills} kills, {self.outcome.acts}, after {self._since():.0f} s"),
            ("engine", lambda: json.dumps(scored.engine.status(scored.name)["functions"][0])),
            ("positions and ends", lambda: scored.topics.positions(scored.stream.group, scored.stream.input)),
            ("open transactions", self._unsettled),
            ("records", self._judged),
            ("log", lambda: _tail(scored.engine.project.logs / f"{scored.name}.log")),
            ("watcher", lambda: _tail(scored.engine.project.logs / "watcher.log")),
        ]
        for name, fact in facts:
            try:
                parts.append(f"{name}: {fact()}")
            except Exception as error:  # an account is of things that do not work
                parts.append(f"{name}: {error!r}")
        return "\n".join(parts)

    # --- What happens -------------------------------------------------------------------------------------------------

    def _steps(self) -> None:
        plan = self.plan
        cuts = [0, int(plan.head * plan.records)]
        rest = plan.records - cuts[1]
        cuts += [cuts[1] + rest * (step + 1) // plan.kills for step in range(plan.kills)]
        with self._scored.topics.sending(self._scored.stream.input) as send:
            self._write(send, range(cuts[0], cuts[1]))
            for step in range(plan.kills):
                portion = range(cuts[step + 1], cuts[step + 2])
                with _beside(lambda portion=portion: self._write(send, portion)):  # type: ignore[misc]
                    self._step(step)
                time.sleep(self._draw.uniform(*plan.calm))

    def _step(self, step: int) -> None:
        plan = self.plan
        time.sleep(self._draw.uniform(*plan.moment))  # nobody can foresee it
        self._kill_worker()
        if step == plan.step(plan.watcher_at):
            self._kill("watcher")
        if step == plan.step(plan.broker_at) and self._server is not None:
            self._restart_broker(self._server)
        if step == plan.step(plan.deploy_at):
            self._deploy(3.0)
            self.outcome.acts.append("a deploy")
        if step == plan.step(plan.supervisor_at):
            self._kill("supervisor")

    def _write(self, send: Callable[[Iterable[Entry]], None], numbers: range) -> None:
        written = []
        for one, code in entries(numbers, self.plan.bad):
            written.append(one)
            if code is not None:
                self._codes[one[0] or b""] = code
        for start in range(0, len(written), CHUNK):
            send(written[start : start + CHUNK])
        self._scored.sent += len(written)

    def _kill_worker(self) -> None:
        """One that is there now, whatever it does."""
        scored = self._scored
        waiting = scored.facts["lag"] > 0
        while True:
            self._wait(lambda: any(scored.workers), "a worker to kill")
            if listed := [pid for pid in scored.workers if pid]:  # os.kill takes 0 for everybody here
                with suppress(ProcessLookupError):  # it has ended by itself
                    os.kill(self._draw.choice(listed), signal.SIGKILL)
                    self.outcome.kills += 1
                    self.outcome.while_reading += waiting
                    return

    def _kill(self, role: str) -> None:
        """Of the engine's own processes."""
        engine = self._scored.engine
        os.kill(engine.pids()[role], signal.SIGKILL)
        if role == "supervisor":
            until(lambda: engine.running() is None, "the supervisor to be gone")
            engine.up()
        self.outcome.acts.append(f"the {role} killed")

    def _restart_broker(self, server: KafkaServer) -> None:
        begun = time.monotonic()
        server.kill()
        self._kill_worker_if_any()
        server.start()
        self.outcome.acts.append(f"the broker killed and back after {time.monotonic() - begun:.1f} s")

    def _kill_worker_if_any(self) -> None:
        if any(self._scored.workers):
            self._kill_worker()

    def _deploy(self, factor: float) -> None:
        self._scored.deploy(factor)
        self._factors[self._scored.revision] = factor

    # --- What came of it ----------------------------------------------------------------------------------------------

    def _is_done(self) -> bool:
        return self._scored.is_read() and not self._scored.workers

    def _unsettled(self) -> dict[tuple[str, int], tuple[int, int]]:
        if self._server is None:
            return {}
        topics = self._scored.stream.output, self._scored.stream.dead_letter
        found = {(topic, at): ends for topic in topics for at, ends in settled(self._server.servers, topic).items()}
        return {place: (stable, end) for place, (stable, end) in found.items() if stable != end}

    def _settle(self) -> None:
        try:
            self.outcome.settle_seconds = until(
                lambda: not self._unsettled(), "no open transaction", SETTLE_SECONDS_MAX
            )
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.account()}") from error

    def _judged(self) -> str:
        self._judge()
        return self.outcome.line()

    def _judge(self) -> None:
        topics, stream = self._scored.topics, self._scored.stream
        ledger = Ledger(self._factors, self._codes)
        scans = (topics.scan(name) for name in (stream.input, stream.output, stream.dead_letter))
        self.outcome.faults = tell(ledger, *scans)
        if ledger.records != self._scored.sent:
            self.outcome.faults.strange.append(f"{ledger.records} in the input topic, {self._scored.sent} were sent")
        for partition, (position, end) in topics.positions(stream.group, stream.input).items():
            if position != end:
                self.outcome.faults.strange.append(f"the group stands at {position} of {end} in partition {partition}")
        self.outcome.revisions = dict(sorted(ledger.by_revision.items()))
        self.outcome.letters = ledger.letters

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        until(condition, what, max(0.0, self.plan.seconds_max - self._since()))

    def _since(self) -> float:
        return time.monotonic() - self._begun


@contextmanager
def _beside(act: Callable[[], None]) -> Iterator[None]:
    """Do something in a thread meanwhile; what it raises is raised at the end."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            act()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield
    thread.join()
    if failed:
        raise failed[0]


def _tail(path: Path) -> str:
    return "\n" + "\n".join(path.read_text("utf-8", "replace").splitlines()[-LOG_LINES:])
