"""Packed sharing: what rebuilds a key, and exactly how many members learn nothing of it."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest

from merveil.protocols.lattice import packed
from merveil.protocols.lattice.params import LatticeParams
from merveil.protocols.rng import SeededRng


def rank(matrix: list[list[int]], p: int) -> int:
    rows, found = [list(r) for r in matrix], 0
    for column in range(len(rows[0])):
        pivot = next((i for i in range(found, len(rows)) if rows[i][column] % p), None)
        if pivot is None:
            continue
        rows[found], rows[pivot] = rows[pivot], rows[found]
        inverse = pow(rows[found][column], -1, p)
        for i in range(found + 1, len(rows)):
            factor = rows[i][column] * inverse % p
            rows[i] = [(a - factor * b) % p for a, b in zip(rows[i], rows[found])]
        found += 1
    return found


def columns(p: LatticeParams) -> tuple[np.ndarray, np.ndarray]:
    """Every member's share as a linear form: of the l secrets, and of the t - l random values."""
    nodes = (*range(p.members + 1, p.members + p.pack + 1), *range(1, p.privacy + 1))
    matrix = packed.interpolation(p.field, nodes, tuple(range(1, p.members + 1))).astype(int)
    return matrix[:, : p.pack], matrix[:, p.pack :]


@pytest.mark.parametrize("cohort", [3, 5, 8, 12])
def test_t_minus_l_members_learn_nothing_and_one_more_learns_a_relation(cohort: int, make: Any) -> None:
    """Exact, for every set of members: their randomness has full rank, so their shares are uniform whatever
    the key; one member more has a combination of shares that is free of randomness, and it shows the key."""
    p = make(cohort)
    secrets, random = columns(p)
    assert p.privacy >= max(1, p.corrupt_members)
    for few in combinations(range(p.members), p.privacy):
        assert rank(random[list(few)].tolist(), p.field) == p.privacy
    for more in combinations(range(p.members), p.privacy + 1):
        both = np.concatenate((random, secrets), axis=1)[list(more)]
        assert rank(random[list(more)].tolist(), p.field) == p.privacy
        assert rank(both.tolist(), p.field) == p.privacy + 1


@pytest.mark.parametrize("cohort", [3, 5, 12, 40])
def test_any_quorum_rebuilds_the_sum_of_the_keys(cohort: int, make: Any, rng: SeededRng) -> None:
    p = make(cohort, dim=100)
    keys = [rng.draw(p.degree, "key") for _ in range(4)]
    secrets = [np.frombuffer(k, dtype=np.int8).astype(np.int64) // 8 for k in keys]
    shares = sum(packed.share(p, s, rng) for s in secrets) % p.field
    expected = np.sum(secrets, axis=0)
    bound = p.field // 2
    assert abs(expected).max() <= bound
    dice = np.random.default_rng(cohort)
    for _ in range(6):
        members = dice.permutation(p.members)[: p.quorum]
        found = packed.recover(p, {int(j) + 1: shares[j] for j in members})
        assert np.array_equal(found, expected)


def test_shares_are_sums_of_the_plain_definition(make: Any, rng: SeededRng) -> None:
    """Lagrange interpolation in integers, for one polynomial of each kind."""
    p = make(12, dim=5)
    secret = np.arange(p.degree) % 91 - 45
    shares = packed.share(p, secret, rng)
    padded = np.zeros(p.pack * p.blocks, dtype=int)
    padded[: p.degree] = secret
    for m in (0, 1, p.blocks - 1):
        points = [(p.members + 1 + i, int(padded[i * p.blocks + m])) for i in range(p.pack)]
        points += [(j + 1, int(shares[j, m])) for j in range(p.privacy)]
        for j in range(p.members):
            value = 0
            for x, y in points:
                term = y
                for z, _ in points:
                    if z != x:
                        term = term * (j + 1 - z) * pow(x - z, -1, p.field) % p.field
                value = (value + term) % p.field
            assert int(shares[j, m]) == value


def test_shares_of_two_keys_look_alike(make: Any, rng: SeededRng) -> None:
    """Chi square of the values that t - l members hold, for the zero key and a constant one."""
    p = make(8, dim=5)
    for secret in (np.zeros(p.degree, dtype=np.int64), np.full(p.degree, 40)):
        held = np.concatenate([packed.share(p, secret, rng)[: p.privacy].ravel() for _ in range(40)])
        counts = np.bincount(held, minlength=p.field)
        expected = held.size / p.field
        chi = ((counts - expected) ** 2 / expected).sum()
        assert abs(chi - p.field) < 6 * (2 * p.field) ** 0.5


def test_elements_out_of_form_are_refused(make: Any, rng: SeededRng) -> None:
    p = make(5)
    good = packed.encode(p, packed.share(p, np.zeros(p.degree, dtype=np.int64), rng)[0])
    assert packed.decode(p, good) is not None and len(good) == p.share_size
    large = packed.encode(p, np.full(p.blocks, p.field))
    for bad in (good[:-1], good + b"\0", b"", large, good[:-1] + bytes((good[-1] | 0x80,))):
        assert packed.decode(p, bad) is None, len(bad)
