"""What the workers of a stream tell of the feature views it aggregates, and whether one is needed for their sake.

Values change without a record, too: when a tile leaves a window. Workers tell when that will be; at zero one is born
then. What ended workers told of that stands until those that live have spoken, if they could settle everything; after
one that was killed, somebody has to look. Pure: time is given, `now` in monotonic seconds, `wall` in seconds since the
epoch, which is what workers speak of.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any, Final

from sunup.limits import AGGREGATE_NEAR_SECONDS, AGGREGATE_VAIN_SECONDS, AGGREGATE_WAKE_SECONDS_MAX

_COUNTS: Final = ("late", "duplicates", "invalid", "misplaced")
_PAUSE_SECONDS: Final = 5.0  # the first one, after a worker that stayed in vain
_NEVER: Final = float("inf")


class Word:
    """The last of one worker. `due`: wall seconds, `_NEVER`, or None before it has told, of `partitions`; `views`:
    facts by name; `is_settled`: nothing that it took is left to be done."""

    __slots__ = ("due", "has_ended", "is_settled", "partitions", "views")

    def __init__(self) -> None:
        self.due: float | None = None
        self.partitions: frozenset[int] = frozenset()
        self.has_ended = self.is_settled = False
        self.views: Mapping[str, Mapping[str, Any]] = {}

    @property
    def behind(self) -> int:
        """Entities whose values the store does not have."""
        return sum(one["behind"] for one in self.views.values())


class Aggregating:
    """Of one stream. `views`: those it aggregates, each as Feast's project, a slash and its name."""

    def __init__(self, views: Collection[str]) -> None:
        self._past: dict[str, Counter[str]] = {}
        self._reasons: dict[str, str] = {}
        self._words: dict[str, Word] = {}
        self.views: tuple[str, ...] = ()
        self.notes: list[str] = []  # what a person should know, as workers told since it began
        self.begin(views)

    def __repr__(self) -> str:
        return f"Aggregating({', '.join(self.views)}, known={self._is_known}, due={self._due})"

    def begin(self, views: Collection[str]) -> None:
        """Another revision is routed, or the stream goes on after a pause: nothing is known, one worker has to look."""
        self._drop(list(self._words))
        self.notes = []
        if self.views != tuple(views):
            self.views = tuple(views)
            self._past.clear()
            self._reasons.clear()
        self._is_known = False
        self._due = _NEVER  # the earliest of all words
        self._is_behind = False
        self._news = 0.0  # when something was told that was not known, or else when none was there or needed
        self._pause = _PAUSE_SECONDS
        self._not_before = 0.0

    def told(self, name: str, head: Mapping[str, Any], now: float) -> None:
        """`due`, `features` or `settled`, from a worker of the routed revision."""
        word = self._words.setdefault(name, Word())
        if head["op"] == "settled":
            word.is_settled = True
            return
        before = word.due, word.partitions, word.views
        if head["op"] == "due":
            word.due = _NEVER if head["at"] is None else head["at"]
            word.partitions = frozenset(head["partitions"])
        else:
            word.views = head["views"]
            self.notes += [note for note in head["notes"] if note not in self.notes]
            for view, one in word.views.items():
                if one["reason"]:
                    self._reasons.setdefault(view, one["reason"])
        if before != (word.due, word.partitions, word.views):
            self._news = now
        self._sum()

    def ended(self, name: str) -> None:
        """A worker is gone: what it told stands, for it may have been the last one. One that was killed may have
        committed what it never told of, and what the store does not have."""
        word = self._words.setdefault(name, Word())
        word.has_ended = True
        self._is_known = self._is_known and word.is_settled

    def needs(self, living: Collection[str], read: Collection[int], wall: float, now: float) -> bool:
        """Whether one worker has to be there though no record waits. `living`: the workers that are or will be; `read`:
        the partitions that they have to speak for.

        One that is near its next change need not end before. One that stays in vain, because the store is down for
        example, ends, and another one is born later and later.
        """
        if living and self._have_told(living, read):
            self._is_known = True
            self._drop([name for name, word in self._words.items() if word.has_ended])
        near = AGGREGATE_NEAR_SECONDS if living else 0.0
        if self._is_known and self._due > wall + near and not self._is_behind:
            self._pause, self._not_before, self._news = _PAUSE_SECONDS, 0.0, now
            return False
        if now < self._not_before:
            return False
        if not living:
            self._news = now
        elif now - self._news > AGGREGATE_VAIN_SECONDS:
            # Somebody else's workers may have the other partitions: more than these could tell is not to be learnt.
            self._is_known = self._is_known or self._have_told(living, ())
            self._not_before = now + self._pause
            self._pause = min(2 * self._pause, AGGREGATE_WAKE_SECONDS_MAX)
            return False
        return True

    def wakes_in(self, wall: float, now: float) -> float | None:
        """Seconds until `needs` has to be asked again where no worker is; None: not before something happens."""
        if not self._is_known or self._is_behind:
            return max(0.0, self._not_before - now)
        return None if self._due == _NEVER else max(0.0, self._due - wall, self._not_before - now)

    def facts(self, *, reads: bool, lag: int) -> list[dict[str, Any]]:
        """Of each view, for `platform stream status`. `reads`: a worker is there; `lag`: records that wait."""
        told = [view for word in self._words.values() for view in word.views]
        names = list(dict.fromkeys([*self._past, *told])) or [
            view.rpartition("/")[2] for view in self.views
        ]  # workers call them as their plan does
        return [self._facts(view, reads=reads, lag=lag) for view in names]

    @property
    def due(self) -> float | None:
        """Wall seconds when a value changes next without a record; None: none will, or that is not known."""
        return None if self._due == _NEVER else self._due

    def _facts(self, view: str, *, reads: bool, lag: int) -> dict[str, Any]:
        told = [word.views[view] for word in self._words.values() if view in word.views]
        past = self._past.get(view, Counter())
        counts = {kind: past[kind] + sum(one[kind] for one in told) for kind in _COUNTS}
        fresh = [one["freshness_ms"] for one in told if one["freshness_ms"] is not None]
        behind = sum(one["behind"] for one in told)
        return {
            "view": view,
            "state": self._state(reads=reads, lag=lag, behind=behind),
            "entities": sum(one["entities"] for one in told) if told else None,
            "freshness_ms": round(max(fresh), 1) if fresh else None,
            "behind": behind,
            **counts,
            "reason": self._reasons.get(view, ""),
        }

    def _state(self, *, reads: bool, lag: int, behind: int) -> str:
        if not self._is_known:
            return "looking" if reads else "unknown"
        if behind:
            return "behind"
        if lag:
            return "catching up"
        return "aggregating" if reads else "idle"

    def _have_told(self, living: Collection[str], read: Collection[int]) -> bool:
        words = [self._words[name] for name in living if name in self._words]
        if len(words) < len(living) or any(word.due is None for word in words):
            return False
        return all(any(number in word.partitions for word in words) for number in read)

    def _drop(self, names: Collection[str]) -> None:
        """Of these, nothing but what they counted is kept."""
        for name in names:
            for view, one in self._words.pop(name).views.items():
                self._past.setdefault(view, Counter()).update({kind: one[kind] for kind in _COUNTS})
        if names:
            self._sum()

    def _sum(self) -> None:
        """What every tick compares."""
        words = self._words.values()
        self._due = min((word.due for word in words if word.due is not None), default=_NEVER)
        self._is_behind = any(word.behind for word in words)
