"""function.toml: what it may say, and what a person is told when it says something else."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from sunup.bundle.declare.file import parse, read
from sunup.bundle.declare.fit import fit, response_fields
from sunup.bundle.declare.quantity import format_bytes, format_seconds, parse_bytes, parse_seconds
from sunup.bundle.declare.spec import FeatureSpec, ResponseSpec, Spec
from sunup.bundle.declare.write import derive, write
from sunup.bundle.manifest import Limits, Scale, StreamSpec, Warm
from sunup.errors import UsageError
from sunup.types import Decision, Field, ResponseField, Tensor

FULL = """
[function]
name = "fraud"
model = "fraud-model"

[request]
card_id = "int64"
amount = "float64"   # in euros
"mean radius" = "float64"

[features]
service = "fraud"
deadline_ms = 25
on_missing = "reject"
defaults = { card_tx_count_1h = 0, home = "x" }
max_age = { card_stats = "15m", merchant_stats = "1.5h" }

[response]
score = "probability:1"
decision = { field = "score", above = 0.9, then = "block", otherwise = "allow" }

[parity]
tolerance = 1e-6

[scale]
min = 1
max = 3
idle = "45s"
target_concurrency = 8
queue_max = 16

[limits]
body_max = "512KiB"
timeout = "1500ms"

