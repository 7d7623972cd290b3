"""The ledger of the exactly-once tests finds what it is there to find."""

from collections.abc import Callable

import pytest
from tests.exactly_once.ledger import Faults, Ledger, entries, tell

from sunup.stream.broker import Record

BAD = 0.1
FACTORS = {1: 2.0, 2: 3.0}


def topic() -> tuple[list[Record], dict[bytes, str]]:
    """An input topic of 2,000 records in two partitions, by their keys, and the codes of its malformed ones."""
    records, codes, ends = [], {}, [0, 0]
    for (key, value, headers), code in entries(range(2000), BAD):
        partition = sum(key or b"") % 2
        records.append(Record("in", partition, ends[partition], key, value, headers, 0.0))
        ends[partition] += 1
        if code is not None:
            codes[key or b""] = code
    return records, codes


SENT, CODES = topic()


def scored(record: Record, revision: int = 1) -> Record:
    number = int((record.value or b"")[6:-1])
    headers = [("ce_id", b"in-%d-%d" % record[1:3]), ("ce_revision", b"%d" % revision)]
    return record._replace(topic="out", value=b'{"y":%g}' % (number * FACTORS[revision]), headers=headers)


def refused(record: Record, code: str | None = None) -> Record:
    place = [("sunup_partition", b"%d" % record.partition), ("sunup_offset", b"%d" % record.offset)]
    return record._replace(headers=[*place, ("sunup_error_code", (code or CODES[record.key or b""]).encode())])


OUT = [scored(record, 1 + (record.offset > 500)) for record in SENT if record.key not in CODES]
DEAD = [refused(record) for record in SENT if record.key in CODES]


def judged(out: list[Record], dead: list[Record] = DEAD) -> Faults:
    return tell(Ledger(FACTORS, CODES), SENT, out, dead)


def test_nothing_is_found_where_all_is_well() -> None:
    found = judged(OUT)
    assert not found, found
    assert len(DEAD) == BAD * len(SENT)
    assert len(set(CODES.values())) >= 7


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda: (OUT[:50] + OUT[60:], DEAD), {"lost": 10}),
        (lambda: (OUT, DEAD[1:]), {"lost": 1}),
        (lambda: (OUT + OUT[50:60], DEAD), {"doubled": 10}),
        (lambda: (OUT, [*DEAD, DEAD[0]]), {"doubled": 1}),
        (lambda: (OUT, [*DEAD, refused(SENT[0], "invalid_json")]), {"doubled": 1, "wrong": 1}),
        (lambda: ([*OUT[:-1], OUT[-1]._replace(value=b'{"y":1.0}')], DEAD), {"wrong": 1}),
        (lambda: ([*OUT[:-1], scored(SENT[-1], 1)], DEAD), {}),  # another revision, and right for that
        (lambda: ([*OUT[:-1], OUT[-1]._replace(key=b"k1")], DEAD), {"wrong": 1}),
        (lambda: (OUT, [refused(SENT[5], "no_such_code"), *DEAD[1:]]), {"wrong": 1}),
        (lambda: (OUT[1000:] + OUT[:1000], DEAD), {"unordered": 800}),
        (lambda: ([*OUT, OUT[0]._replace(headers=[("ce_id", b"in-7-0"), *OUT[0].headers[1:]])], DEAD), {"strange": 1}),
    ],
)
def test_what_is_spoilt_is_found(
    spoil: Callable[[], tuple[list[Record], list[Record]]], expected: dict[str, int]
) -> None:
    found = {name: len(each) for name, each in vars(judged(*spoil())).items() if each}
    assert found == expected


def test_it_says_where() -> None:
    assert "10 lost (partition" in str(judged(OUT[:50] + OUT[60:]))
