"""`platform features compare` as a person or a CI job runs it: fraud, really deployed, and a log of what was served."""

import json
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.engine_fixture import Engine
from tests.fraud_fixture import Trained
from tests.service.test_cli import Ran, platform

from sunup.bundle.job import TRAINING
from sunup.registry.source import parse
from sunup.settings import TRAINING_SAMPLE

ROWS = 4000
VIEWS = ("card_stats", "customer_stats", "merchant_stats")

pytestmark = pytest.mark.timeout(900)  # waits for a whole training


class Deployed(NamedTuple):
    """fraud-v3 at work. `sample`: what it was trained on, by column."""

    engine: Engine
    facts: dict[str, Any]
    sample: dict[str, Any]

    @property
    def log(self) -> Path:
        return self.engine.project.root / "kept" / "fraud" / str(self.facts["revision"])

    def compare(self, *arguments: str, function: str = "fraud") -> Ran:
        return platform(self.engine.project.root, "features", "compare", function, "--log", "kept", *arguments)

    def write(self, name: str, *, age_s: float = 60.0, **changed: Any) -> None:
        """A file of the served-feature log: rows drawn like the training sample, but for `changed` columns."""
        at = [datetime.fromtimestamp(time.time() - age_s, UTC)] * ROWS
        drawn = {column: values[:ROWS] for column, values in self.sample.items()}
        columns: dict[str, Any] = {
            "request_id": [f"r{n}" for n in range(ROWS)],
            "record": pa.array([0] * ROWS, pa.int32()),
            "event_timestamp": pa.array(at, pa.timestamp("us", "UTC")),
            "model_version": ["3"] * ROWS,
            "revision": pa.array([self.facts["revision"]] * ROWS, pa.int32()),
            **{key: pa.array(range(ROWS), pa.int64()) for key in ("card_id", "customer_id", "merchant_id")},
            **drawn,
            **{f"{view}__age_s": pa.array([3600.0] * ROWS) for view in VIEWS},
            "defaulted": pa.array([[]] * ROWS, pa.list_(pa.string())),
            "stale": pa.array([[]] * ROWS, pa.list_(pa.string())),
            "score": pa.array([0.1] * ROWS),
            "decision": ["allow"] * ROWS,
        }
        self.log.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns | changed), self.log / name)


