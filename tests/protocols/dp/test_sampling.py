"""Noise: the table against exact arithmetic, the sampler against its table, and both against their moments.

Level of every statistical test here: a right sampler fails one in 10^6 runs, where the bytes are random.
"""

from decimal import Decimal, getcontext
from fractions import Fraction
from math import erfc, exp, factorial, isqrt, sqrt

import numpy as np
import pytest
from scipy.stats import chi2

from merveil.protocols.dp.brackets import weights
from merveil.protocols.dp.exact import IntegerCoins, discrete_gaussian
from merveil.protocols.dp.sampling import KINDS, ROUNDED, Table, table
from merveil.protocols.errors import LocalError
from merveil.protocols.rng import SeededRng, SystemRng

LEVEL = 1e-6


def skellam_series(k: int, variance: Fraction) -> float:
    """P(k) by the power series of I_k, all terms positive: a second way to the same number."""
    half, term, total = variance / 2, Fraction(1), Fraction(0)
    term = half ** abs(k) / factorial(abs(k))
    m = 0
    while term > Fraction(1, 10**60):
        total += term
        m += 1
        term = term * half * half / (m * (m + abs(k)))
    return float(total) * exp(-float(variance))


def gauss_mass(k: int, variance: float) -> float:
    reach = int(40 * sqrt(variance)) + 10
    total = sum(exp(-j * j / (2 * variance)) for j in range(-reach, reach + 1))
    return exp(-k * k / (2 * variance)) / total


def pmf(kind: str, k: int, variance: Fraction) -> float:
    return skellam_series(k, variance) if kind == "skellam" else gauss_mass(k, float(variance))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variance", [Fraction(1, 4), Fraction(7, 3), Fraction(40)])
