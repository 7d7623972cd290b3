"""How long bundling takes with a warm packager: fraud-v3, the largest of the functions, and the same again."""

import time

import pytest
from tests.fraud_fixture import Trained
from tests.service.test_cli import platform

from sunup.bundle.store import Store

# The promises are 5 s and 1 s on a quiet machine; one that is busy with other tests gets three times that.
CONVERTED_SECONDS = 3 * 5.0
UNCHANGED_SECONDS = 3 * 1.0

pytestmark = pytest.mark.timeout(900)  # waits for a whole training


def test_bundling_is_quick_when_the_packager_is_warm(trained: Trained) -> None:
    root, store = trained.project.root, Store(trained.project.bundles)
    try:
        first = platform(root, "bundle", "fraud-v3", "--json").json
        store.remove(first["digest"])
        began = time.perf_counter()
        again = platform(root, "bundle", "fraud-v3", "--json").json
        converted = time.perf_counter() - began
        began = time.perf_counter()
        unchanged = platform(root, "bundle", "fraud-v3", "--json").json
        kept = time.perf_counter() - began
    finally:
        platform(root, "down")
    print(f"converted, proven and frozen in {converted:.2f} s; unchanged in {kept:.2f} s")
    assert again["digest"] == unchanged["digest"] == first["digest"]
    assert (again["unchanged"], unchanged["unchanged"]) == (False, True)
    assert converted < CONVERTED_SECONDS
    assert kept < UNCHANGED_SECONDS
