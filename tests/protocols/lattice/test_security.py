"""An estimate of our own beside the table that the caps come from: the primal attack of 2016.

Alkim, Ducas, Pöppelmann, Schwabe (USENIX Security 2016): block size b solves LWE with m samples where
sigma sqrt(b) <= delta^(2b - d - 1) q^(m/d), d = n + m + 1, and costs 2^(0.292 b + 16.4 + log2 8d) classically
(Becker, Ducas, Gama, Laarhoven 2016, as in the lattice estimator's default of those years). It knows neither
dual nor hybrid attacks and no refinement since, so it is a check on the order, not the source of the caps.
"""

import math

import pytest

from merveil.protocols.lattice import Lattice
from merveil.protocols.lattice.constants import CAPS, SIGMA
from merveil.protocols.lattice.params import hint_sigma


def block_size(degree: int, log2_q: float, sigma: float) -> tuple[int, int]:
    """(least b over all m, d)."""

    def reaches(b: int) -> int:
        delta = (b / (2 * math.pi * math.e) * (math.pi * b) ** (1 / b)) ** (1 / (2 * (b - 1)))
        for m in range(degree // 2, 3 * degree, degree // 64):
            d = degree + m + 1
            right = (2 * b - d - 1) * math.log2(delta) + m / d * log2_q
            if math.log2(sigma) + math.log2(b) / 2 <= right:
                return d
        return 0

    low, high = 60, 2 * degree
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if reaches(middle) else (middle + 1, high)
    return low, reaches(low)


def bits(degree: int, log2_q: float, sigma: float) -> float:
    b, d = block_size(degree, log2_q, sigma)
    return 0.292 * b + 16.4 + math.log2(8 * d)


@pytest.mark.parametrize("degree", CAPS)
def test_the_caps_give_128_bits_at_what_two_honest_clients_leave(degree: int) -> None:
    assert 128 <= bits(degree, CAPS[degree], hint_sigma(2)) < 160
    assert bits(degree, 1.5 * CAPS[degree], hint_sigma(2)) < 110, "the estimate tells weak rings"


@pytest.mark.parametrize("cohort", [5, 24, 100, 1_000, 10_000])
@pytest.mark.parametrize("dim", [10, 1_700, 55_000, 1_000_000])
def test_default_parameters(cohort: int, dim: int) -> None:
    p = Lattice().params(cohort, dim)
    q = sum(math.log2(x) for x in p.layout.primes)
    assert bits(p.degree, q, hint_sigma(p.honest)) >= 128
    assert SIGMA / 2 >= 3.19, "the table is for errors of 3.19"
