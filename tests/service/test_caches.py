"""Caches on a real engine, over HTTP: a tree, an image function, features out of a real Redis, a topic.

How long something is kept is tested on a clock (tests/unit, tests/contract); here only that nothing else is given.
"""

import json
import shutil
import struct
from contextlib import closing
from typing import Any

import mmh3
import msgspec
import pytest
from tests.bench.feature_data import PROJECT, VIEWS
from tests.bench.models import image_bundle, image_model, record, rows, tree_model
from tests.engine_fixture import Answer, Engine, until
from tests.feature_views import fill, plan
from tests.pictures import PHOTOGRAPH, encoded
from tests.redis_fixture import RedisServer
from tests.service.test_metrics_scraped import scrape
from tests.small_bundle import make_bundle
from tests.topics import EmbeddedTopics, Scored, entry

from sunup.bundle.manifest import Manifest
from sunup.bundle.store import Store
from sunup.lookup.keys import key_maker
from sunup.lookup.plan import JoinKey, ReadPlan, dump, entity_columns
from sunup.settings import STREAM_BROKER
from sunup.types import CacheSpec, Field, ImageSpec

BOTH = CacheSpec(identical_s=600.0, similar_s=600.0, round={"f0": 1.0})
SAID = "x-sunup-cache"
REQUEST = tuple(Field(name, "int64") for name in ("card_id", "merchant_id")) + tuple(
    Field(f"f{i}", "float64") for i in range(10)
)


def changed(engine: Engine, digest: str, **changes: Any) -> str:
    """The same bundle with other members in its manifest: as function.toml with [cache] makes it."""
    store = Store(engine.project.bundles)
    made = store.open(digest)
    with store.stage() as staged:
        shutil.copytree(made, staged, dirs_exist_ok=True)
        manifest = msgspec.structs.replace(manifest_of(engine, digest), **changes)
        (staged / "manifest.json").write_bytes(msgspec.json.encode(manifest))
        return store.add(staged)


def manifest_of(engine: Engine, digest: str) -> Manifest:
    folder = Store(engine.project.bundles).open(digest)
    return msgspec.json.decode((folder / "manifest.json").read_bytes(), type=Manifest)


def deploy(engine: Engine, name: str, digest: str, **settings: str) -> None:
    engine.deploy(name, digest, settings=settings, on_event=lambda _: None)


def counted(engine: Engine, name: str) -> dict[str, tuple[float, float]]:
    """Per cache: lookups and hits, as a scrape shows them."""
    found = scrape(engine)
    lookups, hits = (
        {s.labels["cache"]: s.value for s in found[f"sunup_cache_{what}_total"] if s.labels["function"] == name}
        for what in ("lookups", "hits")
    )
    return {cache: (lookups[cache], hits[cache]) for cache in lookups}


def said(answer: Answer) -> tuple[str | None, Any]:
    """What was recalled, and the predictions."""
    assert answer.status == 200, answer
    return answer.headers.get(SAID), answer.json["predictions"]


def test_a_tree_answers_what_it_knows_without_a_run(engine: Engine) -> None:
    digest = make_bundle(engine.project.bundles, tree_model(), rows(8, seed=3), dtype="float32", function="tree")
    deploy(engine, "plain", changed(engine, digest, function="plain"))
    deploy(engine, "tree", changed(engine, digest, cache=BOTH))
    calls = rows(6).tolist()
    with closing(engine.open()) as connection, closing(engine.open()) as other:

        def ask(body: bytes, name: str = "tree") -> tuple[str | None, Any]:
            return said(engine.ask("POST", f"/functions/{name}", body, other if name == "plain" else connection))

        truth = [ask(record(row), "plain") for row in calls]
        assert [hit for hit, _ in truth] == [None] * 6
        assert [ask(record(row)) for row in calls[:4]] == truth[:4]
        for row, (_, answer) in zip(calls[:4], truth[:4], strict=True):
            assert ask(record(row)) == ("identical=1", answer)
        near = [round(calls[0][0]) + 0.125, *calls[0][1:]]
        assert ask(record(near)) == ("similar=1", truth[0][1])
        # Some are known, some are not, one is no record at all; one column is wanted, by another protocol.
        body = b"[" + b",".join([record(calls[4]), record(calls[1]), b"{}", record(calls[4]), record(calls[5])]) + b"]"
        hit, answers = ask(body)
        assert hit == "identical=2"
        assert answers[2]["error"]["code"] == "missing_field"
        assert [answers[at] for at in (0, 1, 3, 4)] == [truth[at][1][0] for at in (4, 1, 4, 5)]
        inputs = [
            {"name": f"f{i}", "datatype": "FP64", "shape": [1], "data": [value]} for i, value in enumerate(calls[2])
        ]
        wanted = {"inputs": inputs, "outputs": [{"name": "decision"}]}
        answer = engine.ask("POST", "/v2/models/tree/infer", json.dumps(wanted).encode(), connection)
        assert answer.headers[SAID] == "identical=1"
        assert [output["name"] for output in answer.json["outputs"]] == ["decision"]
    assert counted(engine, "tree") == {"identical": (14, 7), "similar": (7, 1)}
    assert counted(engine, "plain") == {}