[stream]
broker = "env:KAFKA_BOOTSTRAP or embedded"
input = "transactions"
output = "scores"
dead_letter = "dead"
group = "scorers"
content = "cloudevent"
guarantee = "at-least-once"
max_workers = 2
"""

OUTPUTS = (Tensor("label", "int64", (-1,)), Tensor("probability", "float64", (-1, 2)))
NUMBER = "float64"


def fields(*names: str) -> tuple[Field, ...]:
    return tuple(Field(name, NUMBER) for name in names)


def refused(text: str) -> str:
    with pytest.raises(UsageError) as caught:
        parse(text, source="functions/fraud/function.toml", name="fraud")
    message = caught.value.message
    assert "\n" not in message
    assert caught.value.exit_code == 2
    return message


def test_every_table_is_read() -> None:
    assert parse(FULL, source="x", name="fraud") == Spec(
        name="fraud",
        model="fraud-model",
        request=(Field("card_id", "int64"), Field("amount", "float64"), Field("mean radius", "float64")),
        features=FeatureSpec(
            service="fraud",
            deadline_ms=25.0,
            on_missing="reject",
            defaults={"card_tx_count_1h": 0, "home": "x"},
            max_age_s={"card_stats": 900.0, "merchant_stats": 5400.0},
        ),
        response=(
            ResponseSpec("score", source="probability:1"),
            ResponseSpec("decision", decision=Decision("score", 0.9, "block", "allow")),
        ),
        tolerance=1e-6,
        scale=Scale(min=1, max=3, idle_s=45.0, target_concurrency=8, queue_max=16),
        limits=Limits(body_bytes=512 * 1024, timeout_s=1.5),
        stream=StreamSpec(
            broker="env:KAFKA_BOOTSTRAP or embedded",
            input="transactions",
            output="scores",
            dead_letter="dead",
            group="scorers",
            content="cloudevent",
            guarantee="at-least-once",
            max_workers=2,
        ),
    )


def test_a_stream_needs_only_its_broker_and_its_input() -> None:
    text = '[stream]\nbroker = "a:9092,b:9092"\ninput = "transactions"\n'
    stream = parse(text, source="x", name="fraud").stream
    assert stream is not None
    assert (stream.output, stream.dead_letter, stream.group) == ("fraud-scores", "fraud-dead", "sunup-fraud")
    assert (stream.content, stream.guarantee, stream.max_workers) == ("auto", "exactly-once", 4)


def test_an_idle_time_that_is_learned_and_workers_at_set_times() -> None:
    text = '[scale]\nidle = "auto"\nwarm = [{ cron = "0 8 * * 1-5" }, { cron = "0 0 1 * *", min = 2, for = "1h" }]\n'
    spec = parse(text, source="x", name="fraud")
    assert spec.scale == Scale(idle_auto=True, warm=(Warm("0 8 * * 1-5", 1, 600.0), Warm("0 0 1 * *", 2, 3600.0)))
    assert parse(write(spec), source="x", name="other") == spec


@pytest.mark.parametrize(
    ("warm", "message"),
    [
        ('{ cron = "0 8 * *" }', "f.toml, line 2: [scale] warm: '0 8 * *' has 4 fields"),
        ('{ cron = "0 8 * * *", min = 9 }', "f.toml, line 2: [scale] warm: min = 9 is more than max = 4"),
        ('{ cron = "0 8 * * *", min = 0 }', "f.toml, line 2: [scale] warm: expected `int` >= 1"),
        ('{ cron = "0 8 * * *", for = "long" }', "f.toml, line 2: [scale] warm: 'long' is not a duration"),
        ('{ cron = "0 8 * * *", fro = "1h" }', "f.toml, line 2: [scale] warm: object contains unknown field `fro`"),
        ("{ min = 1 }", "f.toml, line 2: [scale] warm: object missing required field `cron`"),
    ],
)
def test_a_set_time_that_is_wrong_says_where_and_why(warm: str, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse(f"[scale]\nwarm = [{warm}]\n", source="f.toml", name="fraud")
    assert message in str(refused.value)


def test_an_empty_file_is_a_function_named_as_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "churn"
    folder.mkdir()
    (folder / "function.toml").write_text("")
    assert read(folder / "function.toml") == Spec(name="churn", model="churn", request=())


def test_what_is_written_reads_back() -> None:
    spec = parse(FULL, source="x", name="fraud")
    assert parse(write(spec), source="x", name="other") == spec
    plain = derive("fraud", fields("a", "b c"))
    assert parse(write(plain), source="x", name="other") == plain


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[scale]\nmin = 0\n\nidel = '30s'\n", ["line 4", "`idel`", "[scale]", "Did you mean `idle`?"]),
        ("[feature]\nservice = 'x'\n", ["line 1", "[feature]", "Did you mean `features`?"]),
        ("[caches]\nttl = '5s'\n", ["line 1", "unknown table [caches]"]),
        ("[stream]\ninput = 'x'\n", ["line 1", "[stream]", "broker"]),
        ("[stream]\nbroker = 'embedded'\ninput = ''\n", ["line 3", "[stream] input"]),
        ("[stream]\nbroker = 'kafka'\ninput = 'x'\n", ["line 2", "'kafka' is none of", "env:NAME or embedded"]),
        ("[stream]\nbroker = 'embedded'\ninput = 'x'\noutput = 'x'\n", ["line 3", "three different topics"]),
        ("[stream]\nbroker = 'embedded'\ninput = 'a b'\n", ["line 3", "[stream] input"]),
        ("[stream]\nbroker = 'a:1'\ninput = 'x'\nguarante = ''\n", ["line 4", "Did you mean `guarantee`?"]),
        ("[stream]\nbroker = 'a:1'\ninput = 'x'\nguarantee = 'at-most-once'\n", ["line 4", "at-most-once"]),
        ("scale = 3\n", ["line 1", "`scale` must be a table"]),
        ("[request]\namount = 'flaot64'\n", ["line 2", "amount", "'flaot64'", "Did you mean `float64`?"]),
        ("[request]\nitems = 'int46[]'\n", ["line 2", "int46[]", "each with [] for a list"]),
        ("[scale]\nmax = 'four'\n", ["line 2", "[scale] max", "int"]),
        ("[scale]\nmax = 0\n", ["line 2", "[scale] max", ">= 1"]),
        ("[scale]\nmin = 5\n", ["line 2", "min = 5 is more than max = 4"]),
        ("[scale]\nidle = '30'\n", ["line 2", "[scale] idle", "'30' is not a duration"]),
        ("[limits]\n\ntimeout = '0s'\n", ["line 3", "more than 0"]),
        ("[limits]\nbody_max = '1MeB'\n", ["line 2", "'1MeB' is not a size"]),
        ("[features]\nservice = 's'\non_missing = 'defualt'\n", ["line 3", "on_missing", "defualt"]),
        ("[features]\ndeadline_ms = 3\n", ["line 1", "[features]", "service"]),
        ("[features]\nservice = 's'\n[features.max_age]\ncards = 'soon'\n", ["line 3", "'soon' is not a duration"]),
        (
            "[response]\nd = { field = 's', abvoe = 1, then = 'a', otherwise = 'b' }\n",
            ["line 2", "Did you mean `above`?"],
        ),
        ("[response]\nd = { field = 's', above = 1, then = 'a' }\n", ["line 2", "otherwise"]),
        ("[response]\nd = 3\n", ["line 2", "[response] d"]),
        ("[parity]\ntolerance = -1\n", ["line 2", "tolerance"]),
        ("[function]\nname = 'a b'\n", ["line 2", "'a b' cannot be a function's name"]),
        ("[function\n", ["not valid TOML", "line 1"]),
        ("# [scale]\n[function]\nscale.idel = 1\n", ["line 3", "unknown key `scale` in [function]"]),
    ],
)
def test_refusals_name_the_line_and_what_was_meant(text: str, parts: list[str]) -> None:
    message = refused(text)
    assert message.startswith("functions/fraud/function.toml")
    for part in parts:
        assert part in message


def test_an_unreadable_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read(tmp_path / "function.toml")


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("2ms", 0.002), ("15m", 900), ("1h", 3600), ("1.5d", 129600)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_seconds(text) == pytest.approx(seconds)
    assert parse_seconds(format_seconds(seconds)) == pytest.approx(seconds)


@pytest.mark.parametrize(("text", "size"), [("1MiB", 1 << 20), ("512KiB", 1 << 19), ("10B", 10), ("1MB", 10**6)])
def test_sizes(text: str, size: int) -> None:
    assert parse_bytes(text) == size
    assert parse_bytes(format_bytes(size)) == size


@pytest.mark.parametrize("text", ["", "s", "-1s", "1", "1 fortnight", "1e3s", "MiB"])
def test_other_quantities_are_refused(text: str) -> None:
    for reader in (parse_seconds, parse_bytes):
        with pytest.raises(ValueError, match="is not a"):
            reader(text)


# --- Does the declaration fit the model? ----------------------------------------------------------------------------
def with_features(request: Sequence[Field], **more: object) -> Spec:
    features = FeatureSpec("fraud", **more)  # type: ignore[arg-type]
    return Spec(name="fraud", model="fraud", request=tuple(request), features=features)


def unfit(spec: Spec, columns: Sequence[Field], features: Sequence[Field]) -> str:
    with pytest.raises(UsageError) as caught:
        fit(spec, columns, features)
    return caught.value.message


def test_a_function_is_derived_from_the_signature() -> None:
    assert derive("fraud", fields("a", "b")) == Spec(name="fraud", model="fraud", request=fields("a", "b"))
    with pytest.raises(UsageError, match="signature"):
        derive("fraud", ())
    with pytest.raises(UsageError, match="cannot be a function's name"):
        derive("my model", fields("a"))


def test_request_and_features_together_must_give_every_column() -> None:
    spec = with_features([Field("card_id", "int64"), *fields("amount")])
    assert fit(spec, fields("amount", "count"), fields("count", "unused")) == spec
    message = unfit(spec, fields("amount", "counts", "mean"), fields("count"))
    assert "`counts`, `mean`" in message
    assert "Did you mean `count`?" in message


def test_without_a_request_table_the_caller_sends_what_no_feature_gives() -> None:
    assert fit(with_features([]), fields("amount", "count"), fields("count")).request == fields("amount")


def test_columns_from_two_places_and_unknown_defaults_are_refused() -> None:
    assert "`count`" in unfit(with_features(fields("count")), fields("count"), fields("count"))
    message = unfit(with_features(fields("a"), defaults={"cuont": 0}), fields("a"), fields("count"))
    assert "Did you mean `count`?" in message


def test_types_that_cannot_meet_and_fields_nothing_uses_are_refused() -> None:
    spec = Spec(name="f", model="m", request=(Field("a", "string"),))
    assert "takes `a` as float64" in unfit(spec, fields("a"), ())
    spec = Spec(name="f", model="m", request=fields("a", "amuont"))
    assert "`amuont`" in unfit(spec, fields("a"), ())


def test_response_fields_follow_the_outputs() -> None:
    spec = parse(FULL, source="x", name="fraud")
    assert response_fields(spec, OUTPUTS) == (
        ResponseField("score", "float64", output="probability", column=1),
        ResponseField("decision", "string", decision=Decision("score", 0.9, "block", "allow")),
    )
    assert response_fields(Spec(name="f", model="m", request=()), OUTPUTS) == (
        ResponseField("label", "int64", output="label"),
        ResponseField("probability", "float64", output="probability", shape=(2,)),
    )


@pytest.mark.parametrize(
    ("entry", "parts"),
    [
        (ResponseSpec("s", source="probabilty:1"), ["no output `probabilty`", "Did you mean `probability`?"]),
        (ResponseSpec("s", source="probability:2"), ["columns 0 to 1"]),
        (ResponseSpec("s", source="probability:x"), ["columns 0 to 1"]),
        (ResponseSpec("s", source="label:0"), ["no columns"]),
        (ResponseSpec("s", decision=Decision("score", 0.5, "a", "b")), ["not a number listed above"]),
    ],
)
def test_responses_the_model_cannot_give_are_refused(entry: ResponseSpec, parts: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        response_fields(Spec(name="f", model="m", request=(), response=(entry,)), OUTPUTS)
    for part in parts:
        assert part in caught.value.message
