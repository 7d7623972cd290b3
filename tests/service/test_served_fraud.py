"""From payments to the comparison: fraud with caches and a log, called, written out, read by `features compare`."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from tests.engine_fixture import Engine
from tests.fraud_fixture import Trained
from tests.service.test_cli import platform
from tests.service.test_served_scores import REQUEST

from functions.fraud.build_features import Data

ROWS = 1000
ROWS_PER_CALL = 50
# Three views, an entity each. The log is written out when the engine ends, or every hour.
SETTINGS = """
cache = { merchant_stats = "1m", customer_stats = "1m" }
log = { path = "served", rotate = "1h" }

[cache]
identical = "1m"

[features.defaults]"""

pytestmark = pytest.mark.timeout(900)  # waits for a whole training


@pytest.fixture(scope="module")
def engine(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    root = tmp_path_factory.mktemp("logged") / "p"
    shutil.copytree(trained.project.root, root, ignore=shutil.ignore_patterns("run", "bundles"))
    declared = root / "functions" / "fraud" / "function.toml"
    # What a busy machine makes late is not what is compared here.
    text = declared.read_text().replace("deadline_ms = 20", "deadline_ms = 2000")
    declared.write_text(text.replace("\n[features.defaults]", SETTINGS))
    engine = Engine(root)
    engine.up()
    try:
        yield engine
    finally:
        platform(root, "down")


def asked(engine: Engine, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    answers = []
    for at in range(0, len(records), ROWS_PER_CALL):
        body = json.dumps(records[at : at + ROWS_PER_CALL]).encode()
        answer = engine.ask("POST", "/functions/fraud", body, headers={"x-request-id": f"call-{at}"})
        assert answer.status == 200, answer
        answers += answer.json["predictions"]
    return answers


def test_what_was_served_is_logged_and_compared_with_training(engine: Engine, tmp_path: Path) -> None:
    root = engine.project.root
    facts = platform(root, "deploy", "fraud-v3", "--json").json
    rows = pd.read_parquet(Data(engine.project).holdout).head(ROWS)[REQUEST]
    records = rows.to_dict("records")
    answers = asked(engine, records)
    again = asked(engine, records)  # from the cache, and logged all the same
    assert [one["score"] for one in again] == [one["score"] for one in answers]
    platform(root, "down")

    logged = pq.read_table(root / "served" / "fraud" / str(facts["revision"])).to_pylist()
    assert len(logged) == 2 * ROWS
    logged.sort(key=lambda row: (row["event_timestamp"], int(row["request_id"].removeprefix("call-")), row["record"]))
    for record, answer, row in zip(records * 2, answers + again, logged, strict=True):
        assert {name: row[name] for name in REQUEST} == record
        assert (row["score"], row["decision"]) == (answer["score"], answer["decision"])
        assert row["defaulted"] == answer.get("defaulted", [])
        assert row["stale"] == answer.get("stale", [])

    engine.up()
    picture = tmp_path / "skew.png"
    compared = platform(root, "features", "compare", "fraud", "--json", "--plot", str(picture)).json
    assert compared["served"]["rows"] == 2 * ROWS
    assert (compared["absent"], compared["served"]["skipped"]) == ([], [])
    manifest = json.loads((engine.project.bundles / facts["digest"] / "manifest.json").read_bytes())
    assert {one["name"] for one in compared["features"]} == set(manifest["inputs"][0]["columns"])
    assert picture.read_bytes().startswith(b"\x89PNG")
