"""Who hands back how many connections; no more is held than there is room for."""

import random

from sunup.engine.door.balance import moves, shares, smoothed
from sunup.engine.door.room import Room


def test_a_new_worker_gets_its_share() -> None:
    assert shares([16, 0]) == [8, 0]
    assert shares([7, 0]) == [3, 0]
    assert shares([9, 2, 0]) == [5, 0, 0]
    assert shares([1, 0]) == [0, 0]
    assert shares([]) == []


def test_nobody_is_asked_for_more_than_is_too_much() -> None:
    chance = random.Random(4)
    for _ in range(200):
        counts = [chance.randrange(40) for _ in range(chance.randint(1, 6))]
        left = [count - back for count, back in zip(counts, shares(counts), strict=True)]
        assert max(left) <= -(-sum(counts) // len(counts))
        assert all(
            back == 0 or rest * len(counts) >= sum(counts) for back, rest in zip(shares(counts), left, strict=True)
        )


def test_load_moves_from_the_busiest_to_the_idlest() -> None:
    assert moves([6.0, 0.0], [6, 6]) == (0, 3)
    assert moves([0.2, 0.9, 3.0], [5, 5, 5]) == (2, 1)
    assert moves([1.0, 0.0], [16, 0]) == (0, 1)


def test_what_is_about_even_stays() -> None:
    assert moves([1.0, 0.5], [5, 5]) is None
    assert moves([1.0, 0.0], [1, 0]) is None  # the last one
    assert moves([4.0], [9]) is None
    assert moves([], []) is None


def test_one_look_is_not_a_load() -> None:
    load = 0.0
    for busy in (1, 0, 1, 0, 1, 0, 1, 0):
        load = smoothed(load, busy)
        assert load < 0.75
    for _ in range(12):
        load = smoothed(load, 3)
    assert load > 2.9


def test_room() -> None:
    room = Room(10)
    room.used += 10
    assert not room.full
    room.used += 1
    assert room.full
    assert repr(room) == "Room(11 of 10 bytes)"
