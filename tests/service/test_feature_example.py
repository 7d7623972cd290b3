"""examples/features, as its train.py says: trained, deployed, called, compared."""

import shutil
import sys
from pathlib import Path

import pytest
from tests.engine_fixture import Engine
from tests.fraud_fixture import ROOT, run
from tests.service.test_cli import platform

pytestmark = pytest.mark.timeout(300)

KNOWN = '{"patient_id": 7, "age": 50, "bmi": 27.5, "bp": 94}'
UNKNOWN = '{"patient_id": 7000, "age": 50, "bmi": 27.5, "bp": 94}'


def test_the_example_of_features_goes_from_a_table_to_a_comparison(tmp_path: Path) -> None:
    root = tmp_path / "p"
    shutil.copytree(ROOT / "examples" / "features", root)
    assert "Next: platform deploy progression" in run(root, sys.executable, "train.py")
    engine = Engine(root)
    engine.up()
    try:
        assert platform(root, "deploy", "progression", "--json").json["function"] == "progression"
        known = platform(root, "call", "progression", KNOWN).out
        unknown = platform(root, "call", "progression", UNKNOWN).out
        assert "prediction" in known
        assert "defaulted" not in known
        assert all(name in unknown for name in ("defaulted", "glucose", "ldl_share"))
        platform(root, "down")  # what was served is written out
        engine.up()
        compared = platform(root, "features", "compare", "progression", "--json").json
        assert compared["served"]["rows"] == 2
        assert {one["name"] for one in compared["features"]} >= {"bmi", "glucose", "ldl_share", "bmi_glucose"}
        assert compared["absent"] == []
    finally:
        platform(root, "down")
