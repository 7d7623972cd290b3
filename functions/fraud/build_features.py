"""The feature job: simulate, aggregate, and write what Feast and the training read.

    python -m functions.fraud.build_features [--end 2026-01-01] [--seed 20]

writes features/data/<view>.parquet (daily snapshots), .sunup/fraud/transactions.parquet (everything that happened) and
.sunup/fraud/holdout.parquet (the last HOLDOUT_DAYS days: request fields, event_time, transaction_id, is_fraud,
pattern).

The span ends today by default: online values are served only while they are younger than their ttl, so a fixed date
would make every feature stale. Only the times depend on it; amounts, features and labels come from the seed alone.
"""

import argparse
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pandas as pd

from functions.fraud.history import snapshots
from functions.fraud.simulate import REQUEST, SEED, simulate
from sunup.settings import Project, find_project

HOLDOUT_DAYS: Final = 7


@dataclass(frozen=True, slots=True)
class Data:
    """Where the job's files are."""

    project: Project

    @property
    def folder(self) -> Path:
        return self.project.state / "fraud"

    @property
    def transactions(self) -> Path:
        """REQUEST columns, event_timestamp (UTC), transaction_id, is_fraud, pattern; ascending in time."""
        return self.folder / "transactions.parquet"

    @property
    def holdout(self) -> Path:
        """REQUEST columns, event_time (UTC), transaction_id, is_fraud, pattern: the last HOLDOUT_DAYS days, which are
        never trained on."""
        return self.folder / "holdout.parquet"

    def view(self, name: str) -> Path:
        """The daily snapshots of a feature view."""
        return self.project.features / "data" / f"{name}.parquet"


def today() -> datetime:
    """Today's midnight in UTC."""
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def build(project: Project, *, end: datetime, seed: int = SEED) -> Data:
    """Write all files under `project`, each whole or not at all, and say where they are. `end`: a midnight in UTC."""
    data = Data(project)
    simulation = simulate(seed=seed, end=end)
    for name, table in snapshots(simulation).items():
        _write(table, data.view(name))
    _write(simulation.transactions, data.transactions)
    late = simulation.transactions["event_timestamp"] >= end - timedelta(days=HOLDOUT_DAYS)
    columns = [*REQUEST, "event_timestamp", "transaction_id", "is_fraud", "pattern"]
    holdout = simulation.transactions.loc[late, columns].rename(columns={"event_timestamp": "event_time"})
    _write(holdout.reset_index(drop=True), data.holdout)
    # Feast makes the folder of its registry, but not that folder's parent.
    (project.state / "features").mkdir(parents=True, exist_ok=True)
    return data


def holdout_start(data: Data) -> datetime:
    """The midnight that parts what is trained on from the hold-out span; online features are as of then."""
    last = pd.read_parquet(data.transactions, columns=["event_timestamp"])["event_timestamp"].max()
    end = last.ceil("D").to_pydatetime()
    return datetime.fromtimestamp(end.timestamp(), UTC) - timedelta(days=HOLDOUT_DAYS)


def _write(table: pd.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    table.to_parquet(temporary, index=False)
    os.replace(temporary, path)


def main() -> None:
    parser = argparse.ArgumentParser(description="Simulate transactions and write features/data and .sunup/fraud.")
    parser.add_argument("--end", type=datetime.fromisoformat, help="last midnight, UTC (default: today's)")
    parser.add_argument("--seed", type=int, default=SEED)
    given = parser.parse_args()
    end = given.end.replace(tzinfo=UTC) if given.end else today()
    data = build(find_project(Path.cwd()), end=end, seed=given.seed)
    print(f"Wrote {data.folder}/*.parquet and {data.view('*')}: the last {HOLDOUT_DAYS} days are held out.")


if __name__ == "__main__":
    main()
