"""Python runs this at its start where its folder is in PYTHONPATH: it breaks aggregation in one of three WAYS.

    own     a score sees its own event, too
    tail    what was committed after the last checkpoint is not read again
    tiles   a checkpoint keeps the offset, and not the tiles it stands for

For tests that see whether the ledger finds it. SUNUP_TEST_BROKEN says which.
"""

import os
from typing import Any

WAY = os.environ["SUNUP_TEST_BROKEN"]

if WAY == "own":
    from sunup.stream.aggregate.table import Table, Taken

    once = Table.take

    def take(self: Table, events: Any) -> Taken:
        """Each event twice: the second one is a duplicate, which changes nothing and sees the first."""
        counted = [once(self, [event]) for event in events]
        seen = [once(self, [event]).before[0] for event in events]
        return Taken(seen, *(sum(getattr(one, name) for one in counted) for name in Taken._fields[1:]))

    Table.take = take  # type: ignore[method-assign]

elif WAY == "tail":
    from sunup.stream.aggregate.kept.opening import Opening

    def catch_up(_: Opening, part: Any, position: int | None) -> None:
        """As if everything were there."""
        part.next = part.next if position is None else position
        part.is_behind = False

    Opening.catch_up = catch_up  # type: ignore[method-assign, assignment]

elif WAY == "tiles":
    from sunup.stream.aggregate.kept.state import State

    keep = State.keep

    def keep_offset(self: State, offset: int, watermarks: Any, changes: Any, **more: Any) -> None:
        """Every other change is lost."""
        keep(self, offset, watermarks, list(changes)[::2], **more)

    State.keep = keep_offset  # type: ignore[method-assign]
