"""`platform deploy DIR DIR ...`: bundles prepared before, taken into the store side by side, deployed together."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click

from sunup.bundle.intake import take_all
from sunup.bundle.manifest import FEATURES, Manifest
from sunup.bundle.store import MANIFEST, read_manifest
from sunup.cli.engine import ensure
from sunup.cli.streams.broker import broker_settings
from sunup.cli.terminal import Stages, show_error, show_json, show_note, stages
from sunup.engine.local.client import deploy_many as ask
from sunup.errors import CommandError, UsageError
from sunup.limits import DEPLOY_ASKED
from sunup.settings import PICTURES, TAKES, Project

Features = Callable[[Project, Stages], Mapping[str, str]]  # what workers that look features up get at birth
Facts = dict[str, Any]


def deploy_many(
    project: Project, folders: Sequence[Path], *, no_start: bool, as_json: bool, features: Features
) -> None:
    """Deploy every folder that is a bundle and proves itself; exit with 1 if one is not or does not."""
    began = time.monotonic()
    with stages(quiet=as_json) as shown:
        ensure(project, shown, may_start=not no_start)
        run = Run(project, features, shown)
        try:
            run.deploy(folders)
        finally:
            run.show(time.monotonic() - began, as_json=as_json)
    if run.failed:
        click.get_current_context().exit(1)


class Run:
    """One such command, and what came of it so far."""

    def __init__(self, project: Project, features: Features, shown: Stages) -> None:
        self.live: list[Facts] = []
        self.failed: list[Facts] = []
        self.notes: dict[str, None] = {}
        self._project = project
        self._features = features
        self._features_known: Mapping[str, str] | None = None
        self._shown = shown
        self._folders: dict[str, Path] = {}  # by function

    def deploy(self, folders: Sequence[Path]) -> None:
        """All of them, some hundred at a time: while the engine proves those, the next ones are copied."""
        self._shown.begin("deploy", f"{len(folders)} bundles")
        parts = [folders[start : start + DEPLOY_ASKED] for start in range(0, len(folders), DEPLOY_ASKED)]
        with ThreadPoolExecutor(1) as pool:
            try:
                for part, taken in zip(parts, pool.map(self._take, parts), strict=True):
                    wanted = [self._wanted(folder, one) for folder, one in zip(part, taken, strict=True)]
                    self._ask([one for one in wanted if one is not None], len(folders))
            finally:
                pool.shutdown(cancel_futures=True)
        self._shown.end()

    def show(self, seconds: float, *, as_json: bool) -> None:
        """What was done, on standard output; what was not, a line each on standard error."""
        self._shown.stop()
        if as_json:
            facts = {"functions": self.live, "failed": self.failed}
            show_json({**facts, "seconds": round(seconds, 4), "stages": self._shown.seconds})
            return
        for note in self.notes:
            show_note(note)
        for one in self.failed:
            show_error(f"{one['bundle']}: {one['error']['message']}")
        unchanged = sum(one["unchanged"] for one in self.live)
        said = f"{len(self.live)} functions are live after {seconds:.1f} s"
        said += f", {unchanged} of them unchanged" if unchanged else ""
        click.echo(said + (f"; {len(self.failed)} bundles failed" if self.failed else ""))

    def _take(self, folders: Sequence[Path]) -> list[str | CommandError]:
        """The digests of the bundles, in the store now with every byte checked; or why not."""
        bundles = [folder for folder in folders if (folder / MANIFEST).is_file()]
        taken = dict(zip(bundles, take_all(self._project.bundles, bundles), strict=True))
        none = UsageError(f"It is no bundle: it holds no {MANIFEST}. Several are deployed from folders only.")
        return [taken.get(folder, none) for folder in folders]

    def _wanted(self, folder: Path, taken: str | CommandError) -> Facts | None:
        """What the engine is asked; None for what failed already."""
        if isinstance(taken, CommandError):
            self._fail(folder, taken.code, taken.message)
            return None
        manifest = read_manifest(self._project.bundles / taken)
        name = manifest.function
        if name in self._folders:
            self._fail(folder, "usage", f"{self._folders[name]} is of the function {name}, too. Give one of them.")
            return None
        try:
            settings = self._settings(manifest)
        except CommandError as error:
            self._fail(folder, error.code, error.message)
            return None
        self._folders[name] = folder
        return {"function": name, "digest": taken, "settings": settings}

    def _settings(self, manifest: Manifest) -> dict[str, str]:
        broker, note = broker_settings(manifest.stream, os.environ, self._project.root)
        if note:
            self.notes[note] = None
        if FEATURES not in manifest.files:
            return {**broker, **takes(manifest)}
        if self._features_known is None:
            self._features_known = self._features(self._project, self._shown)
        return {**self._features_known, **broker, **takes(manifest)}

    def _ask(self, wanted: Sequence[Facts], count: int) -> None:
        if not wanted:
            return
        before = len(self.live) + len(self.failed)
        told = ask(self._project, wanted, lambda event: self._shown.update(f"{before + event['done']} of {count}"))
        for facts in told:
            if "error" in facts:
                self._fail(self._folders[facts["function"]], facts["error"]["code"], facts["error"]["message"])
            else:
                self.live.append(facts)

    def _fail(self, folder: Path, code: str, message: str) -> None:
        self.failed.append({"bundle": str(folder), "error": {"code": code, "message": message}})


def takes(manifest: Manifest) -> dict[str, str]:
    """What the nursery must know before it gives birth to a worker: whether it takes pictures."""
    return {TAKES: PICTURES} if manifest.image else {}
