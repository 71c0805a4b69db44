"""Integer noise for the grid: Skellam and discrete Gaussian, by a table that knows how wrong it is.

Guarantee: a sample lies in [-bound, bound] and has exactly the probabilities of the table, multiples of
2^-128, given uniform bytes. `Table.omega` bounds the total variation distance between the table and the ideal
distribution, truncation included; it is computed by interval arithmetic on integers, never by floats. Whoever
uses the table charges it (accountant: delta' = delta + (1 + e^epsilon) * omega over the run).
Assumes: the Rng. Neither constant time nor a hidden access pattern is claimed.

Skellam of variance v is Poisson(v/2) - Poisson(v/2), P(k) = exp(-v) I_|k|(v); ratios of the Bessel functions
follow the continued fraction r_k = 1 / (2k/v + r_{k+1}) (Gautschi 1967), which turns any bracket of r_{k+1}
into a narrower one of r_k.
"""

import itertools
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from merveil.protocols.errors import LocalError
from merveil.protocols.rng import Rng

KINDS = ("skellam", "gaussian")
WORD = 64
_TABLE_BITS = 128  # of a probability
_P = 256  # fixed-point bits of the interval arithmetic
_ONE = 1 << _P
_CHUNK = 1 << 15
_MAX_BOUND = 1 << 22

Interval = tuple[int, int]  # lower and upper end, times 2^-_P


@dataclass(frozen=True)
class Table:
    """A truncated distribution, ready for sampling.

    kind, variance (grid steps squared), bound: what it approximates, on [-bound, bound]. omega: upper bound
    of its total variation distance from the ideal distribution, for one sample.
    """

    kind: str
    variance: Fraction
    bound: int
    omega: Fraction
    high: NDArray[np.uint64] = field(repr=False)  # inner cumulative thresholds, upper words, ascending
    low: NDArray[np.uint64] = field(repr=False)  # their lower words

    def draw(self, count: int, rng: Rng, label: str = "dp/noise") -> NDArray[np.int64]:
        """`count` independent samples, int64."""
        out = np.empty(count, dtype=np.int64)
        for at in range(0, count, _CHUNK):
            size = min(_CHUNK, count - at)
            words = np.frombuffer(rng.draw(8 * size, label), dtype="<u8").astype(np.uint64)
            position = np.searchsorted(self.high, words, side="right")
            # A tie of upper words (chance about 2^-50) needs the lower word: only then is one drawn.
            tied = np.flatnonzero(self.high[np.maximum(position, 1) - 1] == words)
            for i in tied[position[tied] > 0]:
                position[i] = self._resolve(words[i], rng, label)
            np.subtract(position, self.bound, out=out[at : at + size])
        return out

    def _resolve(self, word: np.uint64, rng: Rng, label: str) -> int:
        first = int(np.searchsorted(self.high, word, side="left"))
        last = int(np.searchsorted(self.high, word, side="right"))
        lower = np.uint64(int.from_bytes(rng.draw(8, label + "/tie"), "little"))
        return first + int(np.searchsorted(self.low[first:last], lower, side="right"))

    def probabilities(self) -> list[Fraction]:
        """The table's own exact probabilities of -bound..bound."""
        inner = [(int(h) << WORD) | int(w) for h, w in zip(self.high, self.low)]
        unmet = 2 * self.bound - len(inner)
        edges = [0, *inner, *[1 << _TABLE_BITS] * (unmet + 1)]
        return [Fraction(b - a, 1 << _TABLE_BITS) for a, b in itertools.pairwise(edges)]


