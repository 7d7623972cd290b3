"""What `platform features compare` does: the profile of a revision, its log, and how far one is from the other."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sunup.bundle.declare.quantity import parse_seconds
from sunup.bundle.job import TRAINING
from sunup.bundle.store import Store, read_manifest
from sunup.cli.engine import running
from sunup.cli.features.screen import facts_of, show
from sunup.cli.terminal import show_json, show_note, when
from sunup.errors import CommandError, UsageError
from sunup.served.skew.compare import Comparison, compare
from sunup.served.skew.profile import Profile, load
from sunup.settings import TRAINING_SAMPLE, Project

if TYPE_CHECKING:
    from sunup.served.skew.reading import Log

_PROFILED: Final = "input example"  # as Profile.source names it


class Asked(NamedTuple):
    """What was typed. `revision` None: the one that serves; `since`: "24h"; `folder`: of the log, where it is not where
    function.toml says; `plot`: a file to draw; `psi_max`: beyond which it is a failure."""

    function: str
    revision: int | None
    since: str | None
    folder: Path | None
    plot: Path | None
    psi_max: float | None


class Revision(NamedTuple):
    """One revision of a function, its bundle's folder and the profile of its training sample."""

    function: str
    number: int
    model: str
    bundle: Path
    profile: Profile


def show_skew(project: Project, asked: Asked, *, as_json: bool) -> None:
    """Compare and show. Raises CommandError where there is nothing to compare, and after showing it a PSI beyond the
    one asked for; UsageError for what was typed."""
    begin = float("-inf") if asked.since is None else time.time() - _seconds(asked.since)
    revision = find_revision(project, asked.function, asked.revision)
    log, found = _read(revision, log_folder(project, revision.bundle, asked.folder), begin, asked.since)
    _warn(revision.profile, found, log, asked.psi_max)
    if asked.plot is not None:
        _draw(revision, found, asked.plot)
    if as_json:
        show_json(_facts(revision, found, log, asked.psi_max))
    else:
        show(found)
        show_note(_summary(revision, found))
        if asked.plot is not None:
            show_note(f"Drawn: {asked.plot}")
    limit = asked.psi_max
    if limit is not None and (over := [skew.column.name for skew in found.skews if skew.beyond(limit)]):
        raise CommandError(f"The PSI of {', '.join(over)} is over {limit:g}, and not by chance.")


def find_revision(project: Project, function: str, number: int | None) -> Revision:
    """A revision that the engine remembers. Raises UsageError for another one, CommandError where its bundle has no
    profile to compare with."""
    status = running(project).status(function)["functions"][0]
    wanted = status["revision"] if number is None else number
    found = next((each for each in status["revisions"] if each["revision"] == wanted), None)
    if found is None:
        kept = ", ".join(str(each["revision"]) for each in status["revisions"])
        raise UsageError(f"{function} has no revision {number} that is remembered. There: {kept}.")
    bundle = Store(project.bundles).open(found["digest"])
    return Revision(function, wanted, found["model"], bundle, _profile(bundle, f"{function} revision {wanted}"))


def log_folder(project: Project, bundle: Path, given: Path | None) -> Path:
    """Where the served-feature log of a bundle's function is. Raises CommandError where neither it nor `given` says."""
    if given is not None:
        return given
    declared = read_manifest(bundle).log
    if declared is None:
        raise CommandError(
            "This revision keeps no served-feature log: its function.toml has no [features] log. Declare one and "
            "deploy it, or say with --log DIR where a log is."
        )
    return project.root / declared.path


def _seconds(text: str) -> float:
    try:
        return parse_seconds(text)
    except ValueError as error:
        raise UsageError(f"--since: {error}.") from error


