"""Keys and values against Feast's own serialiser and protobuf classes, on random values from a seed."""

import random
import struct
from itertools import permutations, product
from typing import Any

import pytest
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Null, Value, ValueType
from google.protobuf.timestamp_pb2 import Timestamp  # type: ignore[import-untyped]
from tests.random_values import MEMBER, random_scalar, random_value

from sunup.limits import VALUE_KNOWN_BYTES_MAX, VALUES_KNOWN_MAX
from sunup.lookup.keys import KEY_ERRORS, key_maker
from sunup.lookup.plan import KEY_TYPES, VALUE_TYPES, JoinKey
from sunup.lookup.together import Known, together
from sunup.lookup.values import NULL_TIMESTAMP, decoder, timestamp

SEED = 20260101


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_keys_are_feasts_bytes(count: int) -> None:
    rng = random.Random(SEED + count)
    for _ in range(200):
        kinds = [rng.choice(KEY_TYPES) for _ in range(count)]
        names = rng.sample(["user", "ürsel", "a", "shop_name", "z" * 300], count)
        row = tuple(random_scalar(rng, kind) for kind in kinds)
        values = [Value(**{MEMBER[kind]: value}) for kind, value in zip(kinds, row, strict=True)]
        join_keys = [JoinKey(name, f"f{i}", kind) for i, (name, kind) in enumerate(zip(names, kinds, strict=True))]
        make = key_maker(join_keys, {f"f{i}": i for i in range(count)})
        assert make(row) == serialize_entity_key(EntityKey(join_keys=names, entity_values=values), 3)


def test_a_view_without_entities_has_one_constant_key() -> None:
    make = key_maker([JoinKey("__dummy_id", "", "STRING")], {})
    key = EntityKey(join_keys=["__dummy_id"], entity_values=[Value(string_val="")])
    assert make(()) == make((1, 2)) == serialize_entity_key(key, 3)


@pytest.mark.parametrize(
    ("kind", "value"),
    [("INT64", 2**63), ("INT64", "7"), ("INT64", None), ("INT32", 2**31), ("STRING", 7), ("STRING", "\ud800")],
)
def test_what_cannot_be_a_key_raises_one_of_the_key_errors(kind: str, value: Any) -> None:
    for others in ((), ("INT64",)):  # alone (the fast path) and beside another
        keys = [JoinKey("k", "k", kind)] + [JoinKey("other", "other", other) for other in others]
        with pytest.raises(KEY_ERRORS):
            key_maker(keys, {"k": 0, "other": 1})((value, 1))


def test_numbers_of_value_types_and_members_are_feasts() -> None:
    fields = {field.name: field.number for field in Value.DESCRIPTOR.fields}
    for kind, (number, _dtype) in VALUE_TYPES.items():
        assert ValueType.Enum.Value(kind) == number == fields[MEMBER[kind]]


@pytest.mark.parametrize("kind", [kind for kind in VALUE_TYPES if not kind.endswith("_LIST")])
def test_scalars_decode_as_protobuf_does(kind: str) -> None:
    rng, decode = random.Random(SEED), decoder(kind)
    for _ in range(2000):
        message = Value(**{MEMBER[kind]: random_scalar(rng, kind)})
        value = decode(message.SerializeToString())
        expected = getattr(message, MEMBER[kind])
        assert value == expected
        assert type(value) is type(expected)


@pytest.mark.parametrize("kind", [kind for kind in VALUE_TYPES if kind.endswith("_LIST")])
def test_lists_decode_as_protobuf_does(kind: str) -> None:
    rng, decode = random.Random(SEED), decoder(kind)
    for size in [0, 1, 2, 5, 200] * 20:
        message = Value()
        getattr(message, MEMBER[kind]).val.extend(random_scalar(rng, kind.removesuffix("_LIST")) for _ in range(size))
        getattr(message, MEMBER[kind]).SetInParent()
        assert decode(message.SerializeToString()) == list(getattr(message, MEMBER[kind]).val)


def test_numbers_that_are_not_packed_decode_too() -> None:
    body = b"\x08\x05\x08\x80\x01"  # val: 5, val: 128, each in a field of its own
    assert decoder("INT64_LIST")(bytes([14 << 3 | 2, len(body)]) + body) == [5, 128]


@pytest.mark.parametrize("kind", list(VALUE_TYPES))
def test_null_is_told_from_the_types_own_zero(kind: str) -> None:
    decode = decoder(kind)
    assert decode(None) is None
    assert decode(Value().SerializeToString()) is None
    assert decode(Value(null_val=Null.NULL).SerializeToString()) is None
    zero = Value()
    member = getattr(zero, MEMBER[kind])
    if kind.endswith("_LIST"):
        member.SetInParent()
    else:
        setattr(zero, MEMBER[kind], type(member)())
    value = decode(zero.SerializeToString())
    assert value is not None
    assert not value


def test_the_time_feast_writes_for_no_time_is_no_value() -> None:
    assert decoder("UNIX_TIMESTAMP")(Value(unix_timestamp_val=NULL_TIMESTAMP).SerializeToString()) is None


def test_a_number_that_is_cut_off_is_no_value() -> None:
    for raw in (b"\x20", b"\x20\xff", b"\x20\xff\xff", b"\x20\xff\xff\xff"):
        assert decoder("INT64")(raw) is None


