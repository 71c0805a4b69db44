"""Training randomness: a function of seed and labels, and of nothing else."""

import numpy as np

from merveil.fl import coins


def test_equal_labels_give_equal_coins():
    assert np.array_equal(coins.rounding(1, 5, 3, "a"), coins.rounding(1, 5, 3, "a"))


def test_seed_labels_types_and_boundaries_matter():
    keys = [
        coins.digest(1, 2, "a"),
        coins.digest(2, 2, "a"),
        coins.digest(1, 3, "a"),
        coins.digest(1, "2", "a"),
        coins.digest(1, 2, "b"),
        coins.digest(1, "2a"),
        coins.digest(1, "a", 2),
        coins.digest(12, "a"),
    ]
    assert len(set(keys)) == len(keys)


def test_coins_are_uniform_in_the_unit_interval():
    drawn = coins.rounding(7, 100_000, 0, "client")
    assert drawn.min() >= 0 and drawn.max() < 1
    assert abs(drawn.mean() - 0.5) < 0.005 and abs(drawn.var() - 1 / 12) < 0.002


def test_derived_seeds_fit_other_generators():
    assert all(0 <= coins.derive(seed, "init") < 2**63 for seed in range(50))
