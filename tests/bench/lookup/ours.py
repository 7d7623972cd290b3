"""Subject: Sunup's Lookup, called as a worker's pipeline calls it. Arguments: FOLDER (one.json, many.json) URL."""

import asyncio
import sys
from pathlib import Path
from typing import Any

from tests.bench.lookup.subject import Ask, loop, obey

from sunup.clock import SystemClock
from sunup.limits import LOOKUP_ROWS_PER_DEADLINE
from sunup.lookup.join import Lookup
from sunup.lookup.plan import load
from sunup.lookup.stores.open import open_store
from sunup.types import Features, Field

USER, ITEM = Field("user_id", "int64"), Field("item_no", "int32")
REQUEST = {"one": [USER], "many": [USER, ITEM]}


def ask(lookup: Lookup, service: str) -> Ask:
    """Rows come decoded from the call, so they are made beforehand. As in the pipeline: at once where the store can, a
    callback for one row, awaited for many."""
    clock = SystemClock()

    async def read(rows: list[tuple[Any, ...]]) -> Features:
        if lookup.inline and len(rows) <= LOOKUP_ROWS_PER_DEADLINE:
            return good(lookup.read_now(rows, now=clock.now(), wall=clock.wall()))
        if len(rows) > 1:
            return good(await lookup.read(rows, now=clock.now(), wall=clock.wall()))
        heard: asyncio.Future[Features | Exception] = asyncio.get_running_loop().create_future()
        lookup.ask(rows, now=clock.now(), wall=clock.wall(), told=heard.set_result)
        return good(await heard)

    def prepare(question: Any) -> list[tuple[Any, ...]]:
        return [(question,)] if service == "one" else [(question[0], item) for item in question[1]]

    return Ask(prepare, read, lambda _, found: [list(row) for row in found.values])


def good(found: Features | Exception) -> Features:
    """Raises RuntimeError for what is no answer: a default would be faster than a value."""
    if isinstance(found, Exception) or found.defaulted or found.failed:
        raise RuntimeError(f"not read: {found}")
    return found


def main() -> None:
    folder, url = Path(sys.argv[1]), sys.argv[2]
    with loop() as runner:
        asks = {}
        for service, request in REQUEST.items():
            plan = load((folder / f"{service}.json").read_bytes())
            lookup = Lookup(plan, open_store(url, plan), request)
            runner.run(lookup.open())
            asks[service] = ask(lookup, service)
        obey(runner, asks)


if __name__ == "__main__":
    main()
