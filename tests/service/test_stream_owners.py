"""A stream feature view is aggregated by one function: a second one is refused, whichever way it comes."""

import json
import threading
from typing import Any

import pytest
from tests.engine_fixture import Engine
from tests.service.test_deploy_many import Elsewhere, deploy

from sunup.bundle.manifest import StreamSpec
from sunup.errors import CommandError
from sunup.settings import FEATURES_URL

VIEW = ("shop/card_tx", "shop/card_risk")
STORE = "redis://writer:secret@store:6379/0"
SAYS = (
    "second would aggregate the stream feature view card_tx, which first aggregates. Write `aggregate = []` under "
    "[stream] in functions/second/function.toml, and second reads what first writes; or remove first before."
)


def serve(engine: Engine, name: str, *, url: str = STORE, factor: float = 2.0, views: Any = VIEW[:1]) -> dict[str, Any]:
    """Deploy a function that aggregates `views`, in a store at `url`."""
    stream = StreamSpec("embedded", "transactions", f"{name}-scores", f"{name}-dead", f"sunup-{name}")
    return engine.serve(name, factor, stream=stream, aggregates=views, settings={FEATURES_URL: url})


def test_a_second_function_is_refused_until_the_first_one_is_gone(engine: Engine) -> None:
    serve(engine, "first")
    with pytest.raises(CommandError) as refused:
        serve(engine, "second", url=STORE.replace("writer:secret@", ""))
    assert refused.value.message == SAYS
    assert [one["name"] for one in engine.status(None)["functions"]] == ["first"]
    serve(engine, "first", factor=3.0)  # the same function may
    serve(engine, "second", views=())  # reads what the first writes
    engine.remove("first")
    assert serve(engine, "second")["revision"] == 2
    with pytest.raises(CommandError, match="first would aggregate the stream feature view card_tx, which second"):
        serve(engine, "first")


def test_another_store_another_project_or_another_view_is_no_second(engine: Engine) -> None:
    serve(engine, "first")
    serve(engine, "elsewhere", url="redis://store:6379/1")
    serve(engine, "tests", views=("shop_test/card_tx",))
    serve(engine, "other", views=VIEW[1:])


def test_a_view_that_is_given_up_can_be_taken(engine: Engine) -> None:
    serve(engine, "first")
    serve(engine, "first", factor=3.0, views=())
    serve(engine, "second")
    with pytest.raises(CommandError, match="first would aggregate the stream feature view card_tx, which second"):
        engine.rollback("first", None)
    assert engine.call("first", 2.0).y == 6.0


def test_of_two_deployed_at_once_one_is(engine: Engine) -> None:
    outcomes: list[str] = []

    def one(name: str) -> None:
        try:
            outcomes.append(serve(engine, name)["function"])
        except CommandError as error:
            outcomes.append(error.message)

    threads = [threading.Thread(target=one, args=(name,)) for name in ("first", "second")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (live,) = engine.status(None)["functions"]
    assert sorted(outcome in ("first", "second") for outcome in outcomes) == [False, True], outcomes
    assert live["name"] in outcomes


def test_a_supervisor_that_is_new_knows_who_aggregates(engine: Engine) -> None:
    serve(engine, "first")
    engine.down()
    engine.up()
    with pytest.raises(CommandError) as refused:
        serve(engine, "second")
    assert refused.value.message == SAYS


def test_of_many_deployed_together_one_is(engine: Engine, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEATURES_URL", STORE)
    elsewhere = Elsewhere(tmp_path / "elsewhere")
    names = ("first", "second", "third")
    streams = {name: StreamSpec("embedded", "in", f"{name}-o", f"{name}-d", name) for name in names}
    made = [
        elsewhere.bundle(name, 2.0, stream=streams[name], aggregates=() if name == "third" else VIEW[:1])
        for name in names
    ]
    ran = deploy(engine, *made)
    assert ran.code == 1, ran
    assert [one["error"]["message"] for one in json.loads(ran.out)["failed"]] == [SAYS]
    assert sorted(one["name"] for one in engine.status(None)["functions"]) == ["first", "third"]
