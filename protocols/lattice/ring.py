"""Number-theoretic transforms modulo primes below 2^31, compiled by numba.

Sixteen polynomials lie side by side: coefficient j of lane l of a group is word (j, l), so every butterfly is
a run of at least 16 equal operations on contiguous words, one vector register wide, at all strides. Residues
are uint32 in [0, p). Products with a known factor are Shoup's (a quotient is stored with the factor), others
Montgomery's with R = 2^32. Order: Cooley-Tukey with powers of the least primitive 2N-th root, bit-reversed,
and Gentleman-Sande back. Not constant time.

Kernels take the number of lanes as an argument: a loop of known length 16 is unrolled, then not vectorised.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from merveil.protocols.lattice.constants import LANES
from merveil.protocols.lattice.jit import compiled, inlined

Words = NDArray[np.uint32]
_U32 = 1 << 32


class Table(NamedTuple):
    """Powers of the root and of its inverse, bit-reversed, each with its Shoup quotient; N words each."""

    prime: int
    up: Words
    up_quotients: Words
    down: Words
    down_quotients: Words


def least_root(degree: int, p: int) -> int:
    """The least primitive 2N-th root of unity modulo p."""
    order = 2 * degree
    root = next(
        r for r in (pow(g, (p - 1) // order, p) for g in range(2, 10_000)) if pow(r, degree, p) == p - 1
    )
    square, least = root * root % p, root
    for _ in range(degree):
        root = root * square % p
        least = min(least, root)
    return least


def _bit_reversed(degree: int) -> NDArray[np.int64]:
    order = np.zeros(1, dtype=np.int64)
    while order.size < degree:
        order = np.concatenate((2 * order, 2 * order + 1))
    return order


def _powers(root: int, degree: int, p: int) -> NDArray[np.uint64]:
    """root^i for i < degree, by doubling: products of words below 2^31 fit 64 bits."""
    found = np.ones(1, dtype=np.uint64)
    while found.size < degree:
        found = np.concatenate((found, found * np.uint64(pow(root, found.size, p)) % np.uint64(p)))
    return found


@lru_cache(maxsize=64)
def table(degree: int, p: int) -> Table:
    order, root = _bit_reversed(degree), least_root(degree, p)
    found = []
    for r in (root, pow(root, -1, p)):
        powers = _powers(r, degree, p)[order]
        found += [powers.astype(np.uint32), ((powers << np.uint64(32)) // np.uint64(p)).astype(np.uint32)]
    return Table(p, *found)


@inlined
def _less(x: Any, p: Any) -> Any:
    """x or x - p, whichever lies in [0, p), for x below 2p: the wrong one wraps to a larger word."""
    return min(x, np.uint32(x - p))


@inlined
def _shoup(x: Any, factor: Any, quotient: Any, p: Any) -> Any:
    """x * factor mod p for any word x."""
    q = np.uint32((np.uint64(x) * quotient) >> np.uint64(32))
    return _less(np.uint32(np.uint32(x * factor) - np.uint32(q * p)), p)


@inlined
def montgomery(x: Any, p: Any, inverse: Any) -> Any:
    """x / 2^32 mod p for x below 2^32 p; inverse: p^-1 modulo 2^32."""
    m = np.uint64(np.uint32(np.uint32(x) * inverse))
    high = np.uint32((m * np.uint64(p)) >> np.uint64(32))
    t = np.uint32(np.uint32(x >> np.uint64(32)) - high)
    return min(t, np.uint32(t + p))


@compiled
def _forward(x: Any, powers: Any, quotients: Any, prime: Any) -> None:
    """One polynomial, coefficients to NTT form."""
    p, n = np.uint32(prime), x.shape[0]
    half, groups = n // 2, 1
    while half > 0:
        for g in range(groups):
            w, f = powers[groups + g], np.uint64(quotients[groups + g])
            left, right = x[2 * g * half : (2 * g + 1) * half], x[(2 * g + 1) * half : (2 * g + 2) * half]
            for j in range(half):
                u, v = left[j], _shoup(right[j], w, f, p)
                left[j] = _less(np.uint32(u + v), p)
                right[j] = _less(np.uint32(u - v + p), p)
        groups *= 2
        half //= 2


@compiled
def _multiply_lanes(x: Any, factors: Any, prime: Any, negative: Any, lanes: int) -> None:
    """x[j, lane] *= factors[j], the factors in Montgomery form; x is flat, N rows of lanes."""
    p, inverse = np.uint32(prime), np.uint32(negative)
    for j in range(factors.shape[0]):
        f, row = np.uint64(factors[j]), x[j * lanes : (j + 1) * lanes]
        for lane in range(lanes):
            row[lane] = montgomery(np.uint64(row[lane]) * f, p, inverse)


@compiled
def _inverse_lanes(x: Any, powers: Any, quotients: Any, prime: Any) -> None:
    """16 polynomials, NTT form to coefficients times N; x is flat."""
    p, n = np.uint32(prime), x.shape[0] // LANES
    half, groups = 1, n // 2
    while groups > 0:
        for g in range(groups):
            w, f = powers[groups + g], np.uint64(quotients[groups + g])
            size = half * LANES
            left, right = x[2 * g * size : (2 * g + 1) * size], x[(2 * g + 1) * size : (2 * g + 2) * size]
            for j in range(size):
                u, v = left[j], right[j]
                left[j] = _less(np.uint32(u + v), p)
                right[j] = _shoup(np.uint32(u - v + p), w, f, p)
        half *= 2
        groups //= 2


def secret_factors(degree: int, p: int, secret: NDArray[np.int64]) -> Words:
    """A small signed polynomial, shape (N,), ready to be multiplied by: NTT form times 2^32 / N."""
    t = table(degree, p)
    scale = _U32 * pow(degree, -1, p) % p
    x = (np.mod(secret, p).astype(np.uint64) * np.uint64(scale) % np.uint64(p)).astype(np.uint32)
    _forward(x, t.up, t.up_quotients, p)
    return x


def multiply(x: Words, factors: Words, degree: int, p: int) -> Words:
    """Polynomials in NTT form times a secret, to coefficients, in place.

    x: flat, groups of N rows of 16 lanes. factors: of `secret_factors`.
    """
    t = table(degree, p)
    for group in x.reshape(-1, degree * LANES):
        _multiply_lanes(group, factors, p, pow(p, -1, _U32), LANES)
        _inverse_lanes(group, t.down, t.down_quotients, p)
    return x
