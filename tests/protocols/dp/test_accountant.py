"""The accountant against dp-accounting, an exact privacy loss distribution, and numeric divergences."""

import math
from fractions import Fraction

import numpy as np
import pytest

from merveil.protocols.dp.accountant import (
    ORDERS,
    Release,
    epsilon,
    gaussian_curve,
    gaussian_gap,
    gaussian_sum_curve,
    skellam_curve,
    to_epsilon,
)
from merveil.protocols.dp.sampling import table
from merveil.protocols.errors import LocalError

SOME = np.array([2.0, 3, 4, 8, 16, 32])


def masses(kind: str, variance: Fraction, reach: int) -> np.ndarray:
    """P(-reach..reach) to double precision, from the table's exact integers."""
    return np.array([float(p) for p in table(kind, variance, reach).probabilities()])


def divergence(p: np.ndarray, shift: int, order: float) -> float:
    """Renyi divergence of p moved by `shift` from p, over the common support, in logs."""
    q = p[shift:]
    p = p[: len(p) - shift]
    kept = (p > 1e-36) & (q > 1e-36)
    terms = order * np.log(p[kept]) - (order - 1) * np.log(q[kept])
    top = terms.max()
    return float((top + np.log(np.exp(terms - top).sum())) / (order - 1))


@pytest.mark.parametrize("variance", [4, 25, 100])
@pytest.mark.parametrize("shift", [1, 3, 10])
def test_skellam_bound_holds_against_the_exact_divergence(variance, shift):
    p = masses("skellam", Fraction(variance), int(40 * math.sqrt(variance)))
    bound = skellam_curve(shift**2, 1, variance, SOME)
    for order, limit in zip(SOME, bound):
        exact = max(divergence(p, shift, order), divergence(p[::-1], shift, order))
        assert exact <= limit * (1 + 1e-9)
        if order * shift <= variance / 4:  # tight where noise is wide against order * shift
            assert limit <= exact * 1.25


def test_skellam_figure_of_the_source():
    p = masses("skellam", Fraction(25), 200)
    assert divergence(p, 1, 8) == pytest.approx(0.1569, abs=2e-4)
    assert skellam_curve(1, 1, 25.0, np.array([8.0]))[0] == pytest.approx(0.1684, abs=1e-4)


@pytest.mark.parametrize("shares", [1, 2, 5])
@pytest.mark.parametrize("variance", [Fraction(1, 2), Fraction(2), Fraction(9)])
def test_gaussian_sum_bound_holds_against_convolved_masses(shares, variance):
    one = masses("gaussian", variance, int(14 * math.sqrt(variance)) + 10)
    p = one
    for _ in range(shares - 1):
        p = np.convolve(p, one)
    bound = gaussian_sum_curve(1, 1, float(variance), shares, SOME)
    for order, limit in zip(SOME[:4], bound):
        assert divergence(np.maximum(p, 1e-300), 1, order) <= limit * (1 + 1e-6) + 1e-9


def test_one_discrete_gaussian_has_no_gap_and_many_have_little():
    assert gaussian_gap(0.25, 1) == 0
    assert gaussian_gap(0.25, 10) > 0.1
    assert gaussian_gap(9.0, 50) < 1e-36
    assert gaussian_sum_curve(4, 16, 100.0, 1, SOME) == pytest.approx(gaussian_curve(5.0, SOME))


def test_gaussian_limit_of_both():
    z = 7.0
    l2 = 10_000
    wide = Fraction(int(z * z * l2))
    for kind in ("skellam", "gaussian"):
        got = epsilon([(Release(kind, l2, 64, 1, wide, Fraction(0)), 30)], 1e-5)
        assert got == pytest.approx(to_epsilon(30 * gaussian_curve(z), 1e-5), rel=1e-3)


@pytest.mark.parametrize("multiplier, rounds", [(1.0, 1), (5.0, 60), (30.0, 60), (80.0, 200)])
def test_gaussian_composition_equals_dp_accounting(multiplier, rounds):
    dp = pytest.importorskip("dp_accounting")
    rdp = pytest.importorskip("dp_accounting.rdp")
    tool = rdp.RdpAccountant(orders=ORDERS.tolist())
    theirs = tool.compose(dp.GaussianDpEvent(multiplier), rounds).get_epsilon(1e-5)
    ours = to_epsilon(rounds * gaussian_curve(multiplier), 1e-5)
    assert ours == pytest.approx(theirs, rel=0.01)
    default = rdp.RdpAccountant().compose(dp.GaussianDpEvent(multiplier), rounds).get_epsilon(1e-5)
    assert ours <= default * 1.01  # our orders lose nothing against theirs


