"""The discrete Gaussian, sampled with integers only: the oracle that the fast tables are held against.

Guarantee: every sample has exactly the distribution P(x) proportional to exp(-x^2 / (2 variance)) over all
integers, given uniform bytes; no float takes part. Slow: tens of thousands of samples a second.
Source: Canonne, Kamath and Steinke 2020 (arXiv 2004.00010), algorithms 1-3.
"""

from fractions import Fraction
from math import isqrt

from merveil.protocols.errors import LocalError
from merveil.protocols.rng import Rng

_LABEL = "dp/exact"
_BLOCK = 4096


class IntegerCoins:
    """Uniform integers out of an Rng, by rejection."""

    def __init__(self, rng: Rng) -> None:
        self._rng = rng
        self._left = b""

    def below(self, bound: int) -> int:
        """Uniform in [0, bound)."""
        bits = (bound - 1).bit_length()
        size = (bits + 7) // 8
        while True:
            value = int.from_bytes(self._take(size), "big") >> (8 * size - bits)
            if value < bound:
                return value

    def _take(self, size: int) -> bytes:
        if len(self._left) < size:
            self._left += self._rng.draw(max(size, _BLOCK), _LABEL)
        head, self._left = self._left[:size], self._left[size:]
        return head

    def bernoulli(self, p: Fraction) -> bool:
        """True with probability p in [0, 1]."""
        return self.below(p.denominator) < p.numerator

    def bernoulli_exp(self, x: Fraction) -> bool:
        """True with probability exp(-x), x >= 0."""
        while x > 1:
            if not self._bernoulli_exp_small(Fraction(1)):
                return False
            x -= 1
        return self._bernoulli_exp_small(x)

    def _bernoulli_exp_small(self, x: Fraction) -> bool:
        k = 1
        while self.bernoulli(x / k):
            k += 1
        return k % 2 == 1

    def laplace(self, scale: int) -> int:
        """Discrete Laplace: P(y) proportional to exp(-|y| / scale)."""
        while True:
            u = self.below(scale)
            if not self._bernoulli_exp_small(Fraction(u, scale)):
                continue
            v = 0
            while self._bernoulli_exp_small(Fraction(1)):
                v += 1
            magnitude = u + scale * v
            negative = self.below(2) == 1
            if not (negative and magnitude == 0):
                return -magnitude if negative else magnitude


def discrete_gaussian(variance: Fraction, count: int, rng: Rng) -> list[int]:
    """`count` exact samples. variance: rational and positive, grid steps squared."""
    if variance <= 0:
        raise LocalError(f"a variance is positive, not {variance}")
    coins = IntegerCoins(rng)
    scale = isqrt(variance.numerator // variance.denominator) + 1
    found: list[int] = []
    while len(found) < count:
        y = coins.laplace(scale)
        excess = abs(y) - variance / scale
        if coins.bernoulli_exp(excess * excess / (2 * variance)):
            found.append(y)
    return found
