"""Bodies that were changed at random, in every protocol, through the door to a real worker: no 500, no hang."""

import gzip
from collections.abc import Iterator

import pytest
from tests.engine_fixture import Engine
from tests.fuzzing import EVERY, EXPECTED, KINDS, Client, check, deploy, send_changed
from tests.mutation import mutated

BODIES = 2000


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine = Engine(tmp_path_factory.mktemp("fuzz") / "p")
    engine.up()
    deploy(engine)
    yield engine
    engine.down()


@pytest.fixture
def client(engine: Engine) -> Iterator[Client]:
    client = Client(engine.port)
    yield client
    client.close()


@pytest.mark.parametrize("name", KINDS)
def test_changed_bodies(engine: Engine, client: Client, name: str) -> None:
    check(client, KINDS[name])
    before = engine.pids()["score"]
    seen = send_changed(client, name, count=BODIES, seed=len(name))
    assert seen[400] > BODIES / 4
    assert seen[200] > 0
    assert before == engine.pids()["score"]  # it was the same process all the time


@pytest.mark.parametrize("name", KINDS)
def test_changed_gzip(client: Client, name: str) -> None:
    kind = KINDS[name]
    headers = kind.headers + "content-encoding: gzip\r\n"
    for body in mutated(gzip.compress(kind.body), seed=1, count=EVERY):
        status, answer = client.ask(kind.target, headers, body)
        assert status in EXPECTED, (status, answer, body)
    check(client, kind)
