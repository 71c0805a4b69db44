"""Empirical lower bounds on epsilon that rest on binomial counts alone.

Guarantee: with probability at least `confidence` the bound lies at or below the true epsilon, at the delta
given, if guesses are made as stated. Calibrated on nulls by tests/attacks/test_estimators.py.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from merveil.attacks.stats import clopper_pearson
from merveil.mer.extras import need


@dataclass(frozen=True)
class Bound:
    """epsilon: lower bound. ceiling: the bound that a perfect attack would reach at this size."""

    epsilon: float
    ceiling: float
    confidence: float
    n: int


def repeated(
    hits: int, positives: int, alarms: int, negatives: int, delta: float, confidence: float = 0.999
) -> Bound:
    """Lower bound from independent repetitions with and without the canary.

    hits of `positives` runs with it, and alarms of `negatives` without, said "in"; the rule was fixed before.
    Both directions; Clopper-Pearson limits share the error. Source: Nasr et al. 2021 (arXiv 2101.04535).
    """
    found = _directed(hits, positives, alarms, negatives, delta, confidence)
    back = _directed(
        negatives - alarms, negatives, positives - hits, positives, delta, confidence
    )  # "out" is said: the other direction of the hockey stick
    best = _directed(positives, positives, 0, negatives, delta, confidence)
    return Bound(max(0.0, found, back), best, confidence, positives + negatives)


def _directed(
    hits: int, positives: int, alarms: int, negatives: int, delta: float, confidence: float
) -> float:
    # Each limit errs with probability (1 - confidence) / 4: two limits, two directions.
    level = 1 - (1 - confidence) / 2
    low = clopper_pearson(hits, positives, level)[0]
    high = clopper_pearson(alarms, negatives, level)[1]
    return math.log((low - delta) / high) if low > delta and high > 0 else -math.inf


def one_run_p(canaries: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """Largest chance of `correct` or more right guesses under (epsilon, delta).

    canaries: m, each in by a fair coin of its own. Source: Steinke, Nasr, Jagielski 2023 (arXiv 2305.08846),
    theorem 5.2, as in jax_privacy's auditing.
    """
    binomial = need("scipy.stats", "audits").binom
    q = 1 / (1 + math.exp(-epsilon))
    beta = float(binomial.sf(correct - 1, guesses, q))
    i = np.arange(1, correct + 1)
    alpha = float((np.cumsum(binomial.pmf(correct - i, guesses, q)) / i).max(initial=0.0))
    return min(1.0, beta + 2 * canaries * delta * alpha)


def one_run(canaries: int, guesses: int, correct: int, delta: float, confidence: float = 0.999) -> Bound:
    """Largest epsilon that the guesses of a single run reject at 1 - confidence."""
    found = _rejected(canaries, guesses, correct, delta, confidence)
    ceiling = _rejected(canaries, canaries, canaries, delta, confidence)
    return Bound(found, ceiling, confidence, canaries)


def guessed(scores: NDArray[np.float64], inside: NDArray[np.bool_], guesses: int) -> int:
    """Right guesses where the highest half of `guesses` scores are called in, and the lowest half out.

    guesses, even, is fixed before the run: the best of several numbers of guesses is not a valid bound.
    """
    order = np.argsort(scores, kind="stable")
    half = guesses // 2
    return int(inside[order[len(order) - half :]].sum() + (~inside[order[:half]]).sum())


def _rejected(canaries: int, guesses: int, correct: int, delta: float, confidence: float) -> float:
    low, high = 0.0, 20.0
    if one_run_p(canaries, guesses, correct, 0.0, delta) >= 1 - confidence:
        return 0.0
    for _ in range(40):
        middle = (low + high) / 2
        rejected = one_run_p(canaries, guesses, correct, middle, delta) < 1 - confidence
        low, high = (middle, high) if rejected else (low, middle)
    return low