@pytest.mark.parametrize("variance, shift, rounds", [(400, 20, 1), (2500, 10, 10)])
def test_epsilon_lies_above_the_exact_skellam_pld_and_near_it(variance, shift, rounds):
    pld = pytest.importorskip("dp_accounting.pld.privacy_loss_distribution")
    reach = int(10 * math.sqrt(variance)) + shift
    p = masses("skellam", Fraction(variance), reach)
    upper = {k - reach + shift: math.log(x) for k, x in enumerate(p) if x > 1e-30}
    lower = {k - reach: math.log(x) for k, x in enumerate(p) if x > 1e-30}
    one = pld.from_two_probability_mass_functions(lower, upper, value_discretization_interval=1e-3)
    exact = one.self_compose(rounds).get_epsilon_for_delta(1e-5)
    ours = epsilon([(Release("skellam", shift**2, 1, 1, Fraction(variance), Fraction(0)), rounds)], 1e-5)
    assert exact <= ours <= 1.25 * exact


def test_numeric_conversion_is_independent_of_ours():
    """delta from epsilon by minimising exp((a-1)(rdp-eps)) (1-1/a)^a / (a-1) over real orders, inverted."""
    z, delta = 3.0, 1e-6
    a = np.linspace(1.01, 200, 200_000)

    def log_delta(eps: float) -> float:
        return float(((a - 1) * (a / (2 * z * z) - eps) + a * np.log1p(-1 / a) - np.log(a - 1)).min())

    low, high = 0.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if log_delta(middle) > math.log(delta) else (low, middle)
    assert to_epsilon(gaussian_curve(z), delta) == pytest.approx(high, rel=2e-3)


def test_omega_is_charged_with_the_exponential_factor():
    clean = Release("skellam", 100, 8, 1, Fraction(900), Fraction(0))
    dirty = Release("skellam", 100, 8, 1, Fraction(900), Fraction(1, 10**10))
    a, b = epsilon([(clean, 10)], 1e-5), epsilon([(dirty, 10)], 1e-5)
    assert b > a
    assert epsilon([(Release("skellam", 100, 8, 1, Fraction(900), Fraction(1, 10)), 10)], 1e-5) == math.inf
    share = (1 + math.exp(b)) * 10 * 1e-10
    assert share < 1e-5  # what is charged still leaves something of delta
    assert b == pytest.approx(epsilon([(clean, 10)], 1e-5 - share), rel=0.05)


def test_charges_add_and_more_shares_help():
    r = Release("skellam", 400, 16, 4, Fraction(2000), Fraction(0))
    assert epsilon([], 1e-5) == 0.0
    assert epsilon([(r, 3), (r, 4)], 1e-5) == epsilon([(r, 7)], 1e-5)
    assert epsilon([(r, 8)], 1e-5) > epsilon([(r, 7)], 1e-5) > epsilon([(r, 7)], 1e-4)
    more = Release("skellam", 400, 16, 8, Fraction(2000), Fraction(0))
    assert epsilon([(more, 7)], 1e-5) < epsilon([(r, 7)], 1e-5)


def test_refusals():
    with pytest.raises(LocalError, match="delta lies"):
        to_epsilon(gaussian_curve(1.0), 0.0)
    with pytest.raises(LocalError, match="not known"):
        Release("laplace", 1, 1, 1, Fraction(1), Fraction(0))
    with pytest.raises(LocalError, match="positive norm"):
        Release("skellam", 0, 1, 1, Fraction(1), Fraction(0))
    with pytest.raises(LocalError, match="no distance"):
        Release("skellam", 1, 1, 1, Fraction(1), Fraction(2))


def test_a_release_with_too_fine_a_noise_is_refused():
    assert Release("skellam", 100, 8, 1, Fraction(1, 4), Fraction(0)).honest == 1
    with pytest.raises(LocalError, match="variance >= 1/4"):
        Release("skellam", 100, 8, 1, Fraction(1, 5), Fraction(0))