@lru_cache(maxsize=8)
def table(kind: str, variance: Fraction, bound: int) -> Table:
    """The table of one distribution, kept. LocalError: unknown kind, variance or bound out of range."""
    if kind not in KINDS:
        raise LocalError(f"noise {kind!r} is not known: use one of {', '.join(KINDS)}")
    if variance < Fraction(1, 4):
        raise LocalError(f"a grid noise of variance {variance} is too fine to account for: at least 1/4")
    if not 1 <= bound <= _MAX_BOUND:
        raise LocalError(f"noise is cut at 1..{_MAX_BOUND} steps, not at {bound}")
    weights, total = _weights(kind, variance, bound)
    full = 1 << _TABLE_BITS
    # Rounded down for every k but 0, which takes the rest: then the distance is the surplus at 0.
    side = [(low << _TABLE_BITS) // total[1] for low, _ in weights[1:]]
    centre = full - 2 * sum(side)
    omega = Fraction(centre, full) - Fraction(weights[0][0], total[1])
    edges, at = [], 0
    for mass in [*reversed(side), centre, *side[:-1]]:
        at += mass
        edges.append(at)
    edges = [e for e in edges if e < full]  # a mass below 2^-128 is none, and its threshold is never met
    mask = (1 << WORD) - 1
    high = np.array([e >> WORD for e in edges], dtype=np.uint64)
    low = np.array([e & mask for e in edges], dtype=np.uint64)
    return Table(kind, variance, bound, omega, high, low)


def _weights(kind: str, variance: Fraction, bound: int) -> tuple[list[Interval], Interval]:
    """Brackets of P(k)/P(0) for k = 0..bound, and of their sum over all integers."""
    top = isqrt(int(bound * bound + 60 * variance)) + 40  # the tail beyond is exp(-30) of that at `bound`
    ratios = _bessel_ratios(variance, top) if kind == "skellam" else _gauss_ratios(variance, top)
    low, high = _ONE, _ONE
    kept: list[Interval] = [(low, high)]
    sum_low, sum_high = 0, 0
    for k in range(1, top + 1):
        low = low * ratios[k][0] >> _P
        high = -(-high * ratios[k][1] >> _P)
        sum_low += low
        sum_high += high
        if k <= bound:
            kept.append((low, high))
    # Ratios fall with k, so the rest is below a geometric series.
    last = min(ratios[top][1], _ONE - 1)
    tail = high * last // (_ONE - last) + 1
    return kept, (_ONE + 2 * sum_low, _ONE + 2 * (sum_high + tail))


def _bessel_ratios(variance: Fraction, top: int) -> list[Interval]:
    """Brackets of I_k(v) / I_{k-1}(v), k = 0..top (entry 0 unused)."""
    # All that is known of the first ratio is that it lies in (0, 1). The bracket narrows by
    # exp(-(start^2 - top^2) / v), below 2^-_P, until `top` is reached.
    start = isqrt(int(top * top + 190 * variance)) + 40
    low, high = 0, _ONE
    found: list[Interval] = [(0, _ONE)] * (top + 1)
    square = _ONE << _P
    numerator, step = variance.numerator, 2 * variance.denominator << _P
    for k in range(start, 0, -1):
        quotient, rest = divmod(k * step, numerator)
        low, high = square // (quotient + (rest > 0) + high), min(_ONE, -(-square // (quotient + low)))
        if k <= top:
            found[k] = (low, high)
    return found


def _gauss_ratios(variance: Fraction, top: int) -> list[Interval]:
    """Brackets of exp(-(2k-1) / (2v)), k = 0..top (entry 0 unused)."""
    low, high = _exp_bracket(1 / (2 * variance))
    down, up = _exp_bracket(1 / variance)
    found: list[Interval] = [(0, _ONE), (low, high)]
    for _ in range(2, top + 1):
        low, high = low * down >> _P, -(-high * up >> _P)
        found.append((low, high))
    return found


def _exp_bracket(x: Fraction) -> Interval:
    """exp(-x), 0 < x <= 4, between two neighbours of an alternating series in exact fractions."""
    small = x / 8
    total, term, n = Fraction(1), Fraction(1), 0
    while term > Fraction(1, _ONE << 16):
        n += 1
        term = term * small / n
        total += -term if n % 2 else term
    # The last term added bounds the rest; one more of either sign brackets the value.
    low, high = ((total - term) * _ONE).__floor__(), ((total + term) * _ONE).__ceil__()
    for _ in range(3):
        low, high = low * low >> _P, -(-high * high >> _P)
    return low, high
