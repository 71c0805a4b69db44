"""The cohort of a round is a public function that no party can steer."""

import hashlib

import pytest

from merveil.protocols.cohort import draw_cohort, shuffled
from merveil.protocols.errors import LocalError

BEACON, ROSTER = b"b" * 32, b"r" * 32


def digest(purpose: bytes, *fields: bytes) -> bytes:
    return hashlib.sha256(b"".join(len(p).to_bytes(4, "big") + p for p in (purpose, *fields))).digest()


def test_everyone_is_invited_by_default() -> None:
    assert draw_cohort(BEACON, ROSTER, 1, 5, 5) == (1, 2, 3, 4, 5)


def test_a_draw_is_the_documented_one() -> None:
    seed = digest(b"merveil/cohort/1/draw", BEACON, ROSTER, (7).to_bytes(4, "big"))
    order = sorted(range(1, 31), key=lambda i: digest(b"merveil/cohort/1/rank", seed, i.to_bytes(2, "big")))
    assert draw_cohort(BEACON, ROSTER, 7, 30, 10) == tuple(sorted(order[:10]))
    assert shuffled(BEACON, ROSTER, "draw", 7, tuple(range(1, 31))) == tuple(order)


def test_beacon_roster_round_and_purpose_all_matter() -> None:
    members = tuple(range(1, 41))
    orders = {
        shuffled(BEACON, ROSTER, "draw", 1, members),
        shuffled(b"c" * 32, ROSTER, "draw", 1, members),
        shuffled(BEACON, b"s" * 32, "draw", 1, members),
        shuffled(BEACON, ROSTER, "draw", 2, members),
        shuffled(BEACON, ROSTER, "graph", 1, members),
    }
    assert len(orders) == 5


def test_each_member_is_invited_about_equally_often() -> None:
    count = dict.fromkeys(range(1, 11), 0)
    for round_ in range(1, 1001):
        for i in draw_cohort(BEACON, ROSTER, round_, 10, 4):
            count[i] += 1
    deviation = (1000 * 0.4 * 0.6) ** 0.5
    assert max(abs(n - 400) for n in count.values()) < 4.5 * deviation


@pytest.mark.parametrize("size", [0, -1, 6])
def test_a_cohort_larger_than_the_roster_is_the_callers_mistake(size: int) -> None:
    with pytest.raises(LocalError):
        draw_cohort(BEACON, ROSTER, 1, 5, size)