@pytest.fixture(scope="module")
def deployed(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    root = tmp_path_factory.mktemp("compare") / "p"
    shutil.copytree(trained.project.root, root, ignore=shutil.ignore_patterns("run", "bundles"))
    engine = Engine(root)
    engine.up()
    try:
        facts = platform(root, "deploy", "fraud-v3", "--json").json
        model = trained.source.fetch(trained.source.resolve(parse("fraud-v3")), tmp_path_factory.mktemp("model"))
        yield Deployed(engine, facts, pq.read_table(model / TRAINING_SAMPLE).to_pydict())
    finally:
        platform(root, "down")


@pytest.fixture(autouse=True)
def no_log(deployed: Deployed) -> None:
    shutil.rmtree(deployed.log, ignore_errors=True)


def test_the_bundle_profiles_every_column_of_the_model(deployed: Deployed) -> None:
    bundle = deployed.engine.project.bundles / deployed.facts["digest"]
    profile = json.loads((bundle / TRAINING).read_bytes())
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    assert (profile["rows"], profile["source"], profile["problem"]) == (20_000, TRAINING_SAMPLE, "")
    assert [column["name"] for column in profile["columns"]] == manifest["inputs"][0]["columns"]
    assert TRAINING in manifest["files"]


def test_what_is_served_as_it_was_trained_has_no_skew(deployed: Deployed, tmp_path: Path) -> None:
    deployed.write("20260101T000000Z-0.parquet")
    ran = deployed.compare("--json", "--psi-max", "0.1", "--plot", str(tmp_path / "skew.png"))
    assert ran.err == ""
    facts = ran.json
    assert (facts["revision"], facts["model"]) == (deployed.facts["revision"], "fraud/3")
    assert facts["served"]["rows"] == ROWS
    assert (facts["beyond"], facts["absent"], facts["served"]["skipped"]) == ([], [], [])
    assert {one["verdict"] for one in facts["features"]} == {"ok"}
    assert len(facts["features"]) == len(deployed.sample)
    assert (tmp_path / "skew.png").read_bytes().startswith(b"\x89PNG")


def test_skew_is_found_on_the_features_it_is_in(deployed: Deployed) -> None:
    sample = deployed.sample
    gone = [None if n % 3 == 0 else value for n, value in enumerate(sample["merchant_risk_7d"][:ROWS])]
    deployed.write(
        "20260101T000000Z-0.parquet",
        amount=[value * 3 for value in sample["amount"][:ROWS]],
        merchant_risk_7d=gone,
        customer_tx_count_7d=[5.0] * ROWS,
        defaulted=[["customer_tx_count_7d"]] * ROWS,
    )
    ran = deployed.compare("--json", "--psi-max", "0.25")
    assert ran.code == 1
    planted = {"amount", "merchant_risk_7d", "customer_tx_count_7d"}
    facts = json.loads(ran.out)
    assert set(facts["beyond"]) == planted
    assert all(name in ran.err for name in planted)
    by_name = {one["name"]: one for one in facts["features"]}
    assert {name for name, one in by_name.items() if one["verdict"] == "major"} == planted
    assert by_name["customer_tx_count_7d"]["defaulted"] == 1.0
    assert by_name["merchant_risk_7d"]["missing"]["difference"] == pytest.approx(1 / 3, abs=0.01)
    table = deployed.compare().out
    assert table.splitlines()[1].split()[0] in planted
    assert "100.0%" in table
    assert "33.4%" in table


def test_only_what_was_asked_for_is_compared(deployed: Deployed) -> None:
    deployed.write("20260101T000000Z-0.parquet", age_s=7200, amount=[1e6] * ROWS)
    deployed.write("20260101T020000Z-0.parquet")
    assert deployed.compare("--json").json["features"][0]["name"] == "amount"
    late = deployed.compare("--json", "--since", "1h", "--revision", str(deployed.facts["revision"])).json
    assert late["served"]["rows"] == ROWS
    assert late["features"][0]["verdict"] == "ok"
    assert "no row of the last 30s" in deployed.compare("--since", "30s").refused(1)


def test_a_half_written_file_is_said_and_left_out(deployed: Deployed) -> None:
    deployed.write("20260101T000000Z-0.parquet")
    whole = (deployed.log / "20260101T000000Z-0.parquet").read_bytes()
    (deployed.log / "20260101T000000Z-1.parquet").write_bytes(whole[:5000])
    ran = deployed.compare("--json")
    assert "20260101T000000Z-1.parquet was left out" in ran.err
    (skipped,) = ran.json["served"]["skipped"]
    assert skipped["file"].endswith("-1.parquet")
    assert ran.json["served"]["rows"] == ROWS


def test_what_cannot_be_compared_says_why(deployed: Deployed, tmp_path: Path) -> None:
    assert "no Parquet file" in deployed.compare().refused(1)
    assert "no function" in deployed.compare(function="fraudd").refused(1).lower()
    assert "revision 77" in deployed.compare("--revision", "77").refused(2)
    assert "--since" in deployed.compare("--since", "yesterday").refused(2)
    assert ".png" in deployed.compare("--plot", str(tmp_path / "skew.pdf")).refused(2)
    (deployed.log).mkdir(parents=True)
    (deployed.log / "1.parquet").write_bytes(b"nothing")
    assert "1.parquet cannot be read" in deployed.compare().refused(1)
    older = deployed.engine.serve("older", 2.0)
    assert f"no {TRAINING}" in deployed.compare(function="older").refused(1)
    assert older["revision"] == 1
    bare = platform(deployed.engine.project.root, "features", "compare", "fraud")
    assert "no [features] log" in bare.refused(1)
