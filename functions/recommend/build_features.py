"""The feature job: simulate, aggregate, and write what Feast and the training read.

    python -m functions.recommend.build_features [--end 2026-01-01] [--seed 30]

writes features/data/user_stats.parquet and item_stats.parquet (daily snapshots), .sunup/recommend/views.parquet (all
views) and .sunup/recommend/holdout.parquet (those of the last HOLDOUT_DAYS days, never trained on). The span ends
today by default, as that of functions/fraud does and for the same reason: old online values are not served.
"""

import argparse
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pandas as pd

from functions.recommend.history import snapshots
from functions.recommend.simulate import DAYS, SEED, simulate
from sunup.settings import Project, find_project

HOLDOUT_DAYS: Final = 7
PARTING: Final = DAYS - HOLDOUT_DAYS  # the day the hold-out span begins; online features are as of its midnight


@dataclass(frozen=True, slots=True)
class Data:
    """Where the job's files are."""

    project: Project

    @property
    def views(self) -> Path:
        """user_id, item_id, event_timestamp (UTC), day; ascending in time."""
        return self.project.state / "recommend" / "views.parquet"

    @property
    def holdout(self) -> Path:
        """The same, of the last HOLDOUT_DAYS days."""
        return self.project.state / "recommend" / "holdout.parquet"

    def view(self, name: str) -> Path:
        """The daily snapshots of a feature view."""
        return self.project.features / "data" / f"{name}.parquet"


def today() -> datetime:
    """Today's midnight in UTC."""
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def build(project: Project, *, end: datetime, seed: int = SEED) -> Data:
    """Write all files under `project`, each whole or not at all, and say where they are. `end`: a midnight in UTC."""
    data = Data(project)
    simulation = simulate(end=end, seed=seed)
    for name, table in snapshots(simulation).items():
        _write(table, data.view(name))
    _write(simulation.views, data.views)
    late = simulation.views[simulation.views["day"] >= PARTING]
    _write(late.reset_index(drop=True), data.holdout)
    # Feast makes the folder of its registry, but not that folder's parent.
    (project.state / "features").mkdir(parents=True, exist_ok=True)
    return data


def midnight(data: Data, day: int) -> datetime:
    """When a day of the simulation begins (UTC)."""
    first = pd.read_parquet(data.views, columns=["event_timestamp"])["event_timestamp"].min()
    start = datetime.fromtimestamp(first.floor("D").timestamp(), UTC)
    return start + timedelta(days=day)


def _write(table: pd.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    table.to_parquet(temporary, index=False)
    os.replace(temporary, path)


def main() -> None:
    parser = argparse.ArgumentParser(description="Simulate views and write features/data and .sunup/recommend.")
    parser.add_argument("--end", type=datetime.fromisoformat, help="last midnight, UTC (default: today's)")
    parser.add_argument("--seed", type=int, default=SEED)
    given = parser.parse_args()
    end = given.end.replace(tzinfo=UTC) if given.end else today()
    data = build(find_project(Path.cwd()), end=end, seed=given.seed)
    print(f"Wrote {data.views.parent}/*.parquet and {data.view('*')}: the last {HOLDOUT_DAYS} days are held out.")


if __name__ == "__main__":
    main()
