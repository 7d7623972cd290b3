"""Deploys and rollbacks while records come: nothing is lost, and what comes behind one is its own."""

import pytest
from tests.engine_fixture import until
from tests.service.test_stream import Flow, check_nothing_lost
from tests.topics import Scored

pytestmark = pytest.mark.timeout(300)


def test_deploys_and_rollbacks_under_load_lose_nothing(scored: Scored) -> None:
    with Flow(scored) as flow:
        for number in range(20):
            if number % 5 == 4:
                scored.engine.rollback(scored.name, None)
            else:
                scored.deploy(2.0 + number)
            before = scored.facts["scored"]
            until(lambda before=before: scored.facts["scored"] > before, "records scored")  # type: ignore[misc]
    scored.wait_for_zero()
    doubled = check_nothing_lost(scored, flow.sent)
    revisions = {dict(record.headers)["ce_revision"] for record in scored.outputs()}
    print(f"{scored.topics.broker}: {flow.sent} records over 20 deploys, {len(revisions)} revisions scored some")
    assert doubled == 0, "a revision that drains commits what it has scored"


def test_records_behind_a_deploy_are_scored_by_it(scored: Scored) -> None:
    deployed = {}
    with Flow(scored):  # so that there always is a worker that reads
        for number in range(8):
            scored.deploy(2.0 + number)
            key = f"behind-{scored.revision}".encode()
            scored.send_entries([(key, b'{"x": 1}', [])])
            deployed[key] = scored.revision
            before = scored.facts["scored"]
            until(lambda before=before: scored.facts["scored"] > before, "records scored")  # type: ignore[misc]
    scored.wait_for_zero()
    by = {one.key: int(dict(one.headers)["ce_revision"]) for one in scored.outputs() if one.key in deployed}
    assert by.keys() == deployed.keys()
    assert all(by[key] >= revision for key, revision in deployed.items()), (by, deployed)
