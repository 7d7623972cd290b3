"""Moving where a function reads on: what is said before, what is asked, what it does, and what a kill leaves."""

import subprocess
import time
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.engine_fixture import until
from tests.service.test_cli import PLATFORM, platform
from tests.topics import Scored, somebody, sources

from sunup.settings import STREAM_BROKER
from sunup.stream.broker import Stream
from sunup.stream.open import open_broker

RECORDS = 200
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def scored(scored: Scored) -> Scored:
    """It has read its topic."""
    scored.send(range(RECORDS))
    scored.wait_for_zero()
    return scored


def seek(scored: Scored, *arguments: str) -> dict[str, Any]:
    command = ("stream", "seek", scored.name, "--json", *arguments)
    done: dict[str, Any] = platform(scored.engine.project.root, *command).json
    return done


def times(scored: Scored) -> Counter[str]:
    """How often each record was scored."""
    return Counter(sources(scored.outputs()))


def wait_for(scored: Scored, outputs: int) -> None:
    """Until so many outputs have come, and nobody works."""
    until(lambda: len(scored.outputs()) >= outputs, f"{outputs} outputs", 60)
    until(lambda: not scored.workers, "the workers to end", 60)
    assert len(scored.outputs()) == outputs


def test_back_to_the_beginning_scores_everything_again(scored: Scored) -> None:
    planned = seek(scored, "--to", "earliest", "--dry-run")
    assert not planned["moved"]
    assert sum(one["scores_again"] for one in planned["partitions"]) == RECORDS
    assert sum(one["skips"] for one in planned["partitions"]) == 0
    assert len(scored.outputs()) == RECORDS
    assert seek(scored, "--to", "earliest", "--yes") == {**planned, "moved": True}
    wait_for(scored, 2 * RECORDS)
    assert set(times(scored).values()) == {2}
    assert scored.facts["paused"] == []


def test_one_partition_to_an_offset(scored: Scored) -> None:
    end = next(one["end"] for one in scored.facts["partitions"] if one["partition"] == 2)
    done = seek(scored, "--to", "3", "--partition", "2", "--yes")
    assert [(one["partition"], one["from"], one["to"]) for one in done["partitions"]] == [(2, end, 3)]
    wait_for(scored, RECORDS + end - 3)
    assert {id for id, count in times(scored).items() if count == 2} == {
        f"{scored.stream.input}-2-{offset}" for offset in range(3, end)
    }


def test_to_the_end_skips_what_waits_in_a_paused_stream_and_leaves_it_paused(scored: Scored) -> None:
    root = scored.engine.project.root
    platform(root, "stream", "pause", scored.name)
    scored.send(range(1000, 1050))
    until(lambda: scored.facts["lag"] == 50, "the records to wait")
    done = seek(scored, "--to", "latest", "--yes")
    assert sum(one["skips"] for one in done["partitions"]) == 50
    assert scored.facts["paused"] == "all"
    platform(root, "stream", "resume", scored.name)
    scored.send([2000])
    wait_for(scored, RECORDS + 1)


def test_partitions_that_were_paused_stay_paused(scored: Scored) -> None:
    platform(scored.engine.project.root, "stream", "pause", scored.name, "--partition", "1")
    seek(scored, "--to", "earliest", "--yes")
    assert scored.facts["paused"] == [1]
    others = RECORDS - next(one["end"] for one in scored.facts["partitions"] if one["partition"] == 1)
    wait_for(scored, RECORDS + others)


def test_back_to_a_time(scored: Scored) -> None:
    last = max(record.timestamp for record in scored.topics.read(scored.stream.input))
    until(lambda: time.time() > last + 0.01, "the clock to go on")
    moment = datetime.fromtimestamp(last + 0.005, UTC).isoformat()
    scored.send(range(500, 560))
    wait_for(scored, RECORDS + 60)
    done = seek(scored, "--to", moment, "--yes")
    assert sum(one["scores_again"] for one in done["partitions"]) == 60
    wait_for(scored, RECORDS + 120)
    planned = seek(scored, "--to", "1h", "--dry-run")
    assert sum(one["scores_again"] for one in planned["partitions"]) == RECORDS + 60


def test_what_cannot_be_is_refused(scored: Scored) -> None:
    root = scored.engine.project.root
    ends = {one["partition"]: one["end"] for one in scored.facts["partitions"]}
    for arguments, said in (
        (["--to", "100000"], f"is not kept. There is 0: 0 to {ends[0]}"),
        (["--to", "soon"], "'soon' is not earliest, latest"),
        (["--to", "latest", "--partition", "9"], "has no partition 9: it has 0 to 3"),
    ):
        assert said in platform(root, "stream", "seek", scored.name, "--yes", *arguments).refused(2)
    shown = platform(root, "stream", "seek", scored.name, "--to", "earliest")
    assert "Add --yes" in shown.refused(2)
    assert f"Score {RECORDS} records again?" in shown.err
    assert f"scores {ends[0]} records again" in shown.out
    assert scored.facts["paused"] == []
    assert "Nothing is to be done" in platform(root, "stream", "seek", scored.name, "--to", "latest").out


def test_killed_in_the_middle_it_leaves_a_paused_stream_that_says_so(scored: Scored) -> None:
    root, spec = scored.engine.project.root, scored.stream
    stream = Stream(spec.group, spec.input, spec.output, spec.dead_letter)
    reader = open_broker({STREAM_BROKER: spec.broker}, stream, scored.engine.project.embedded_log, somebody())
    reader.join(0, 1)  # somebody of the group whom the engine knows nothing of: positions cannot be moved
    reader.poll(1.0)
    command = [str(PLATFORM), "stream", "seek", scored.name, "--to", "earliest", "--yes"]
    with subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "nobody reads any more" in process.stderr.readline()
        process.kill()
    facts = scored.facts
    assert (facts["paused"], facts["state"]) == ("all", "paused")
    assert "paused by" in facts["reason"]
    assert "paused by" in platform(root, "stream", "status", scored.name).out
    reader.close()
    seek(scored, "--to", "earliest", "--yes")
    assert scored.facts["paused"] == "all"
    platform(root, "stream", "resume", scored.name)
    wait_for(scored, 2 * RECORDS)


def test_while_it_reads_nothing_is_lost_and_only_what_was_said_is_doubled(scored: Scored) -> None:
    scored.send(range(1000, 21_000))
    done = seek(scored, "--to", "earliest", "--yes")
    doubled = {one["partition"]: one["from"] for one in done["partitions"]}
    wait_for(scored, RECORDS + 20_000 + sum(doubled.values()))
    for id, count in times(scored).items():
        _, partition, offset = id.rsplit("-", 2)
        assert count == 1 + (int(offset) < doubled[int(partition)]), id
    assert len(times(scored)) == RECORDS + 20_000
