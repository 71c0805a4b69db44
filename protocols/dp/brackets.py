"""Brackets, in integers, of the unnormalised weights of three noise distributions.

Guarantee: every number is a pair (lower, upper) times 2^-p that encloses the true value; no float takes part.
Skellam of variance v is Poisson(v/2) - Poisson(v/2), P(k) = exp(-v) I_|k|(v); ratios of the Bessel functions
follow the continued fraction r_k = 1 / (2k/v + r_{k+1}) (Gautschi 1967), which turns any bracket of r_{k+1}
into a narrower one of r_k. Gaussian: exp(-k^2 / 2v). Rounded: the mass that a continuous Gaussian of variance
v has between k - 1/2 and k + 1/2.
"""

from fractions import Fraction
from math import factorial, isqrt

Interval = tuple[int, int]  # lower and upper end, times 2^-p


def weights(kind: str, variance: Fraction, bound: int, p: int) -> tuple[list[Interval], Interval]:
    """Brackets of the weights of k = 0..bound, and of their sum over all integers."""
    one = 1 << p
    top = isqrt(int(bound * bound + 60 * variance)) + 40  # the tail beyond is exp(-30) of that at `bound`
    ratios = _bessel_ratios(variance, top, p) if kind == "skellam" else _gauss_ratios(variance, top, p)
    cell = _Cell(variance, top, p) if kind == "rounded" else None
    low, high = one, one
    kept: list[Interval] = [(one, one) if cell is None else cell.at(0)]
    sum_low, sum_high, last = 0, 0, kept[0]
    for k in range(1, top + 1):
        low = low * ratios[k][0] >> p
        high = -(-high * ratios[k][1] >> p)
        if cell is None:
            last = (low, high)
        else:
            inner = cell.at(k)
            last = (low * inner[0] >> p, -(-high * inner[1] >> p))
        sum_low += last[0]
        sum_high += last[1]
        if k <= bound:
            kept.append(last)
    # Ratios fall with k, so the rest is below a geometric series. A rounded weight falls by exp(-k / v) or
    # faster after k, which is below the density's ratio at k.
    ratio = min(ratios[top][1], one - 1)
    tail = last[1] * ratio // (one - ratio) + 1
    return kept, (kept[0][0] + 2 * sum_low, kept[0][1] + 2 * (sum_high + tail))


class _Cell:
    """Integral of exp(-k t / v) exp(-t^2 / 2v) over t in [-1/2, 1/2]: all terms of its series are positive.

    With u = (k / 2v)^2 it is the sum over j of u^j c_j / (2j+1)!, c_j in (0, 1].
    """

    def __init__(self, variance: Fraction, top: int, p: int) -> None:
        self._p, self._variance = p, variance
        largest = Fraction(top * top) / (4 * variance * variance)
        terms = 1
        while largest**terms * 2 > Fraction(factorial(2 * terms + 1), 1 << p):
            terms += 1
        self._c = [self._coefficient(j) for j in range(terms + 1)]

    def _coefficient(self, j: int) -> Interval:
        """c_j / (2j+1)!, from its alternating series in 1 / 8v."""
        x, n = 1 / (8 * self._variance), 2 * j + 1
        total, power, i = Fraction(0), Fraction(1), 0
        while power > Fraction(1, 1 << (self._p + 16)):
            total += Fraction(n, n + 2 * i) * (power if i % 2 == 0 else -power)
            i += 1
            power = power * x / i
        one = 1 << self._p
        scale = factorial(n)
        return ((total - power) * one / scale).__floor__(), ((total + power) * one / scale).__ceil__()

    def at(self, k: int) -> Interval:
        """The bracket for one k; what is left out of the series is below 2^-p."""
        p, v = self._p, self._variance
        top, under = k * k * v.denominator**2 << p, 4 * v.numerator**2
        u_low, u_high = top // under, -(-top // under)
        low, high = self._c[-1]
        for a, b in reversed(self._c[:-1]):
            low, high = a + (low * u_low >> p), b - (-high * u_high >> p)
        return low, high + 2


def _bessel_ratios(variance: Fraction, top: int, p: int) -> list[Interval]:
    """Brackets of I_k(v) / I_{k-1}(v), k = 0..top (entry 0 unused)."""
    # All that is known of the first ratio is that it lies in (0, 1). The bracket narrows by
    # exp(-(start^2 - top^2) / v), below 2^-p, until `top` is reached.
    one = 1 << p
    start = isqrt(int(top * top + Fraction(3 * p, 4) * variance)) + 40
    low, high = 0, one
    found: list[Interval] = [(0, one)] * (top + 1)
    square = one << p
    numerator, step = variance.numerator, 2 * variance.denominator << p
    for k in range(start, 0, -1):
        quotient, rest = divmod(k * step, numerator)
        low, high = square // (quotient + (rest > 0) + high), min(one, -(-square // (quotient + low)))
        if k <= top:
            found[k] = (low, high)
    return found


def _gauss_ratios(variance: Fraction, top: int, p: int) -> list[Interval]:
    """Brackets of exp(-(2k-1) / (2v)), k = 0..top (entry 0 unused)."""
    low, high = _exp_bracket(1 / (2 * variance), p)
    down, up = _exp_bracket(1 / variance, p)
    found: list[Interval] = [(0, 1 << p), (low, high)]
    for _ in range(2, top + 1):
        low, high = low * down >> p, -(-high * up >> p)
        found.append((low, high))
    return found


def _exp_bracket(x: Fraction, p: int) -> Interval:
    """exp(-x), 0 < x <= 4, between two neighbours of an alternating series in exact fractions."""
    one = 1 << p
    small = x / 8
    total, term, n = Fraction(1), Fraction(1), 0
    while term > Fraction(1, one << 16):
        n += 1
        term = term * small / n
        total += -term if n % 2 else term
    # The last term added bounds the rest; one more of either sign brackets the value.
    low, high = ((total - term) * one).__floor__(), ((total + term) * one).__ceil__()
    for _ in range(3):
        low, high = low * low >> p, -(-high * high >> p)
    return low, high
