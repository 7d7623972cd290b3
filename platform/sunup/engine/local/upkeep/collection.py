"""Removes bundles that nothing refers to, with all that is kept for them: proofs, notes of checks, caches.

A bundle stays while a remembered revision has it, while a worker of it lives, while it is being deployed, and
UNUSED_SECONDS_MAX after anybody made it or asked for it: the time a `platform deploy` has to reach the engine.
What goes leaves its name first, in one rename, and is deleted then: who is killed in between leaves something without a
name, which the next pass deletes.
"""

import asyncio
import contextlib
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Final

from sunup.bundle.store import Store
from sunup.engine.local.state import Kept
from sunup.limits import COLLECT_DELAY_SECONDS, COLLECTED_MAX, UNUSED_SECONDS_MAX
from sunup.settings import Project

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_GONE: Final = ".gone."  # how the name begins of what is being deleted


class Collector:
    """Looks soon after `soon`, off the event loop. `in_use()`: the bundles of workers that live."""

    def __init__(self, project: Project, kept: Kept, in_use: Callable[[], set[str]]) -> None:
        self._bundles = project.bundles
        self._store = Store(project.bundles)
        self._kept = kept
        self._in_use = in_use
        self._held: Counter[str] = Counter()
        self._going: set[str] = set()
        self._gone = asyncio.Condition()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._pass: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"Collector(held={sum(self._held.values())}, going={len(self._going)})"

    @contextlib.asynccontextmanager
    async def holding(self, digest: str) -> AsyncIterator[None]:
        """Keep a bundle while it is being deployed. One that is going just now is waited for, and is not there then."""
        async with self._gone:
            await self._gone.wait_for(lambda: digest not in self._going)
        self._held[digest] += 1
        try:
            yield
        finally:
            self._held[digest] -= 1
            self._held += Counter()  # without those at zero

    def soon(self) -> None:
        """Look in a moment; calls meanwhile share the look."""
        if self._timer is None and not self._closed:
            self._timer = self._loop.call_later(COLLECT_DELAY_SECONDS, self._begin)

    async def close(self) -> None:
        """Look no more; what is being removed is finished."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._pass is not None:
            await self._pass

    def _begin(self) -> None:
        self._timer = None
        if self._pass is not None and not self._pass.done():
            self.soon()
            return
        self._pass = self._loop.create_task(self._collect())

    async def _collect(self) -> None:
        before = time.time() - UNUSED_SECONDS_MAX
        try:
            old = await asyncio.to_thread(_asked_before, self._bundles, self._store, before)
            proven = self._kept.proven()  # asked before it is seen what is there: a proof made since is of no concern
            doomed = sorted(old - self._kept.digests() - self._in_use() - self._held.keys())
            self._going = set(doomed[:COLLECTED_MAX])
            try:
                await asyncio.to_thread(self._remove, sorted(self._going), before)
            finally:
                async with self._gone:
                    self._going = set()
                    self._gone.notify_all()
            self._kept.forget(proven.difference(await asyncio.to_thread(self._store.list)))
        except OSError as error:  # a full disk, a right taken away: tried again after the next deploy
            print(f"Bundles that nothing refers to could not be removed: {error}", file=sys.stderr)
        else:
            if len(doomed) > COLLECTED_MAX:
                self.soon()

    def _remove(self, digests: Iterable[str], before: float) -> None:
        for digest in digests:
            if self._store.remove(digest, before=before):
                print(f"Removed bundle {digest[:12]}: no function refers to it.", file=sys.stderr)
        with self._store.stage():
            pass  # what killed processes left half written goes with it
        for folder in (".checked", ".arranged"):
            _sweep(self._bundles / folder, self._bundles)
        _forget_inputs(self._bundles / ".index", self._bundles)


def _asked_before(bundles: Path, store: Store, before: float) -> set[str]:
    found = set()
    for digest in store.list():
        with contextlib.suppress(FileNotFoundError):
            if (bundles / digest).stat().st_mtime < before:
                found.add(digest)
    return found


def _sweep(folder: Path, bundles: Path) -> None:
    """Remove what is named after bundles that are gone: a file or a folder, its name the digest and more."""
    for path in [*folder.iterdir()] if folder.is_dir() else []:
        named = _DIGEST.match(path.name)
        if named is not None and not (bundles / named[0]).exists():
            _delete(path.replace(path.with_name(_GONE + path.name)))
        elif path.name.startswith(_GONE):
            _delete(path)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _forget_inputs(index: Path, bundles: Path) -> None:
    """Forget which inputs made bundles that are gone."""
    for path in [*index.iterdir()] if index.is_dir() else []:
        with contextlib.suppress(FileNotFoundError):
            if _DIGEST.fullmatch(path.name) and not (bundles / path.read_text()).exists():
                path.unlink()
