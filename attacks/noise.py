"""Telling two noisy worlds apart: the threshold that shows most, and what its counts prove about epsilon.

Guarantees: `choose` looks at runs that are not counted afterwards; `bounds` has the exact binomial's level in
both directions of the hockey stick. Source: Nasr et al. 2021 (arXiv 2101.04535), Clopper and Pearson 1934.
"""

import numpy as np
from numpy.typing import NDArray

from merveil.mer.extras import need

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
_CANDIDATES = 48


def choose(inside: Floats, outside: Floats, delta: float, confidence: float = 0.999) -> tuple[int, float]:
    """(statistic, threshold) that show most on these runs: [R, S] with and [R', S] without the canary."""
    best = (-np.inf, 0, 0.0)
    for s in range(inside.shape[1]):
        a, b = np.sort(inside[:, s]), np.sort(outside[:, s])
        cuts = _cuts(a, b)
        hits, alarms = len(a) - np.searchsorted(a, cuts, "right"), len(b) - np.searchsorted(b, cuts, "right")
        values = bounds(hits, len(a), alarms, len(b), delta, confidence)
        at = int(np.argmax(values))
        best = max(best, (float(values[at]), s, float(cuts[at])))
    return best[1], best[2]


def _cuts(inside: Floats, outside: Floats) -> Floats:
    """Thresholds to try: at low false-alarm rates, at low miss rates, and beyond every run of a world."""
    rates = np.geomspace(0.5, 1 / len(outside), _CANDIDATES // 2)
    upper = np.quantile(outside, 1 - rates)
    lower = np.quantile(inside, np.geomspace(0.5, 1 / len(inside), _CANDIDATES // 2))
    return np.concatenate([upper, lower, [outside[-1], np.nextafter(inside[0], -np.inf)]])


def bounds(
    hits: Counts, positives: int, alarms: Counts, negatives: int, delta: float, confidence: float
) -> Floats:
    """Lower bounds on epsilon at many thresholds, each by itself: hits of positives, alarms of negatives."""
    beta = need("scipy.stats", "attacks").beta
    tail = (1 - confidence) / 4  # two limits, two directions

    def directed(up: Counts, n: int, down: Counts, m: int) -> Floats:
        low = np.where(up == 0, 0.0, beta.ppf(tail, np.maximum(up, 1), n - up + 1))
        high = np.where(down == m, 1.0, beta.ppf(1 - tail, down + 1, np.maximum(m - down, 1)))
        return np.asarray(np.log(np.maximum(low - delta, 1e-300) / high))

    forward = directed(hits, positives, alarms, negatives)
    return np.maximum(forward, directed(negatives - alarms, negatives, positives - hits, positives))


def variance_quantile(p: float, n: int) -> float:
    """Quantile of the mean square of n unit Gaussians: chi-square over its degrees of freedom."""
    return float(need("scipy.stats", "attacks").chi2.ppf(p, n)) / n


def lower_bound(
    guesses: NDArray[np.bool_], bits: NDArray[np.bool_], delta: float, confidence: float
) -> float:
    """What guesses of hidden bits prove about epsilon at delta; zero where they prove nothing."""
    hits, alarms = np.array([(guesses & bits).sum()]), np.array([(guesses & ~bits).sum()])
    found = bounds(hits, int(bits.sum()), alarms, int((~bits).sum()), delta, confidence)
    return float(max(0.0, found[0]))
