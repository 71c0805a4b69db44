"""Intervals: exact binomial, bootstrap over clusters, AUC; and what a sample of n can show at all.

Guarantees: every function is deterministic in its generator and states its confidence. Assumes: units are
independent, or are grouped into independent clusters by the caller.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from merveil.mer.extras import need

Floats = NDArray[np.float64]
CONFIDENCE = (0.95, 0.998)  # the reported interval, and the one that may call a claim broken


def clopper_pearson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Exact two-sided interval of a proportion. ValueError unless 0 <= successes <= trials, trials > 0.

    Source: Clopper and Pearson 1934, by quantiles of the beta distribution.
    """
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"{successes} successes in {trials} trials is no proportion")
    beta = need("scipy.stats", "attacks").beta
    tail = (1.0 - confidence) / 2.0
    low = 0.0 if successes == 0 else float(beta.ppf(tail, successes, trials - successes + 1))
    high = 1.0 if successes == trials else float(beta.ppf(1 - tail, successes + 1, trials - successes))
    return low, high


def bootstrap_mean(
    values: Floats, rng: np.random.Generator, confidence: float = 0.95, resamples: int = 4000
) -> tuple[float, float]:
    """Interval of the mean of independent values [n]: bootstrap-t, which keeps its level at small n.

    A sample without spread gives (mean, mean). Source: Efron and Tibshirani 1993, chapter 12.5.
    """
    n, mean = len(values), float(np.mean(values))
    spread = float(np.std(values, ddof=1)) / np.sqrt(n) if n > 1 else 0.0
    if spread == 0.0:
        return mean, mean
    draws = values[rng.integers(0, n, size=(resamples, n))]
    error = np.std(draws, axis=1, ddof=1) / np.sqrt(n)
    usable = error > 1e-12 * spread
    t = (draws.mean(axis=1)[usable] - mean) / error[usable]
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(t, [tail, 1 - tail])
    return float(mean - high * spread), float(mean - low * spread)


def bounded_mean(values: Floats, rng: np.random.Generator, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of the mean of independent values [n] in [0, 1].

    Bootstrap-t inside [0, 1]; where all values sit on an edge it is the exact binomial bound, since the mean
    is at least the share of values that reach the edge: ten perfect rounds do not prove perfection.
    """
    low, high = bootstrap_mean(values, rng, confidence)
    n = len(values)
    if (values == 1.0).all() or (values == 0.0).all():
        return clopper_pearson(n if values[0] == 1.0 else 0, n, confidence)
    return max(0.0, low), min(1.0, high)


def auc(members: Floats, others: Floats) -> float:
    """Chance that a member scores above a non-member; ties count one half. Mann-Whitney 1947."""
    order = np.concatenate([members, others])
    ranks = need("scipy.stats", "attacks").rankdata(order)
    m = len(members)
    return float((ranks[:m].sum() - m * (m + 1) / 2) / (m * len(others)))


def auc_interval(
    members: list[Floats],
    others: list[Floats],
    rng: np.random.Generator,
    confidence: float = 0.95,
    resamples: int = 1000,
) -> tuple[float, float]:
    """Percentile interval of the AUC, resampling whole clusters (one array a person) on both sides."""
    stats = np.empty(resamples)
    for i in range(resamples):
        a = [members[j] for j in rng.integers(0, len(members), len(members))]
        b = [others[j] for j in rng.integers(0, len(others), len(others))]
        stats[i] = auc(np.concatenate(a), np.concatenate(b))
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(stats, [tail, 1 - tail])
    return float(low), float(high)


def auc_detectable(n_members: int, n_others: int, power: float = 0.95, alpha: float = 0.05) -> float:
    """Smallest AUC that n independent units a side can tell from 0.5, one-sided, with the stated power.

    Source: variance of Hanley and McNeil 1982 (35 a side: .715).
    """
    norm = need("scipy.stats", "attacks").norm
    za, zb = float(norm.ppf(1 - alpha)), float(norm.ppf(power))

    def deviation(a: float) -> float:
        q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
        spread = a * (1 - a) + (n_members - 1) * (q1 - a * a) + (n_others - 1) * (q2 - a * a)
        return float(np.sqrt(spread / (n_members * n_others)))

    grid = np.linspace(0.5, 1.0, 5001)
    reach = [a - zb * deviation(float(a)) - 0.5 - za * deviation(0.5) for a in grid]
    good = [float(a) for a, r in zip(grid, reach) if r >= 0]
    return good[0] if good else 1.0


def proportion_detectable(n: int, chance: float, power: float = 0.95, alpha: float = 0.05) -> float:
    """Smallest success rate that n trials tell from `chance` by the exact one-sided test; 1.0 if none."""
    binom = need("scipy.stats", "attacks").binom
    critical = int(binom.isf(alpha, n, chance)) + 1  # least count with tail probability <= alpha
    grid = np.linspace(chance, 1.0, 2001)
    good = np.flatnonzero(binom.sf(critical - 1, n, grid) >= power)
    return float(grid[good[0]]) if len(good) else 1.0


STRICT_ALPHA = (1 - CONFIDENCE[1]) / 2  # one-sided false alarm of the strict interval, 1e-3


def mean_detectable(values: Floats, chance: float) -> float:
    """Smallest mean that values of this spread and number tell from `chance`: alpha 1e-3, power .95.

    Normal approximation; a sample without spread (all on an edge) counts as spread 1/(2 sqrt n).
    """
    n = len(values)
    spread = float(np.std(values, ddof=1)) if n > 1 else 0.0
    error = (spread or 0.5 / np.sqrt(n)) / np.sqrt(n)
    return float(chance + (3.0902 + 1.6449) * error)  # normal quantiles of 1 - 1e-3 and .95


def both_intervals(function: Any, *args: Any) -> tuple[tuple[float, float], tuple[float, float]]:
    """`function(*args, confidence)` at the two confidences of a Finding."""
    return function(*args, CONFIDENCE[0]), function(*args, CONFIDENCE[1])
