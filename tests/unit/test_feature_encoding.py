"""Values, texts and times as bytes: equal to Feast's own protobuf classes, on random values from a seed."""

import math
import random
from datetime import UTC, datetime
from typing import Any

import pytest
from feast.infra.online_stores.helpers import extract_text_and_num
from feast.protos.feast.types.Value_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp  # type: ignore[import-untyped]
from tests.random_values import random_scalar, value_of
from tests.writer_fill import SCALARS

from sunup.errors import UsageError
from sunup.lookup.values import decoder
from sunup.lookup.values import timestamp as read_timestamp
from sunup.lookup.writing.encode import encoder, teller, timestamp

SEED = 20261122
WIDE = {"INT32": 31, "INT64": 63, "UNIX_TIMESTAMP": 63}


@pytest.mark.parametrize("kind", SCALARS)
def test_values_and_texts_are_feasts(kind: str) -> None:
    rng, encode, tell = random.Random(SEED), encoder(kind), teller(kind)
    for _ in range(5000):
        plain = random_scalar(rng, kind)
        value = value_of(kind, plain)
        assert encode(plain) == value.SerializeToString(), plain
        assert tell(plain) == extract_text_and_num(value, False)[0], plain
        assert decoder(kind)(encode(plain)) == plain
    assert encode(None) == Value().SerializeToString()
    assert tell(None) is extract_text_and_num(Value(), False)[0]


@pytest.mark.parametrize("kind", ["DOUBLE", "FLOAT"])
def test_reals_of_any_kind(kind: str) -> None:
    for plain in (math.nan, math.inf, -math.inf, -0.0, 0.1, 1e-300 if kind == "DOUBLE" else 1e-40, 7):
        value = value_of(kind, plain)
        assert encoder(kind)(plain) == value.SerializeToString()
        assert teller(kind)(plain) == extract_text_and_num(value, False)[0]
    assert decoder("FLOAT")(encoder("FLOAT")(1e300)) == math.inf
    assert decoder("FLOAT")(encoder("FLOAT")(-1e300)) == -math.inf


@pytest.mark.parametrize(("kind", "bits"), WIDE.items())
def test_a_sum_becomes_the_nearest_whole_number_or_nothing(kind: str, bits: int) -> None:
    encode, decode = encoder(kind), decoder(kind)
    for value, whole in ((3.0, 3), (-2.6, -3), (2.4, 2), (True, 1), (-0.0, 0)):
        assert decode(encode(value)) == whole
    for value in (2**bits, -(2**bits) - 1, float(2**bits), math.nan, math.inf, -math.inf, 1e300):
        assert encode(value) == b""
        assert teller(kind)(value) is None
    for whole in (2**bits - 1, -(2**bits) + 1):  # the least of all times is how Feast writes "no time"
        assert decode(encode(whole)) == whole


def test_times_are_feasts() -> None:
    rng = random.Random(SEED)
    moments: list[Any] = [0.0, 1.0, 1e-6, -1.0, -0.5, 1_700_000_000.0, 1_700_000_000.25, 253_402_300_799.0]
    for at in moments + [round(rng.uniform(-(2**31), 2**33), 6) for _ in range(5000)]:
        feasts = Timestamp()
        feasts.FromDatetime(datetime.fromtimestamp(at, UTC))
        assert timestamp(at) == feasts.SerializeToString(), at
        assert read_timestamp(timestamp(at)) == pytest.approx(at, abs=1e-6)


def test_a_list_is_no_feature_of_events() -> None:
    with pytest.raises(UsageError, match="INT64_LIST"):
        encoder("INT64_LIST")