def test_table_has_the_exact_probabilities(kind, variance):
    bound = 8 * int(sqrt(variance)) + 12
    t = table(kind, variance, bound)
    found = t.probabilities()
    assert sum(found) == 1 and len(found) == 2 * bound + 1
    assert found == found[::-1]
    for k in (0, 1, 2, 5, bound // 2):
        assert float(found[bound + k]) == pytest.approx(pmf(kind, k, variance), rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_omega_bounds_the_tail_that_is_cut_and_is_not_far_above(kind):
    for bound in (3, 6, 12):
        t = table(kind, Fraction(4), bound)
        missing = 2 * sum(pmf(kind, k, Fraction(4)) for k in range(bound + 1, bound + 80))
        assert missing <= float(t.omega) * (1 + 1e-9)
        assert float(t.omega) <= missing * 1.01 + 1e-30


def test_wide_tables_stay_sharp():
    """The brackets of a wide Skellam must not open up: 12 standard deviations leave about 10^-33."""
    t = table("skellam", Fraction(250_000), 6000)
    assert 0 < t.omega < Fraction(1, 10**32)


def chi_square(draws, probabilities: dict[int, float]) -> float:
    """p-value of Pearson's test; values of expectation under 10 are pooled."""
    n = len(draws)
    values, counts = np.unique(draws, return_counts=True)
    seen = dict(zip(values.tolist(), counts.tolist()))
    cells = [(seen.get(k, 0), n * p) for k, p in probabilities.items() if n * p >= 10]
    inside = sum(c for c, _ in cells)
    expected = sum(e for _, e in cells)
    if n - expected > 10:
        cells.append((n - inside, n - expected))
    statistic = sum((c - e) ** 2 / e for c, e in cells)
    return float(chi2.sf(statistic, len(cells) - 1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variance", [Fraction(1, 2), Fraction(9), Fraction(901, 3)])
def test_samples_follow_the_exact_distribution(kind, variance):
    bound = 12 * int(sqrt(variance)) + 17
    draws = table(kind, variance, bound).draw(200_000, SystemRng())
    reach = int(5 * sqrt(variance)) + 3
    wanted = {k: pmf(kind, k, variance) for k in range(-reach, reach + 1)}
    assert chi_square(draws, wanted) > LEVEL
    assert np.abs(draws).max() <= bound


def test_the_chi_square_finds_a_variance_wrong_by_six_percent():
    """Control: the test above at its sample size would not pass a sampler that is a little off."""
    draws = table("skellam", Fraction(9), 60).draw(200_000, SystemRng())
    wanted = {k: pmf("skellam", k, Fraction(954, 100)) for k in range(-18, 19)}
    assert chi_square(draws, wanted) < LEVEL


def test_oracle_and_table_agree():
    variance = Fraction(11, 2)
    exact = np.array(discrete_gaussian(variance, 20_000, SystemRng()))
    assert chi_square(exact, {k: gauss_mass(k, float(variance)) for k in range(-14, 15)}) > LEVEL


def test_oracle_primitives():
    coins = IntegerCoins(SeededRng(3))
    drawn = np.array([coins.below(6) for _ in range(30_000)])
    assert chi_square(drawn, dict.fromkeys(range(6), 1 / 6)) > LEVEL
    hits = sum(coins.bernoulli_exp(Fraction(5, 2)) for _ in range(40_000))
    p = exp(-2.5)
    assert abs(hits - 40_000 * p) < 5 * sqrt(40_000 * p * (1 - p))
    assert IntegerCoins(SeededRng(1)).below(1) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_moments_at_a_fixed_seed(kind):
    x = table(kind, Fraction(400), 260).draw(1 << 18, SeededRng(4)).astype(float)
    n = len(x)
    assert abs(x.mean()) < 5 * 20 / sqrt(n)
    assert abs(x.var() / 400 - 1) < 5 * sqrt(2 / n) * 1.01
    fourth = (x**4).mean() / x.var() ** 2
    assert abs(fourth - (3 + (1 / 400 if kind == "skellam" else 0))) < 0.06
    far = (np.abs(x) > 60).mean()  # three standard deviations
    assert 0.002 < far < 0.0035


def test_vectors():
    assert table("skellam", Fraction(25), 80).draw(12, SeededRng(1)).tolist() == SKELLAM
    assert table("gaussian", Fraction(25), 80).draw(12, SeededRng(1)).tolist() == GAUSSIAN
    assert discrete_gaussian(Fraction(25), 12, SeededRng(1)) == ORACLE


class Words:
    """An Rng that gives the 64-bit words it was made with, by label."""

    def __init__(self, **words: int) -> None:
        self.words = words
        self.asked: list[str] = []

    def draw(self, size: int, label: str) -> bytes:
        self.asked.append(label)
        return self.words["tie" if label.endswith("tie") else "first"].to_bytes(8, "little")


@pytest.mark.parametrize("kind", KINDS)
def test_ties_are_settled_by_the_lower_word(kind):
    t: Table = table(kind, Fraction(25), 80)
    edges = [(int(h) << 64) | int(w) for h, w in zip(t.high, t.low)]
    for j in (40, 70, 80, 100):
        first, lower = divmod(edges[j], 1 << 64)
        below, at = Words(first=first, tie=lower - 1), Words(first=first, tie=lower)
        assert t.draw(1, below).tolist() == [j - 80]
        assert t.draw(1, at).tolist() == [j + 1 - 80]
        assert at.asked == ["dp/noise", "dp/noise/tie"]
    ends = [t.draw(1, Words(first=w, tie=w)).item() for w in (0, 2**64 - 1)]
    assert -80 <= ends[0] < -35 and 35 < ends[1] <= 80
    assert t.draw(1, Words(first=edges[80] // 2**64 + 5, tie=0)).item() == 1


@pytest.mark.parametrize("variance", [Fraction(16), Fraction(1001, 3), Fraction(1 << 20)])
def test_rounded_masses_are_those_of_the_continuous_gaussian(variance):
    """Against erfc in doubles, and the variance by Sheppard's correction."""
    bound = 12 * isqrt(int(variance)) + 17
    t = table(ROUNDED, variance, bound)
    found, scale = t.probabilities(), sqrt(2 * variance)
    for k in (0, 1, 3, int(2 * sqrt(variance))):
        wanted = (erfc((k - 0.5) / scale) - erfc((k + 0.5) / scale)) / 2
        assert float(found[bound + k]) == pytest.approx(wanted, rel=1e-9)
    assert sum(found) == 1 and found == found[::-1] and 0 < t.omega < Fraction(1, 10**32)
    if variance == 16:  # not the discrete Gaussian: Sheppard's correction
        spread = float(sum(k * k * p for k, p in enumerate(found, -bound)))
        assert spread == pytest.approx(16 + 1 / 12, rel=1e-9)


def test_rounded_brackets_enclose_a_simpson_integral():
    """Independent of the series: the cell's integral in 60-digit decimals."""
    getcontext().prec = 60
    v, n = Decimal(40), 400
    kept, _ = weights(ROUNDED, Fraction(40), 80, 256)
    for k in (0, 2, 9, 40, 75):
        nodes = [Decimal(k) - Decimal("0.5") + Decimal(i) / n for i in range(n + 1)]
        values = [(-x * x / (2 * v)).exp() for x in nodes]
        simpson = values[0] + values[-1] + 4 * sum(values[1::2]) + 2 * sum(values[2:-1:2])
        simpson /= 3 * n
        low, high = (Decimal(e) / Decimal(2) ** 256 for e in kept[k])
        assert low <= high <= low * (1 + Decimal(10) ** -40) + Decimal(2) ** -250
        assert abs(simpson / low - 1) < Decimal(10) ** -11


def test_rounded_samples_follow_the_exact_distribution():
    variance = Fraction(901, 3)
    draws = table(ROUNDED, variance, 300).draw(200_000, SystemRng())
    scale = sqrt(2 * variance)
    wanted = {k: (erfc((k - 0.5) / scale) - erfc((k + 0.5) / scale)) / 2 for k in range(-80, 81)}
    assert chi_square(draws, wanted) > LEVEL


@pytest.mark.parametrize("kind", [*KINDS, ROUNDED])
def test_more_bits_follow_the_tail_further_down(kind):
    short, long = (table(kind, Fraction(10_000), 1800, bits) for bits in (128, 256))
    assert Fraction(1, 10**34) > short.omega > Fraction(1, 10**38)  # what 128 bits can resolve
    assert long.omega < Fraction(1, 10**65)
    apart = sum(abs(a - b) for a, b in zip(short.probabilities(), long.probabilities()))
    assert apart / 2 <= short.omega
    assert len(long.draw(1000, SystemRng())) == 1000


def test_refusals():
    with pytest.raises(LocalError, match="not known"):
        table("laplace", Fraction(4), 20)
    with pytest.raises(LocalError, match="too fine"):
        table("skellam", Fraction(1, 8), 20)
    with pytest.raises(LocalError, match="rounded noise"):
        table(ROUNDED, Fraction(4), 20)
    for bits in (100, 120, 132, 1 << 20):
        with pytest.raises(LocalError, match="whole bytes"):
            table("skellam", Fraction(4), 20, bits)
    with pytest.raises(LocalError, match="cut at"):
        table("skellam", Fraction(4), 0)
    with pytest.raises(LocalError, match="positive"):
        discrete_gaussian(Fraction(0), 1, SeededRng(0))


SKELLAM = [3, 1, -6, -8, 3, 3, -2, 0, 1, 0, 6, -2]
GAUSSIAN = [3, 1, -6, -8, 3, 3, -2, 0, 1, 0, 6, -2]
ORACLE = [-3, 2, 3, 3, -5, 9, 2, -3, 5, -1, 3, 7]
