"""Degree, threshold and graph: known answers of the published finder, and what every graph must be."""

from itertools import pairwise

import pytest

from merveil.protocols.errors import AbortCode, LocalError
from merveil.protocols.policy import default_corrupt, default_threshold
from merveil.protocols.registry import get
from merveil.protocols.secagg.graph import (
    SMALL,
    answer_bound,
    corrupt_bound,
    find_degree,
    ring,
    stays_connected,
)

BEACON, HASH = b"b" * 32, b"h" * 32


@pytest.mark.parametrize(
    "gamma, delta, expected",
    [
        (0.05, 0.05, {100: (16, 11), 1_000: (52, 37), 10_000: (62, 44)}),
        (0.33, 0.05, {100: (42, 37), 1_000: (132, 109), 10_000: (178, 146)}),
    ],
)
def test_the_published_table(gamma: float, delta: float, expected: dict[int, tuple[int, int]]) -> None:
    """The test table of Google's finder, which asks 2^-20 for correctness."""
    for n, pair in expected.items():
        degree = find_degree(n, gamma, delta, correctness=20)
        assert degree is not None and (degree.neighbours, degree.threshold) == pair


@pytest.mark.parametrize(
    "share, expected",
    [
        (0.05, {24: (4, 3, 1), 50: (8, 6, 2), 100: (16, 11, 5), 1_000: (68, 46, 23), 10_000: (86, 58, 28)}),
        (0.1, {24: (8, 6, 2), 50: (16, 11, 5), 100: (32, 22, 10), 1_000: (128, 86, 43),
               10_000: (166, 111, 55)}),
        (0.2, {24: (14, 10, 4), 50: (32, 22, 10), 100: (62, 42, 20), 1_000: (374, 250, 125),
               10_000: (650, 434, 217)}),
    ],
)  # fmt: skip
def test_our_table(share: float, expected: dict[int, tuple[int, int, int]]) -> None:
    for n, triple in expected.items():
        degree = find_degree(n, share, share)
        assert degree is not None
        assert (degree.neighbours, degree.threshold, degree.corrupt) == triple


@pytest.mark.parametrize("n", [20, 24, 40, 64, 100, 250, 1_000])
def test_every_condition_holds_and_no_smaller_degree_has_them_all(n: int) -> None:
    degree = find_degree(n)
    if degree is None:
        return
    k, t, c = degree.neighbours, degree.threshold, degree.corrupt
    corrupt = dropped = n // 10
    assert k % 2 == 0 and k < n - 1 and c == corrupt_bound(n, corrupt, k)
    assert 2 * t > k + c and 2 * (t - 1) <= k + c, "no split view, and t is the least such"
    assert t <= answer_bound(n, dropped, k) and stays_connected(n, corrupt, dropped, k)
    for less in range(2, k, 2):
        smallest = (less + corrupt_bound(n, corrupt, less)) // 2 + 1
        connected = stays_connected(n, corrupt, dropped, less)
        assert not connected or smallest > answer_bound(n, dropped, less)


def test_tails_against_exact_hypergeometric_sums() -> None:
    """Both bounds again in exact integers: n * P[more than x corrupt] <= 2^-41 and so on."""
    from fractions import Fraction
    from math import comb

    n, k, marked = 100, 32, 10

    def tail(count: int, low: int, high: int) -> Fraction:
        ways = sum(comb(count, x) * comb(n - count, k - x) for x in range(low, high + 1))
        return Fraction(n * ways, comb(n, k))

    x = corrupt_bound(n, marked, k)
    assert tail(marked, x + 1, min(k, marked)) <= Fraction(1, 2**41) if x < marked else x == marked
    assert x == 0 or tail(marked, x, marked) > Fraction(1, 2**41)
    t = answer_bound(n, marked, k)
    assert tail(n - marked, 0, t - 1) <= Fraction(1, 2**40) < tail(n - marked, 0, t)


def test_no_sparse_graph_where_the_shares_are_too_large() -> None:
    assert find_degree(100, 0.4, 0.3) is None, "gamma + 2 delta <= 0.9"


def test_small_cohorts_use_the_complete_graph() -> None:
    for n in (5, 12, SMALL - 1):
        params = get("secagg+").params(n, 3)
        assert params.neighbours == 0
        assert (params.corrupt, params.threshold) == (
            default_corrupt(n),
            default_threshold(n, params.corrupt),
        )
    assert get("secagg+").params(24, 3).neighbours == 8


def test_thresholds_of_the_complete_graph() -> None:
    """FORMULAS section 2: equal to floor(2n/3) + 1 except at multiples of three, where it is 2m."""
    for n in range(5, 200):
        c = default_corrupt(n)
        t = default_threshold(n, c)
        assert t == (2 * n // 3 if n % 3 == 0 else 2 * n // 3 + 1)
        assert 2 * t > n + c >= 2 * (t - 1)
    with pytest.raises(LocalError) as error:
        get("secagg").params(5, 3, corrupt=4, threshold=6)
    assert error.value.code is AbortCode.COHORT_TOO_SMALL


@pytest.mark.parametrize("cohort, k", [(tuple(range(1, 25)), 8), (tuple(range(3, 90, 3)), 12)])
def test_a_ring_is_regular_symmetric_and_changes_with_the_round(cohort: tuple[int, ...], k: int) -> None:
    graph = ring(BEACON, HASH, 1, cohort, k)
    for i in cohort:
        around = graph.neighbours(i)
        assert len(set(around)) == k and i not in around and set(around) <= set(cohort)
        assert all(a < b for a, b in pairwise(around)) and graph.holders(i) == around
        assert all(i in graph.neighbours(j) for j in around)
        assert [graph.place(i, j) for j in around] == list(range(k))
    for other in (ring(BEACON, HASH, 2, cohort, k), ring(b"x" * 32, HASH, 1, cohort, k),
                  ring(BEACON, b"x" * 32, 1, cohort, k)):  # fmt: skip
        assert any(other.neighbours(i) != graph.neighbours(i) for i in cohort)
    assert all(ring(BEACON, HASH, 1, cohort, k).neighbours(i) == graph.neighbours(i) for i in cohort)


def test_in_the_complete_graph_a_client_holds_a_share_of_its_own() -> None:
    cohort = (2, 5, 9)
    graph = ring(BEACON, HASH, 1, cohort, 0)
    assert graph.neighbours(5) == (2, 9) and graph.holders(5) == cohort
    assert [graph.place(5, i) for i in cohort] == [0, 1, 2]