def _profile(bundle: Path, who: str) -> Profile:
    """The training profile of a bundle. Raises CommandError that says why there is nothing to compare with."""
    path = bundle / TRAINING
    todo = f"Log {TRAINING_SAMPLE} with the model, or an input example of many rows, and deploy it."
    if not path.exists():
        raise CommandError(
            f"The bundle of {who} has no {TRAINING}: it was made by an older Sunup, or takes images. Deploy it again, "
            "or compare another revision with --revision."
        )
    profile = load(path.read_bytes())
    if profile.problem:
        raise CommandError(f"There is no training sample of {who}: {profile.problem}. {todo}")
    return profile


def _read(revision: Revision, folder: Path, begin: float, since: str | None) -> tuple["Log", Comparison]:
    """The log of the revision, read and compared. Raises CommandError when there is nothing in it."""
    from sunup.served.skew.reading import Log  # pyarrow costs 100 ms, and other commands must not pay for it

    where = folder / revision.function / str(revision.number)
    log = Log(where, revision.profile.columns, since=begin)
    found = compare(revision.profile, log.batches())
    if not log.files:
        raise CommandError(
            f"Nothing of {revision.function} revision {revision.number} is in the served-feature log: {where} has no "
            "Parquet file. A log says what was served after it was turned on, a file at a time."
        )
    if found.rows and not found.skews:
        raise CommandError(
            f"The served-feature log in {where} has none of the model's columns: {', '.join(found.absent)}."
        )
    if not found.rows:
        unread = "".join(f" {each.path.name} cannot be read: {each.reason}." for each in log.skipped[:3])
        span = f" of the last {since}" if since else ""
        raise CommandError(f"The served-feature log in {where} has no row{span}.{unread}")
    return log, found


def _warn(profile: Profile, found: Comparison, log: "Log", psi_max: float | None) -> None:
    """What makes the figures less than they seem, a line each."""
    if profile.source == _PROFILED:
        show_note(
            f"The training sample is the model's input example, {profile.rows} rows that need not be like the others. "
            f"Log {TRAINING_SAMPLE} with the model for a better one."
        )
    for each in log.skipped:
        read = f" after {each.rows} rows" if each.rows else ""
        show_note(f"{each.path.name} was left out{read}: {each.reason}")
    if found.absent:
        show_note(f"Not in the log, or of another type there: {', '.join(found.absent)}.")
    if psi_max is not None and (unsure := [s.column.name for s in found.skews if s.unsure(psi_max)]):
        show_note(f"Too few rows to hold {len(unsure)} of {len(found.skews)} features to a PSI of {psi_max:g}.")


def _draw(revision: Revision, found: Comparison, path: Path) -> None:
    from sunup.served.skew.plot import plot  # matplotlib costs half a second, and few ask for it

    title = f"{revision.function} revision {revision.number} ({revision.model}): {found.rows:,} rows served, "
    try:
        plot(found.skews, f"{title}{revision.profile.rows:,} rows of training", path)
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error.strerror or error}.") from error


def _summary(revision: Revision, found: Comparison) -> str:
    first, last = map(when, found.times)
    return (
        f"{revision.function} revision {revision.number} ({revision.model}): {found.rows:,} rows served from {first} "
        f"to {last}; {revision.profile.rows:,} rows of training ({revision.profile.source})."
    )


def _facts(revision: Revision, found: Comparison, log: "Log", psi_max: float | None) -> dict[str, Any]:
    profile = revision.profile
    return {
        "function": revision.function,
        "revision": revision.number,
        "model": revision.model,
        "digest": revision.bundle.name,
        "training": {"rows": profile.rows, "source": profile.source, "sampled": profile.sampled},
        "served": {
            "rows": found.rows,
            "from": found.times[0],
            "to": found.times[1],
            "files": len(log.files),
            "skipped": [{"file": str(s.path), "reason": s.reason, "rows": s.rows} for s in log.skipped],
        },
        "psi_max": psi_max,
        "beyond": [s.column.name for s in found.skews if psi_max is not None and s.beyond(psi_max)],
        "absent": list(found.absent),
        "features": [facts_of(skew) for skew in found.skews],
    }
