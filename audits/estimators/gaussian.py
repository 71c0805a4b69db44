"""Bounds that take a Gaussian trade-off for granted: tighter than counts alone, and only as good as that.

Guarantee: with probability at least `confidence` the bound on mu lies at or below the true one, if the two
distributions are told apart no better than two unit Gaussians mu apart allow at any threshold. mu is clamped
at 0: without that, scores without any signal give a large epsilon (google-deepmind/jax_privacy#270).
"""

import math
from dataclasses import dataclass

from merveil.attacks.stats import clopper_pearson
from merveil.mer.extras import need


@dataclass(frozen=True)
class MuBound:
    """mu: lower bound. epsilon: what mu means at the delta asked for."""

    mu: float
    epsilon: float
    confidence: float
    n: int


def mu_bound(
    hits: int, positives: int, alarms: int, negatives: int, delta: float, confidence: float = 0.999
) -> MuBound:
    """Lower bound on mu from one threshold that was fixed before. Source: Nasr et al. 2023, section 5."""
    norm = need("scipy.stats", "audits").norm
    low = clopper_pearson(hits, positives, confidence)[0]
    high = clopper_pearson(alarms, negatives, confidence)[1]
    mu = max(0.0, float(norm.isf(high) - norm.isf(low))) if low > 0 and high < 1 else 0.0
    return MuBound(mu, epsilon_of_mu(mu, delta), confidence, positives + negatives)


def delta_of_mu(mu: float, epsilon: float) -> float:
    """Least delta of a mu-Gaussian mechanism at epsilon. Source: Balle and Wang 2018, theorem 8."""
    norm = need("scipy.stats", "audits").norm
    if mu == 0:
        return 0.0
    first, second = norm.cdf(mu / 2 - epsilon / mu), norm.logcdf(-mu / 2 - epsilon / mu)
    return float(first - math.exp(min(700.0, epsilon + second)))


def epsilon_of_mu(mu: float, delta: float) -> float:
    """Least epsilon of a mu-Gaussian mechanism at delta."""
    low, high = 0.0, 1.0
    if delta_of_mu(mu, 0.0) <= delta:
        return 0.0
    while delta_of_mu(mu, high) > delta:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if delta_of_mu(mu, middle) > delta else (low, middle)
    return high
