"""The best of many tests, honestly: half of the runs choose statistic and threshold, the other half count.

Guarantee: the bound has the level of `binomial.repeated`, whatever was tried on the first half. Choosing and
counting on the same runs does not: on coins it reports epsilon > 0 in a quarter of the runs.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from merveil.attacks.noise import choose
from merveil.audits.estimators.binomial import Bound, repeated

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Told:
    """What a test showed. bound: lower bound on epsilon. counts: hits, positives, alarms, negatives of the
    counting half. statistic: its column, and threshold, as the choosing half fixed them.
    """

    bound: Bound
    counts: tuple[int, int, int, int]
    statistic: int
    threshold: float


def distinguish(inside: Floats, outside: Floats, delta: float, confidence: float = 0.999) -> Told:
    """Tell runs with the canary [R, S] from runs without [R', S], S statistics each; both directions."""
    half, other = len(inside) // 2, len(outside) // 2
    s, cut = choose(inside[:half], outside[:other], delta, confidence)
    counts = (
        int((inside[half:, s] > cut).sum()),
        len(inside) - half,
        int((outside[other:, s] > cut).sum()),
        len(outside) - other,
    )
    return Told(repeated(*counts, delta, confidence), counts, s, cut)
