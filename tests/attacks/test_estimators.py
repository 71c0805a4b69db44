"""Lower bounds on epsilon: silent on nulls, below the claim on the right mechanism, loud on planted bugs.

The mechanism is the real one; a canary is a whole client's vector. Level 0.999 everywhere.
"""

import math

import numpy as np
import pytest

from merveil.audits.estimators.binomial import one_run, one_run_p, repeated
from merveil.protocols.dp.accountant import epsilon
from merveil.protocols.dp.discrete import plan
from merveil.protocols.rng import SeededRng

DELTA = 1e-5
PUBLIC = bytes(32)
RUNS = 4000


def test_ceilings_of_one_run():
    """95 % ceilings of 30 and of 200 perfect guesses, known values."""
    assert one_run(30, 30, 30, DELTA, 0.95).epsilon == pytest.approx(2.25, abs=0.02)
    assert one_run(200, 200, 200, DELTA, 0.95).epsilon == pytest.approx(4.19, abs=0.02)
    assert one_run(200, 200, 200, DELTA).ceiling == one_run(200, 200, 200, DELTA).epsilon


def test_one_run_p_is_the_binomial_tail_at_delta_zero():
    assert one_run_p(20, 20, 15, 0.0, 0.0) == pytest.approx(
        sum(math.comb(20, k) for k in range(15, 21)) / 2**20
    )


def test_nulls_are_rejected_at_the_stated_level_and_no_more():
    """Exact: the chance of a positive bound under coin flips, summed over all counts."""
    alarms = [v for v in range(30, 61) if one_run_p(100, 60, v, 0.0, DELTA) < 0.001]
    assert alarms == list(range(min(alarms), 61))
    assert sum(math.comb(60, v) for v in alarms) / 2**60 <= 0.001
    assert one_run(100, 60, min(alarms), DELTA).epsilon > 0
    assert one_run(100, 60, min(alarms) - 1, DELTA).epsilon == 0
    rng = np.random.default_rng(3)
    silent = [repeated(*_counts(rng, 0.3, 0.3), DELTA).epsilon for _ in range(200)]
    assert sum(e > 0 for e in silent) <= 3


def _counts(rng: np.random.Generator, p: float, q: float, n: int = 500) -> tuple[int, int, int, int]:
    return int(rng.binomial(n, p)), n, int(rng.binomial(n, q)), n


def test_randomised_response_is_bounded_from_below_and_not_overshot():
    """The tightest case of the theorem: epsilon 1, every guess right with e/(1+e)."""
    rng = np.random.default_rng(2)
    p = 1 / (1 + math.exp(-1.0))
    found = [one_run(400, 400, int(rng.binomial(400, p)), 0.0).epsilon for _ in range(4)]
    assert max(found) <= 1.0 and np.mean(found) > 0.5


def scores(canary: np.ndarray, noise: float, present: bool, seed: int, honest: int = 1) -> np.ndarray:
    """Inner products of RUNS noisy sums with the canary's direction; noise scales every share."""
    m = plan("skellam", 8, honest, honest, 1.0, 1.0)
    rng = SeededRng(seed)
    shares = m.table().draw(RUNS * m.size * honest, rng).reshape(RUNS, honest, m.size).sum(1)
    codes = np.array([m.quantise(canary, PUBLIC, rng) for _ in range(RUNS // 40)])
    sums = noise * shares + (np.repeat(codes, 40, axis=0) if present else 0)
    return sums @ codes.mean(0) / np.linalg.norm(codes.mean(0)) / math.sqrt(m.l2_squared)


CLAIM = epsilon([(plan("skellam", 8, 1, 1, 1.0, 1.0).release(), 1)], DELTA)  # noise of one sensitivity


def measured(canary: np.ndarray, noise: float = 1.0) -> float:
    """Bound by thresholds that the first half fixes and the second half counts."""
    inside, outside = scores(canary, noise, True, 11), scores(canary, noise, False, 12)
    half = RUNS // 2
    choice = max(
        np.quantile(outside[:half], np.linspace(0.5, 0.999, 40)), key=lambda t: _half(inside, outside, t)
    )
    hits, alarms = int((inside[half:] > choice).sum()), int((outside[half:] > choice).sum())
    return repeated(hits, half, alarms, half, DELTA).epsilon


def _half(inside: np.ndarray, outside: np.ndarray, t: float) -> float:
    half = RUNS // 2
    return repeated(
        int((inside[:half] > t).sum()), half, int((outside[:half] > t).sum()), half, DELTA
    ).epsilon


CANARY = np.array([1.0, 0, 0, 0, 0, 0, 0, 0])


def test_the_right_mechanism_stays_below_its_claim():
    assert 0.5 < measured(CANARY) <= CLAIM


@pytest.mark.parametrize("noise", [0.25, 0.0], ids=["a quarter of the noise", "no noise"])
def test_planted_bugs_exceed_the_claim(noise: float) -> None:
    """The smallest bug caught at this size; with half the noise the bound (2.6) stays below the claim."""
    assert measured(CANARY, noise) > CLAIM
