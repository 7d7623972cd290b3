"""Floor: the features of the bench of lookups read from Feast's PostgreSQL tables by hand, with psycopg.

`one`: one prepared SELECT in binary and the decoding. `many`: one prepared SELECT for 501 keys, its rows fetched and
nothing decoded. It blocks: no event loop, no deadline, no reconnecting. Arguments: URL.
"""

import sys
import time
from typing import Any

import psycopg
from tests.bench.floor.lookup_sqlite import INT64, USER, by_key, by_name, keys
from tests.bench.lookup.data import PROJECT, SERVICES, TTL_S
from tests.bench.lookup.subject import Ask, loop, obey

COLUMNS = "entity_key, feature_name, value, date_part('epoch', event_ts)"


def select(view: str, wanted: str) -> str:
    return f'SELECT {COLUMNS} FROM "{PROJECT}_{view}" WHERE entity_key {wanted}'


ONE = " UNION ALL ".join(select(view, "= %s") for view, _ in SERVICES["one"]).encode()
MANY = " UNION ALL ".join((select("taste", "= %s"), select("item_stats", "= ANY(%s)"))).encode()


def asks(connection: "psycopg.Connection[Any]") -> dict[str, Ask]:
    cursor = connection.cursor(binary=True)

    def one(user: int) -> list[Any]:
        key = USER + INT64(user)
        return by_name(cursor.execute(ONE, (key, key, key), prepare=True).fetchall(), time.time() - TTL_S)

    def many(keys: tuple[bytes, list[bytes]]) -> list[Any]:
        return cursor.execute(MANY, keys, prepare=True).fetchall()

    def split(question: Any) -> tuple[bytes, list[bytes]]:
        user, *items = keys(question)
        return user, items

    return {"one": Ask(lambda user: user, one, lambda _, values: [values]), "many": Ask(split, many, by_key)}


def main() -> None:
    with psycopg.connect(sys.argv[1].partition("?")[0], autocommit=True) as connection, loop() as runner:
        obey(runner, asks(connection))


if __name__ == "__main__":
    main()
