"""Arithmetic of Z_p[X]/(X^4096 + 1) for the primes of `constants`, compiled by numba.

Arrays are int64 of shape (polynomials, primes, 4096) with every value in [0, p). Transforms work in place and
give SEAL's order (Cooley-Tukey with powers of the least primitive 8192nd root, bit-reversed), so a residue
here is the residue that SEAL holds in NTT form. Products of 36-bit values wrap modulo 2^64 and are corrected
by a floating-point quotient, which is off by at most one. Not constant time.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from merveil.protocols.ckks.constants import DEGREE, PRIMES
from merveil.protocols.errors import LocalError

Residues = NDArray[np.int64]

try:
    import numba  # type: ignore[import-untyped,unused-ignore]
except ImportError as error:
    raise LocalError("scheme 'ckks' needs numba: pip install 'merveil[ckks]'") from error


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` by numba, cached on disk where that can be written."""
    try:
        return cast(Callable[..., Any], numba.njit(cache=True, nogil=True)(function))
    except RuntimeError:  # neither the package's folder nor a cache folder can be written
        return cast(Callable[..., Any], numba.njit(nogil=True)(function))


def _reversed(i: int) -> int:
    return int(f"{i:012b}"[::-1], 2)


def _least_root(p: int) -> int:
    """The least primitive 8192nd root of unity modulo p, which SEAL takes too."""
    order = 2 * DEGREE
    root = next(
        r for r in (pow(g, (p - 1) // order, p) for g in range(2, 1000)) if pow(r, DEGREE, p) == p - 1
    )
    square, least = root * root % p, root
    for _ in range(DEGREE):
        root = root * square % p
        least = min(least, root)
    return least


@lru_cache(maxsize=1)
def _tables() -> tuple[Any, ...]:
    """Per prime: powers of the root, of its inverse (both bit-reversed), and both divided by p as floats."""
    up, down = (np.empty((len(PRIMES), DEGREE), dtype=np.int64) for _ in range(2))
    for r, p in enumerate(PRIMES):
        root = _least_root(p)
        back, a, b = pow(root, -1, p), 1, 1
        for i in range(DEGREE):
            at = _reversed(i)
            up[r, at], down[r, at] = a, b
            a, b = a * root % p, b * back % p
    primes = np.array(PRIMES, dtype=np.int64)
    size = np.array([pow(DEGREE, -1, p) for p in PRIMES], dtype=np.int64)
    return primes, up, up / primes[:, None], down, down / primes[:, None], size


@compiled
def _forward(x: Any, primes: Any, powers: Any, ratios: Any) -> None:
    for k in range(x.shape[0]):
        for r in range(x.shape[1]):
            p, row, n = primes[r], x[k, r], x.shape[2]
            half, groups = n // 2, 1
            while half > 0:
                for g in range(groups):
                    w, f = powers[r, groups + g], ratios[r, groups + g]
                    left = row[2 * g * half : (2 * g + 1) * half]
                    right = row[(2 * g + 1) * half : (2 * g + 2) * half]
                    for j in range(half):
                        u, a = left[j], right[j]
                        v = a * w - np.int64(a * f) * p
                        v += p if v < 0 else 0
                        v -= p if v >= p else 0
                        s = u + v
                        d = u - v
                        left[j] = s - (p if s >= p else 0)
                        right[j] = d + (p if d < 0 else 0)
                groups *= 2
                half //= 2


@compiled
def _inverse(x: Any, primes: Any, powers: Any, ratios: Any, size: Any) -> None:
    for k in range(x.shape[0]):
        for r in range(x.shape[1]):
            p, row, n = primes[r], x[k, r], x.shape[2]
            half, groups = 1, n // 2
            while groups > 0:
                for g in range(groups):
                    w, f = powers[r, groups + g], ratios[r, groups + g]
                    left = row[2 * g * half : (2 * g + 1) * half]
                    right = row[(2 * g + 1) * half : (2 * g + 2) * half]
                    for j in range(half):
                        u, v = left[j], right[j]
                        s = u + v
                        a = u - v
                        a += p if a < 0 else 0
                        left[j] = s - (p if s >= p else 0)
                        b = a * w - np.int64(a * f) * p
                        b += p if b < 0 else 0
                        b -= p if b >= p else 0
                        right[j] = b
                groups //= 2
                half *= 2
            w = size[r]
            f = w / p
            for j in range(n):
                a = row[j]
                b = a * w - np.int64(a * f) * p
                if b < 0:
                    b += p
                if b >= p:
                    b -= p
                row[j] = b


@compiled
def _multiply_add(out: Any, a: Any, b: Any, primes: Any) -> None:
    """out += a*b; a row count of one is repeated."""
    for k in range(out.shape[0]):
        ka, kb = k % a.shape[0], k % b.shape[0]
        for r in range(out.shape[1]):
            p = primes[r]
            f = 1.0 / p
            for j in range(out.shape[2]):
                x, y = a[ka, r, j], b[kb, r, j]
                v = x * y - np.int64(np.float64(x) * np.float64(y) * f) * p
                if v < 0:
                    v += p
                if v >= p:
                    v -= p
                v += out[k, r, j]
                out[k, r, j] = v - p if v >= p else v


@compiled
def _add(out: Any, x: Any, primes: Any) -> None:
    """out += x; a row count of one is repeated."""
    for k in range(out.shape[0]):
        kx = k % x.shape[0]
        for r in range(out.shape[1]):
            p = primes[r]
            for j in range(out.shape[2]):
                v = out[k, r, j] + x[kx, r, j]
                out[k, r, j] = v - (p if v >= p else 0)


@compiled
def _inner(out: Any, a: Any, b: Any, primes: Any) -> None:
    """out[k, i, r] = sum over j of a[k, r, j]*b[i, r, j]."""
    for k in range(a.shape[0]):
        for i in range(b.shape[0]):
            for r in range(a.shape[1]):
                p = primes[r]
                f = 1.0 / p
                total = np.int64(0)
                for j in range(a.shape[2]):
                    x, y = a[k, r, j], b[i, r, j]
                    v = x * y - np.int64(np.float64(x) * np.float64(y) * f) * p
                    v += p if v < 0 else 0
                    total += v - (p if v >= p else 0)
                out[k, i, r] = total % p


@compiled
def _scale_add(out: Any, x: Any, scalars: Any, primes: Any) -> None:
    """out = out*scalar + x, a scalar for each prime."""
    for k in range(out.shape[0]):
        for r in range(out.shape[1]):
            p, w = primes[r], scalars[r]
            f = w / p
            for j in range(out.shape[2]):
                a = out[k, r, j]
                v = a * w - np.int64(a * f) * p
                if v < 0:
                    v += p
                if v >= p:
                    v -= p
                v += x[k, r, j]
                out[k, r, j] = v - p if v >= p else v


@compiled
def _reduce(out: Any, signed: Any, primes: Any) -> None:
    """Signed integers to residues: out[k, r] = signed[k] mod p_r. q*p may wrap; the difference does not."""
    for k in range(out.shape[0]):
        for r in range(out.shape[1]):
            p = primes[r]
            f = 1.0 / p
            for j in range(out.shape[2]):
                a = signed[k, j]
                v = a - np.int64(np.floor(a * f)) * p
                if v < 0:
                    v += p
                if v >= p:
                    v -= p
                out[k, r, j] = v


@compiled
def _remainder(low: Any, error: Any, p: Any) -> None:
    """low = error - r, r being the representative of low + error modulo p next to zero."""
    for k in range(low.shape[0]):
        for j in range(low.shape[1]):
            v = low[k, j] + error[k, j]
            v -= p if v >= p else 0
            v -= p if v > p // 2 else 0
            low[k, j] = error[k, j] - v


@compiled
def _add_scale(out: Any, x: Any, scalars: Any, primes: Any) -> None:
    """out = (out + x)*scalar, a scalar for each prime; x may have more primes."""
    for k in range(out.shape[0]):
        for r in range(out.shape[1]):
            p, w = primes[r], scalars[r]
            f = w / p
            for j in range(out.shape[2]):
                a = out[k, r, j] + x[k, r, j]
                a -= p if a >= p else 0
                v = a * w - np.int64(a * f) * p
                v += p if v < 0 else 0
                out[k, r, j] = v - (p if v >= p else 0)


def _primes(rows: int, first: int) -> Any:
    return _tables()[0][first : first + rows]


def forward(x: Residues, first: int = 0) -> Residues:
    """Coefficients to NTT form in place, for the primes from `first` on."""
    rows = slice(first, first + x.shape[1])
    primes, up, ratios, *_ = _tables()
    _forward(x, primes[rows], up[rows], ratios[rows])
    return x


def inverse(x: Residues, first: int = 0) -> Residues:
    """NTT form to coefficients in place."""
    rows = slice(first, first + x.shape[1])
    primes, _, _, down, ratios, size = _tables()
    _inverse(x, primes[rows], down[rows], ratios[rows], size[rows])
    return x


def multiply_add(out: Residues, a: Residues, b: Residues, first: int = 0) -> Residues:
    """out += a*b pointwise; a single polynomial on either side is used for all."""
    _multiply_add(out, a, b, _primes(out.shape[1], first))
    return out


def multiply(a: Residues, b: Residues, first: int = 0) -> Residues:
    shape = (max(a.shape[0], b.shape[0]), *a.shape[1:])
    return multiply_add(np.zeros(shape, dtype=np.int64), a, b, first)


def inner(a: Residues, b: Residues) -> Residues:
    """Inner products modulo each prime: (k, rows, 4096) and (i, rows, 4096) to (k, i, rows)."""
    out = np.empty((a.shape[0], b.shape[0], a.shape[1]), dtype=np.int64)
    _inner(out, a, b, _primes(a.shape[1], 0))
    return out


def scale_add(out: Residues, scalars: tuple[int, ...], x: Residues) -> Residues:
    """out = out*scalar + x in place; one scalar in [0, p) for each prime."""
    _scale_add(out, x, np.array(scalars, dtype=np.int64), _primes(out.shape[1], 0))
    return out


def divide(
    product: Residues,
    error: Residues,
    special: int,
    inverses: tuple[int, ...],
    message: tuple[Residues, tuple[int, ...]] | None = None,
) -> Residues:
    """(product + error) / p rounded, plus the message: p the prime at `special`, modulo the primes before it.

    product: NTT form, shape (k, special + 1, 4096). error: signed and small, shape (k, 4096). inverses: of p
    modulo each prime before it. message: signed coefficients, shape (k, 4096), and a factor for each prime;
    it rides on the transform of the rounding, times p.
    """
    low = inverse(np.ascontiguousarray(product[:, special:]), special)[:, 0]
    _remainder(low, error, PRIMES[special])
    out = residues(low, special)
    if message is not None:
        whole, factors = message
        scalars = tuple(f * PRIMES[special] % p for f, p in zip(factors, PRIMES[:special]))
        out = scale_add(residues(whole, special), scalars, out)
    forward(out)
    _add_scale(out, product, np.array(inverses, dtype=np.int64), _primes(special, 0))
    return out


def add(out: Residues, x: Residues) -> Residues:
    """out += x modulo the primes, in place."""
    _add(out, x, _primes(out.shape[1], 0))
    return out


def negate(x: Residues) -> Residues:
    primes = _primes(x.shape[1], 0)[:, None]
    return np.asarray(np.where(x == 0, 0, primes - x), dtype=np.int64)


def residues(signed: Residues, rows: int, first: int = 0) -> Residues:
    """Signed integers below 2^63, shape (k, 4096), modulo each prime: shape (k, rows, 4096)."""
    out = np.empty((signed.shape[0], rows, signed.shape[1]), dtype=np.int64)
    _reduce(out, signed, _primes(rows, first))
    return out