def test_a_picture_that_was_seen_is_not_even_decoded(engine: Engine) -> None:
    size = 96
    spec = ImageSpec("image", (size, size))
    plain = image_bundle(Store(engine.project.bundles), image_model(size), spec)
    function = manifest_of(engine, plain).function
    deploy(engine, function, changed(engine, plain, cache=CacheSpec(identical_s=600.0)))
    pictures = [encoded(PHOTOGRAPH), encoded(PHOTOGRAPH.rotate(180))]
    with closing(engine.open()) as connection:

        def post(body: bytes, kind: str = "image/jpeg") -> Answer:
            return engine.ask("POST", f"/functions/{function}", body, connection, {"content-type": kind})

        first = [said(post(picture)) for picture in pictures]
        assert [hit for hit, _ in first] == [None, None]
        for picture, (_, answer) in zip(pictures, first, strict=True):
            again = post(picture)
            assert said(again) == ("identical=1", answer)
            assert "execute;dur=0.000" in again.headers["server-timing"]
        # What it is called is part of what is asked: as a PNG it is refused, seen or not.
        assert post(pictures[0], "image/png").json["error"]["code"] == "image_type_mismatch"
        for _ in range(2):
            assert post(pictures[0][:-300]).status == 400
    assert counted(engine, function) == {"identical": (7, 2)}


def cached_plan(cache_s: float, *names: str) -> ReadPlan:
    """The bench's plan, with a cache for those views."""
    replace, made = msgspec.structs.replace, plan()
    entities = tuple(
        replace(e, views=tuple(replace(v, cache_s=cache_s if v.name in names else None) for v in e.views))
        for e in made.entities
    )
    return replace(made, entities=entities, columns=entity_columns(entities))


def write(redis_server: RedisServer, view: str, key: int, value: float) -> None:
    """Another value of a view's first feature, as Feast writes it."""
    join_key, _, names = next(one for one in VIEWS if one[1] == view)
    made = key_maker([JoinKey(join_key, join_key, "INT64")], {join_key: 0})((key,)) + PROJECT.encode()
    field = struct.pack("<I", mmh3.hash(f"{view}:{names[0]}", signed=False))
    with closing(redis_server.client()) as client:
        client.hset(made, field, struct.pack("<Bd", 0x29, value))


@pytest.mark.parametrize("names", [("merchant_stats",), ("card_stats", "merchant_stats")], ids=["one view", "all"])
def test_features_are_read_once_while_their_view_says_so(
    engine: Engine, redis_server: RedisServer, names: tuple[str, ...]
) -> None:
    fill(redis_server.url, 3)
    digest = make_bundle(
        engine.project.bundles, tree_model(), rows(8, seed=3), dtype="float32", function="f", request=REQUEST,
        features=dump(cached_plan(600.0, *names)),
    )  # fmt: skip
    deploy(engine, "f", digest, features_url=redis_server.url)
    body = json.dumps({"card_id": 1, "merchant_id": 1, **{f"f{i}": 0.5 for i in range(10)}}).encode()
    with closing(engine.open()) as connection:

        def ask() -> Any:
            answer = engine.ask("POST", "/functions/f", body, connection)
            assert answer.status == 200, answer
            return answer.json["predictions"][0]

        first = ask()
        assert "defaulted" not in first
        write(redis_server, "merchant_stats", 1, 50.0)
        assert ask() == first
        redis_server.stop()
        answer = ask()
        if len(names) == 2:
            assert answer == first
        else:
            assert answer["defaulted"] == VIEWS[0][2]  # card_stats; merchant_stats is there
    expected = {f"features:{name}": (3.0, 2.0) for name in names}
    assert counted(engine, "f") == expected


def test_a_topic_has_the_same_cache(engine: Engine) -> None:
    scored = Scored(engine, EmbeddedTopics(engine.project.embedded_log))
    scored.create(1)
    digest = engine.bundle(scored.name, 2.0, stream=scored.stream, scale=scored.scale)
    cached = changed(engine, digest, cache=CacheSpec(identical_s=600.0))
    deploy(engine, scored.name, cached, **{STREAM_BROKER: "embedded"})
    scored.send_entries([entry(number % 10) for number in range(100)])
    until(scored.is_read, "the topic to be read")
    answers = [(record.key, json.loads(record.value or b"")) for record in scored.outputs()]
    assert answers == [(str(n % 10).encode(), {"y": 2.0 * (n % 10)}) for n in range(100)]
    assert counted(engine, scored.name) == {"identical": (100, 90)}