def test_other_types_are_read_only_where_the_meaning_holds() -> None:
    whole, text = Value(int64_val=300).SerializeToString(), Value(string_val="300").SerializeToString()
    assert decoder("DOUBLE")(whole) == 300.0
    assert decoder("INT32")(whole) == 300
    assert decoder("INT32")(Value(int64_val=2**40).SerializeToString()) is None
    assert decoder("DOUBLE")(Value(float_val=0.5).SerializeToString()) == 0.5
    assert decoder("INT64")(text) is None
    assert decoder("INT64")(Value(double_val=3.0).SerializeToString()) is None
    assert decoder("BOOL")(whole) is None
    assert decoder("INT64_LIST")(whole) is None


def test_the_last_member_set_wins_as_in_protobuf() -> None:
    twice = Value(int64_val=1).SerializeToString() + Value(int64_val=2).SerializeToString()
    assert decoder("INT64")(twice) == Value.FromString(twice).int64_val == 2


@pytest.mark.parametrize("kind", list(VALUE_TYPES))
def test_damaged_bytes_are_no_value_and_never_an_exception(kind: str) -> None:
    rng, decode = random.Random(SEED), decoder(kind)
    whole = Value(string_val="something long enough").SerializeToString()
    for _ in range(3000):
        decode(rng.randbytes(rng.randrange(14)))
        decode(bytes([VALUE_TYPES[kind][0] << 3 & 255 | rng.choice([0, 1, 2, 5])]) + rng.randbytes(rng.randrange(10)))
    assert decoder("STRING")(whole[:-1]) is None
    assert decoder("DOUBLE")(struct.pack("<Bf", 5 << 3 | 1, 1.0)) is None


def test_timestamps_are_protobufs() -> None:
    rng = random.Random(SEED)
    assert timestamp(None) is None
    for _ in range(3000):
        seconds = rng.choice([0, 1, 127, 128, 2**28, 1_700_000_000, 2**35 - 1, 2**35, -1, rng.randrange(2**34)])
        message = Timestamp(seconds=seconds, nanos=rng.choice([0, 0, 5, 999_999_999, rng.randrange(10**9)]))
        assert timestamp(message.SerializeToString()) == message.seconds + message.nanos / 1e9
    assert timestamp(b"\x08\x80") is None


@pytest.mark.parametrize(("kind", "code"), [("DOUBLE", "<d"), ("FLOAT", "<f")])
def test_values_of_one_type_are_decoded_together_as_one_by_one(kind: str, code: str) -> None:
    decode, single = together([kind] * 3, 0, {}), decoder(kind)
    tag = bytes([VALUE_TYPES[kind][0] << 3 | (1 if kind == "DOUBLE" else 5)])
    good = [tag + struct.pack(code, number) for number in (1.5, -0.0, float("inf"), float("nan"))]
    for raws in product(good, repeat=3):
        assert repr(decode(raws)) == repr(tuple([single(raw) for raw in raws]))
    other = b"\x18\x07" + bytes(len(good[0]) - 2)  # an int32 and damage, as long as a value
    # What may be given them one by one: absent, NULL, two values in one, another type, something cut off or too long.
    for odd in (None, b"", good[0] + good[1], other, good[0][:-1], good[0] + b"\x00"):
        for mixed in permutations((odd, good[0], good[1])):
            assert decode(mixed) is None
    assert decode((good[0] + good[1], b"", good[2])) is None  # as long in all as three values


@pytest.mark.parametrize("mixed", [True, False], ids=["mixed", "side by side"])
def test_values_of_a_view_are_decoded_together_as_one_by_one(mixed: bool) -> None:
    """Whatever types it has, in whatever order, wherever it lies in what was found; or not at all."""
    rng = random.Random(SEED)
    known: dict[str, Known] = {}
    whole = 0
    for _ in range(500):
        kinds = rng.choices(list(VALUE_TYPES), k=rng.randrange(1, 12))
        kinds = kinds if mixed else sorted(kinds)
        start = rng.randrange(3)
        decode, singles = together(kinds, start, known), [decoder(kind) for kind in kinds]
        for _ in range(5):
            raws = [random_value(rng, kind).SerializeToString() for kind in kinds]
            expected = tuple([single(raw) for single, raw in zip(singles, raws, strict=True)])
            got = decode([b"before"] * start + raws + [1.0, b"behind"])
            if None in expected:
                assert got is None
            else:
                whole += 1
                assert repr(got) == repr(expected)
    assert whole > 500
    assert max(map(len, known.values())) <= VALUES_KNOWN_MAX


def test_only_so_many_values_are_kept_and_none_that_is_long() -> None:
    known: dict[str, Known] = {}
    decode = together(["INT64", "STRING"], 0, known)
    text = Value(string_val="x" * VALUE_KNOWN_BYTES_MAX).SerializeToString()
    for number in range(VALUES_KNOWN_MAX + 10):
        assert decode([Value(int64_val=number).SerializeToString(), text]) == (number, "x" * VALUE_KNOWN_BYTES_MAX)
    assert {kind: len(values) for kind, values in known.items()} == {"INT64": VALUES_KNOWN_MAX, "STRING": 0}


def test_a_list_is_made_anew_each_time() -> None:
    decode = together(["INT64_LIST"], 0, {})
    value = Value()
    value.int64_list_val.val.extend([1, 2])
    raw = value.SerializeToString()
    first = decode([raw])
    assert first is not None
    first[0].append(3)
    assert decode([raw]) == ([1, 2],)
