"""Integer noise for the grid: Skellam and discrete Gaussian, by a table that knows how wrong it is.

Guarantee: a sample lies in [-bound, bound] and has exactly the probabilities of the table, multiples of
2^-bits (128 by default), given uniform bytes. `Table.omega` bounds the total variation distance between the
table and the ideal distribution, truncation included; it is computed by interval arithmetic on integers, not
by floats. Whoever uses the table charges it (delta' = delta + (1 + e^epsilon) * omega over the run).
Assumes: the Rng. Neither constant time nor a hidden access pattern is claimed.

Kinds: `skellam`; `gaussian`, the discrete one; `rounded`, a continuous Gaussian rounded to the nearest
integer, so that adding it to an integer is adding the continuous one and rounding the sum.
"""

import itertools
from bisect import bisect_right
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from merveil.protocols.dp.brackets import weights
from merveil.protocols.errors import LocalError
from merveil.protocols.rng import Rng

KINDS = ("skellam", "gaussian")
ROUNDED = "rounded"
WORD = 64
BITS = 128  # of a probability; more where the cut tail must be below 2^-128
_GUARD = 128  # bits of the interval arithmetic beyond those of a probability
_MAX_BITS = 8192
_ROUNDED_LEAST = 16  # the series of a cell is short only where noise is wide
_CHUNK = 1 << 15
_MAX_BOUND = 1 << 22


@dataclass(frozen=True)
class Table:
    """A truncated distribution, ready for sampling.

    kind, variance (grid steps squared), bound: what it approximates, on [-bound, bound]. omega: upper bound
    of its total variation distance from the ideal distribution, for one sample. bits: of a probability.
    """

    kind: str
    variance: Fraction
    bound: int
    bits: int
    omega: Fraction
    high: NDArray[np.uint64] = field(repr=False)  # inner cumulative thresholds, upper words, ascending
    low: tuple[int, ...] = field(repr=False)  # their other bits

    def draw(self, count: int, rng: Rng, label: str = "dp/noise") -> NDArray[np.int64]:
        """`count` independent samples, int64."""
        out = np.empty(count, dtype=np.int64)
        for at in range(0, count, _CHUNK):
            size = min(_CHUNK, count - at)
            words = np.frombuffer(rng.draw(8 * size, label), dtype="<u8").astype(np.uint64)
            position = np.searchsorted(self.high, words, side="right")
            # A tie of upper words (chance about 2^-50) needs the other bits: only then are they drawn.
            tied = np.flatnonzero(self.high[np.maximum(position, 1) - 1] == words)
            for i in tied[position[tied] > 0]:
                position[i] = self._resolve(words[i], rng, label)
            np.subtract(position, self.bound, out=out[at : at + size])
        return out

    def _resolve(self, word: np.uint64, rng: Rng, label: str) -> int:
        first = int(np.searchsorted(self.high, word, side="left"))
        last = int(np.searchsorted(self.high, word, side="right"))
        lower = int.from_bytes(rng.draw((self.bits - WORD) // 8, label + "/tie"), "little")
        return bisect_right(self.low, lower, first, last)

    def probabilities(self) -> list[Fraction]:
        """The table's own exact probabilities of -bound..bound."""
        inner = [(int(h) << (self.bits - WORD)) | w for h, w in zip(self.high, self.low)]
        unmet = 2 * self.bound - len(inner)
        edges = [0, *inner, *[1 << self.bits] * (unmet + 1)]
        return [Fraction(b - a, 1 << self.bits) for a, b in itertools.pairwise(edges)]


@lru_cache(maxsize=8)
def table(kind: str, variance: Fraction, bound: int, bits: int = BITS) -> Table:
    """The table of one distribution, kept. LocalError: unknown kind, variance, bound or bits out of range.

    bits: a multiple of 8, 128 at least; more let omega fall below 2^-128 where the cut tail does.
    """
    _check(kind, variance, bound, bits)
    brackets, total = weights(kind, variance, bound, bits + _GUARD)
    full = 1 << bits
    # Rounded down for every k but 0, which takes the rest: then the distance is the surplus at 0.
    side = [(low << bits) // total[1] for low, _ in brackets[1:]]
    centre = full - 2 * sum(side)
    omega = Fraction(centre, full) - Fraction(brackets[0][0], total[1])
    edges, at = [], 0
    for mass in [*reversed(side), centre, *side[:-1]]:
        at += mass
        edges.append(at)
    edges = [e for e in edges if e < full]  # a mass below 2^-bits is none, and its threshold is never met
    high = np.array([e >> (bits - WORD) for e in edges], dtype=np.uint64)
    low = tuple(e & ((1 << (bits - WORD)) - 1) for e in edges)
    return Table(kind, variance, bound, bits, omega, high, low)


def _check(kind: str, variance: Fraction, bound: int, bits: int) -> None:
    if kind not in (*KINDS, ROUNDED):
        raise LocalError(f"noise {kind!r} is not known: use one of {', '.join(KINDS)}")
    if variance < Fraction(1, 4):
        raise LocalError(f"a grid noise of variance {variance} is too fine to account for: at least 1/4")
    if kind == ROUNDED and variance < _ROUNDED_LEAST:
        raise LocalError(f"rounded noise has a variance of {_ROUNDED_LEAST} steps squared or more")
    if not 1 <= bound <= _MAX_BOUND:
        raise LocalError(f"noise is cut at 1..{_MAX_BOUND} steps, not at {bound}")
    if not BITS <= bits <= _MAX_BITS or bits % 8:
        raise LocalError(f"a probability has {BITS} to {_MAX_BITS} bits, whole bytes, not {bits}")
