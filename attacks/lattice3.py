"""Noisy multiples of one unknown modulo Q = p0*p1, and the lattice of dimension three that gives it away.

h_k = w_k*x + e_k mod Q for three known weights. The vectors (w_1 x, w_2 x, w_3 x) mod Q form a lattice of
volume Q^2; where its shortest vector is longer than the noise, rounding in a reduced basis finds e exactly.
Source: eprint 2025/409; the noise limit is 2^44 for weights of general position (FORMULAS: Q^(2/3) / 8).
"""

from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from merveil.protocols.ckks.constants import DATA, PRIMES

Row = list[int]
_P0, _P1 = PRIMES[:DATA]
_Q = _P0 * _P1


def lift(weights: tuple[int, ...]) -> int:
    """A residue for each prime, as one modulo Q."""
    return (weights[0] + _P0 * ((weights[1] - weights[0]) * pow(_P0, -1, _P1) % _P1)) % _Q


def _dot(a: Sequence[int | Fraction], b: Sequence[int | Fraction]) -> Fraction:
    return sum((Fraction(x) * y for x, y in zip(a, b)), Fraction(0))


def reduce(basis: list[Row]) -> list[Row]:
    """LLL with delta 3/4, exact; for a handful of vectors. Source: Lenstra, Lenstra, Lovasz 1982."""
    rows, k = [list(r) for r in basis], 1

    def orthogonal() -> tuple[list[list[Fraction]], list[list[Fraction]]]:
        out: list[list[Fraction]] = []
        mu = [[Fraction(0)] * len(rows) for _ in rows]
        for i, row in enumerate(rows):
            v = [Fraction(x) for x in row]
            for j in range(i):
                mu[i][j] = _dot(row, out[j]) / _dot(out[j], out[j])
                v = [a - mu[i][j] * b for a, b in zip(v, out[j])]
            out.append(v)
        return out, mu

    while k < len(rows):
        for j in range(k - 1, -1, -1):
            q = round(orthogonal()[1][k][j])
            rows[k] = [a - q * b for a, b in zip(rows[k], rows[j])]
        star, mu = orthogonal()
        if _dot(star[k], star[k]) >= (Fraction(3, 4) - mu[k][k - 1] ** 2) * _dot(star[k - 1], star[k - 1]):
            k += 1
        else:
            rows[k], rows[k - 1], k = rows[k - 1], rows[k], max(k - 1, 1)
    return rows


@lru_cache(maxsize=8)
def reduced(weights: tuple[tuple[int, ...], ...]) -> list[Row]:
    """Reduced basis of the lattice of (w_1 x, ..., w_k x) mod Q; its shortest vector comes first."""
    lifted = [lift(w) for w in weights]
    back = pow(lifted[0], -1, _Q)
    rows = [[1, *(w * back % _Q for w in lifted[1:])]]
    rows += [[_Q if i == j else 0 for i in range(len(lifted))] for j in range(1, len(lifted))]
    return reduce(rows)


def reach(weights: tuple[tuple[int, ...], ...]) -> float:
    """Largest coordinate of the shortest vector: noise well below half of it can be taken off."""
    return float(max(map(abs, reduced(weights)[0])))


def nearest(
    weights: tuple[tuple[int, ...], ...], answers: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]]
) -> NDArray[np.int64]:
    """The noise e_1 of the first answer, one value a coefficient.

    answers: (low, high) of each, h = low + p0*high. Noise must be below 2^62: differences are taken modulo
    2^64, and the coordinates of h in the basis, at most 2^30, in floats.
    """
    basis = reduced(weights)
    inverse = np.linalg.inv(np.array([[float(x) for x in row] for row in basis]))
    h = np.stack([low + high.astype(np.float64) * _P0 for low, high in answers], axis=1)
    whole = np.rint(h @ inverse).astype(np.int64)
    low, high = answers[0]
    with np.errstate(over="ignore"):
        first = low.astype(np.uint64) + high.astype(np.uint64) * np.uint64(_P0)
        for k, row in enumerate(basis):
            first -= whole[:, k].astype(np.uint64) * np.uint64(row[0] % 2**64)
    return first.astype(np.int64)
