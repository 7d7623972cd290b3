"""One partition: its tables in memory, its file, and what the batch in hand changes in them."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from math import inf
from typing import Final, NamedTuple, Protocol

from sunup.limits import AGGREGATE_CHANGES_MAX, AGGREGATE_ENTITIES_MAX, AGGREGATE_MEMORY_BYTES_MAX
from sunup.lookup.writing.writer import Write
from sunup.stream.aggregate.event import Event
from sunup.stream.aggregate.kept.changelog import Changelog, Marker
from sunup.stream.aggregate.kept.due import Due, Entity
from sunup.stream.aggregate.kept.origin import keep_origin, read_origin
from sunup.stream.aggregate.kept.state import DAMAGED, Change, Owed, State
from sunup.stream.aggregate.online import Online, Streamed
from sunup.stream.aggregate.table import Table, Taken, Values
from sunup.stream.broker import BrokerError, Output, Trouble

_OWED: Final = (0.0, inf)  # due, ends: it has to be written, and `ends` counts only when nothing is due
_ENTITY_BYTES: Final = 600  # of memory, of an entity without tiles
_MEMORY_PER_BYTE: Final = 5  # of what is kept of it: numbers are objects


class Counts(NamedTuple):
    """Of one view and one batch that was committed."""

    aggregated: int
    late: int
    duplicates: int


class Teller(Protocol):
    """What Aggregates tells while it works, on the thread it is used on. Returns at once."""

    def aggregated(self, view: str, counts: Counts) -> None:
        """A batch was committed."""
        ...

    def note(self, message: str) -> None:
        """What a person should know, and what to do about it. Nothing waits for it."""
        ...


class Facts(NamedTuple):
    """Of one view, in this process's partitions. `behind`: entities whose values the store does not have yet;
    `newest`: the newest event time, seconds since the epoch; `reason`: why the store cannot be written now, or "";
    `forgotten`: ids of events that an entity had too many of, see AGGREGATE_IDS_MAX."""

    entities: int
    behind: int
    newest: float
    reason: str
    forgotten: int


class Checkpoint(NamedTuple):
    """What is about to be kept. `logged`: ids of entities that the changelog gets now and did not hold."""

    changes: Sequence[Change]
    logged: Sequence[int]


class Entities:
    """What is in memory, and what the batch in hand did to it."""

    def __init__(self, number: int, views: Sequence[Streamed], state: State, online: Online) -> None:
        self.number = number
        self.state = state
        self.due = Due(state)
        self.origin = read_origin(state)  # of the topic the tiles are made of
        self.is_behind = True  # records between the file's and the group's position are to be read again
        self.is_changed = False  # since the last checkpoint
        self.is_logged = False  # whether the changelog knows that it was begun: else another machine would begin later
        self.is_ahead = False  # of the changelog: something that is kept is not in it
        self.seen = -inf  # wall seconds when it was ours for certain
        self._views = views
        self._online = online
        self._in_hand: int | None = None  # `next` once the batch is committed
        self._young: list[set[bytes]] = [set() for _ in views]  # entities used lately
        self._old: list[set[bytes]] = [set() for _ in views]
        self._bytes = 200.0  # of an entity, about
        self.forget()

    def __repr__(self) -> str:
        return f"Partition({self.number}, next={self.next}, behind={self.is_behind}, changed={self.is_changed})"

    def forget(self) -> None:
        """Back to the last checkpoint."""
        self.next = self.state.next
        self.tables = [
            Table(view.spec, watermark) for view, watermark in zip(self._views, self.state.watermarks, strict=True)
        ]
        self.is_behind, self.is_changed = True, False
        self._in_hand = None
        self._touched: list[dict[bytes, None]] = [{} for _ in self._views]  # by the batch in hand
        self._written: list[dict[bytes, tuple[float | None, float]]] = [{} for _ in self._views]  # since the checkpoint
        self._rows: list[list[Write]] | None = None
        for used in (*self._young, *self._old):
            used.clear()

    def is_of(self, origin: str) -> None:
        """The tiles are made of that topic."""
        if origin != self.origin:
            self.origin = origin
            keep_origin(self.state, origin)

    @property
    def is_settled(self) -> bool:
        """No batch is in hand."""
        return self._in_hand is None

    @property
    def is_unwritten(self) -> bool:
        """Entities changed in batches that are committed, and the store was not told yet."""
        return self._in_hand is None and any(self._touched)

    @property
    def changed_count(self) -> int:
        """Entities that changed since the last checkpoint."""
        return sum(map(len, self._written))

    @property
    def is_full(self) -> bool:
        """So much has changed since the last checkpoint that it is time for another one."""
        return self.changed_count >= AGGREGATE_CHANGES_MAX

    # --- A batch ------------------------------------------------------------------------------------------------------

    def take(self, events: Sequence[Sequence[Event]], offset: int) -> list[Taken]:
        """Events of each view, in the partition's order; `offset`: of the first record behind them."""
        taken = []
        for view, some in enumerate(events):
            keys = dict.fromkeys([event.key for event in some])
            self._load(view, keys)
            taken.append(self.tables[view].take(some))
            self._touched[view] |= keys
        self._in_hand, self._rows = offset, None
        return taken

    def values(self, view: int, event: Event) -> tuple[float | int | None, ...]:
        """What is known now, of an event that is in it already."""
        self._load(view, (event.key,))
        (found,) = self.tables[view].values([event.key], event.time)
        return found.values

    # --- Entities in memory -------------------------------------------------------------------------------------------

    def shrink(self, share: float) -> None:
        """Drop the entities that were not used for the longest time and are kept, where they are too many.
        `share`: this partition's part of all memory."""
        size = _ENTITY_BYTES + _MEMORY_PER_BYTE * self._bytes
        most = share * min(AGGREGATE_ENTITIES_MAX, AGGREGATE_MEMORY_BYTES_MAX / size)
        if sum(map(len, self._young)) <= most / 2:
            return
        for table, young, old in zip(self.tables, self._young, self._old, strict=True):
            table.drop(old - young)
        self._old, self._young = self._young, [set() for _ in self._views]

    def _load(self, view: int, keys: Collection[bytes]) -> None:
        table = self.tables[view]
        if lacking := table.lacks(keys):
            self._put(table, self.state.load(view, lacking))
        self._young[view].update(keys)

    def _put(self, table: Table, found: Mapping[bytes, bytes | None]) -> None:
        try:
            table.load(found)
        except ValueError as error:
            raise BrokerError(Trouble.FAILED, f"the tiles in {self.state.path}: {error}; {DAMAGED}") from error

    def _of(self, view: int, entities: Sequence[Entity], wall: float) -> list[Values]:
        """Their values; those that are not in memory do not stay there."""
        table = self.tables[view]
        keys = [each.key for each in entities]
        lacking = set(table.lacks(keys))
        self._put(table, {each.key: each.blob for each in entities if each.key in lacking})
        values = table.values(keys, wall)
        table.drop(lacking)
        return values


