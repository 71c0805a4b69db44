"""One-shot client-level auditing: canary clients send random directions, the release is compared with them.

`bound` is a lower bound on epsilon: the null (a direction that was not sent is independent of the release) is
known exactly, so only the share of sent ones above a threshold is estimated. It counts the canaries of one
run as independent, which they are up to their share in the release's length; calibrated in the tests.
`estimate` is the published figure: no bound.
Source: Andrew, Kairouz, Oh, Oprea, McMahan, Suriyakumar 2024 (arXiv 2302.03098).
"""

import math

import numpy as np
from numpy.typing import NDArray

from merveil.attacks.stats import clopper_pearson
from merveil.audits.estimators.binomial import Bound
from merveil.mer.extras import need

Floats = NDArray[np.float64]
LEVELS = tuple(2.0**-k for k in range(1, 15))  # false-alarm rates that are tried, fixed; Bonferroni


def directions(count: int, dim: int, rng: np.random.Generator) -> Floats:
    """Uniform unit vectors [count, dim]: what canary clients send, times the clip."""
    drawn = rng.normal(size=(count, dim))
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True))


def cosines(canaries: Floats, release: Floats) -> Floats:
    """Cosine of each canary with the release: [count]."""
    return np.asarray(canaries @ release / max(float(np.linalg.norm(release)), 1e-300))


def threshold(rate: float, dim: int) -> float:
    """The cosine that a direction independent of the release exceeds with chance `rate` <= 1/2."""
    beta = need("scipy.stats", "audits").beta
    return math.sqrt(float(beta.isf(2 * rate, 0.5, (dim - 1) / 2)))


def bound(found: Floats, dim: int, delta: float, confidence: float = 0.999) -> Bound:
    """Largest epsilon over LEVELS that the cosines of sent canaries rule out. Both signs are not tried."""
    k, level = len(found), 1 - 2 * (1 - confidence) / len(LEVELS)  # one-sided, and Bonferroni

    def shown(hits: int, rate: float) -> float:
        low = clopper_pearson(hits, k, level)[0]
        return math.log((low - delta) / rate) if low > delta else 0.0

    best = max(shown(int((found > threshold(rate, dim)).sum()), rate) for rate in LEVELS)
    return Bound(max(0.0, best), max(shown(k, rate) for rate in LEVELS), confidence, k)


def estimate(found: Floats, dim: int, delta: float) -> float:
    """Epsilon between N(0, 1/dim) and the Gaussian fitted to the cosines, the larger direction: no bound."""
    norm = need("scipy.stats", "audits").norm
    mean, spread, null = float(np.mean(found)), float(np.std(found, ddof=1)), 1 / math.sqrt(dim)
    x = np.linspace(min(0, mean) - 12 * max(spread, null), max(0, mean) + 12 * max(spread, null), 200_001)
    p, q = norm.logpdf(x, mean, spread), norm.logpdf(x, 0, null)
    step = float(x[1] - x[0])

    def excess(a: Floats, b: Floats, epsilon: float) -> float:
        return float(np.maximum(np.exp(a) - np.exp(np.minimum(epsilon + b, 700)), 0).sum() * step)

    def directed(a: Floats, b: Floats) -> float:
        low, high = 0.0, 50.0
        if excess(a, b, 0.0) <= delta:
            return 0.0
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if excess(a, b, middle) > delta else (low, middle)
        return high

    return max(directed(p, q), directed(q, p))
