"""Intervals keep their level on nulls, and match published tables."""

import numpy as np
import pytest

from merveil.attacks import stats


def test_clopper_pearson_known_values() -> None:
    # Exact bounds: 1 - .05^(1/n) style closed forms at the edges.
    assert stats.clopper_pearson(0, 299)[1] == pytest.approx(1 - 0.025 ** (1 / 299))
    assert stats.clopper_pearson(20, 20) == (pytest.approx(0.025 ** (1 / 20)), 1.0)
    low, high = stats.clopper_pearson(8, 10)
    assert (round(low, 4), round(high, 4)) == (0.4439, 0.9748)
    with pytest.raises(ValueError, match="3 successes in 2 trials"):
        stats.clopper_pearson(3, 2)


def test_bootstrap_mean_covers_a_skewed_truth() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(300):
        low, high = stats.bootstrap_mean(rng.exponential(1.0, size=20), rng, resamples=600)
        hits += low <= 1.0 <= high
    assert 0.91 <= hits / 300 <= 0.99  # nominal .95; a plain percentile bootstrap falls to about .90


def test_auc_against_pairs_and_interval_on_nulls() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 5, 30).astype(float), rng.integers(0, 5, 40).astype(float)
    pairs = np.mean([(x > y) + 0.5 * (x == y) for x in a for y in b])
    assert stats.auc(a, b) == pytest.approx(pairs)
    covered = 0
    for _ in range(60):
        groups = [[rng.normal(size=3) + rng.normal() for _ in range(20)] for _ in range(2)]
        low, high = stats.auc_interval(groups[0], groups[1], rng, resamples=300)
        covered += low <= 0.5 <= high
    assert covered >= 52


@pytest.mark.parametrize(
    ("n", "power", "published"), [(35, 0.95, 0.715), (35, 0.8, 0.669), (100, 0.8, 0.601)]
)
def test_auc_detectable_matches_the_power_table(n: int, power: float, published: float) -> None:
    assert stats.auc_detectable(n, n, power) == pytest.approx(published, abs=0.002)


def test_proportion_detectable_matches_the_coin_game() -> None:
    assert stats.proportion_detectable(60, 0.5) == pytest.approx(0.707, abs=0.002)
    assert stats.proportion_detectable(200, 0.5) == pytest.approx(0.619, abs=0.002)
