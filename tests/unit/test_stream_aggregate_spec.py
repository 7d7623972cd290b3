"""`[stream] aggregate`: which stream feature views a function aggregates."""

import pytest

from sunup.bundle.declare.file import parse
from sunup.bundle.declare.write import write
from sunup.errors import UsageError

FUNCTION = """\
[request]
amount = "float64"

[features]
service = "cards"

[stream]
broker = "embedded"
input = "transactions"
"""


def aggregate(line: str, function: str = FUNCTION) -> tuple[str, ...] | None:
    spec = parse(function + line, source="function.toml", name="cards")
    assert spec.stream is not None
    assert parse(write(spec), source="written", name="cards") == spec
    return spec.stream.aggregate


def test_left_out_it_is_every_view_of_the_topic() -> None:
    assert aggregate("") is None
    assert aggregate("aggregate = []\n") == ()
    assert aggregate('aggregate = ["card_tx", "shop_tx"]\n') == ("card_tx", "shop_tx")


@pytest.mark.parametrize(
    ("line", "function", "says"),
    [
        (
            'aggregate = ["card_tx"]\n',
            FUNCTION.replace('[features]\nservice = "cards"\n\n', ""),
            "function.toml, line 7: [stream] aggregate names views, and there is no [features] service.",
        ),
        (
            'aggregate = "card_tx"\n',
            FUNCTION,
            "function.toml, line 10: [stream] aggregate: expected `array | null`, got `str`.",
        ),
        (
            "aggregate = [1]\n",
            FUNCTION,
            "function.toml, line 10: [stream] aggregate: expected `str`, got `int`.",
        ),
        (
            "agregate = []\n",
            FUNCTION,
            "function.toml, line 10: unknown key `agregate` in [stream]. Did you mean `aggregate`? Known here: broker, "
            "input, output, dead_letter, group, content, guarantee, max_workers, security, schema_registry, aggregate.",
        ),
    ],
)
def test_what_it_cannot_be(line: str, function: str, says: str) -> None:
    with pytest.raises(UsageError) as refused:
        aggregate(line, function)
    assert refused.value.message == says


def test_none_needs_no_features() -> None:
    assert aggregate("aggregate = []\n", FUNCTION.replace('[features]\nservice = "cards"\n\n', "")) == ()