class Partition(Entities):
    """Of an open file. `next`: the first record that is not in the tables, but for the batch in hand."""

    def rows(self, wall: float) -> list[list[Write]]:
        """What the batch in hand changes in the store, of each view."""
        if self._rows is None:
            offset = self.next if self._in_hand is None else self._in_hand
            self._rows = []
            for view, touched in enumerate(self._touched):
                keys = list(touched)
                values = self.tables[view].values(keys, wall)
                span, written = self._views[view].span_s, self._written[view]
                written.update((key, (due, at + span)) for key, (_, at, due) in zip(keys, values, strict=True))
                self._rows.append(
                    self._online.rows(view, keys, values, epoch=self.state.epoch, offset=offset, wall=wall)
                )
        return self._rows

    def commit(self, wall: float, made: Checkpoint | None = None, *, logs: bool = False) -> None:
        """The batch in hand is committed, and so is the checkpoint `made` if there is one: into the file, then into the
        store. What that does not take is due."""
        rows = self.rows(wall)
        self.move_on()
        if made is not None:
            self._keep(made, [(view, row.key) for view, some in enumerate(rows) for row in some], logs=logs)
            self.is_logged = self.is_logged or logs
            self.is_ahead = not logs or len(made.logged) >= AGGREGATE_CHANGES_MAX
        self._touched = [{} for _ in self._views]
        self._rows = None
        for view, some in enumerate(rows):
            if not self._online.write(view, some):
                self._owe(view, [row.key for row in some])

    def move_on(self) -> None:
        """The batch in hand is committed; what it changes is written with that of the next ones."""
        if self._in_hand is not None:
            self.next, self._in_hand, self.is_changed = self._in_hand, None, True

    def commit_tail(self) -> None:
        """What was taken was committed before: it is due, for nobody knows whether the store has it."""
        for written, touched in zip(self._written, self._touched, strict=True):
            written.update(dict.fromkeys(touched, _OWED))
        self._touched = [{} for _ in self._views]
        self.move_on()

    # --- A checkpoint -------------------------------------------------------------------------------------------------

    def checkpoint(self, *, logs: bool) -> Checkpoint:
        """What has to be kept now. `logs`: the changelog gets it too."""
        changes: list[Change] = []
        for view, table in enumerate(self.tables):
            changed = table.changed()
            changes += [self._change(view, key, blob) for key, blob in changed.items()]
            if changed:
                self._bytes += 0.1 * (sum(len(each or b"") for each in changed.values()) / len(changed) - self._bytes)
        known = {(change.view, change.key) for change in changes}
        watermarks = [table.watermark for table in self.tables]
        idle = [each for each in self.due.idle(watermarks, AGGREGATE_CHANGES_MAX) if each not in known]
        changes += [Change(view, key, None, None, -inf) for view, key in idle]
        if not logs:
            return Checkpoint(changes, ())
        known.update(idle)
        ids, lacking = self.due.unlogged(AGGREGATE_CHANGES_MAX)
        changes += [change for change in lacking if (change.view, change.key) not in known]
        return Checkpoint(changes, ids)

    def _change(self, view: int, key: bytes, blob: bytes | None) -> Change:
        due, ends = self._written[view].get(key, _OWED)
        if blob is None and (due == 0.0 or key in self._touched[view]):  # it stays until the store was told
            return Change(view, key, self.tables[view].nothing, due, -inf)
        return Change(view, key, blob, due, ends)

    def outputs(self, changelog: Changelog, made: Checkpoint, *, goes_on: bool = False) -> Iterable[Output]:
        """The checkpoint as records. `goes_on`: others come before the changelog can be used."""
        offset = self.next if self._in_hand is None else self._in_hand
        is_whole = not goes_on and len(made.logged) < AGGREGATE_CHANGES_MAX
        digests = [view.digest for view in self._views]
        views = {digest: table.watermark for digest, table in zip(digests, self.tables, strict=True)}
        marker = Marker(self.state.epoch, offset, is_whole, views, self.state.mark, self.origin)
        return changelog.outputs(self.number, marker, made.changes)

    def write_due(self, wall: float, count: int) -> int:
        """Write what is due by `wall`, at most `count` entities; how many there were."""
        found = self.due.rows(wall, count)
        settled: list[tuple[float | None, float, int]] = []
        for view, streamed in enumerate(self._views):
            some = [entity for entity in found if entity.view == view]
            if not some:
                continue
            values = self._of(view, some, wall)
            rows = self._online.rows(
                view, [each.key for each in some], values, epoch=self.state.epoch, offset=self.next, wall=wall
            )
            if not self._online.write(view, rows):
                return 0
            settled += [
                (one.due, -inf if each.blob is None else one.at + streamed.span_s, each.id)
                for each, one in zip(some, values, strict=True)
            ]
        if found or self.state.resend is not None:
            self.due.settle(settled)
        return len(found)

    def _keep(self, made: Checkpoint, owed: Owed, *, logs: bool) -> None:
        watermarks = [table.watermark for table in self.tables]
        self.state.keep(self.next, watermarks, made.changes, owed=owed, is_logged=logs, logged=made.logged)
        for view, table in enumerate(self.tables):
            table.kept()
            table.drop([change.key for change in made.changes if change.view == view and change.blob is None])
            self._written[view].clear()
        self.is_changed = False

    def _owe(self, view: int, keys: Iterable[bytes]) -> None:
        """The store does not take these now."""
        keys = list(keys)
        if self.is_changed:
            self._written[view].update(dict.fromkeys(keys, _OWED))
        else:
            self.due.owe(view, keys)
            self.is_ahead = True
