"""Integers in slots to the coefficients of their polynomial, in 64-bit fixed point.

m(X) with m(zeta^e) = v_e at the slots' roots, times a scale. z_k = m_k + i*m_(k+2048) is a cyclic transform
of 2,048 points and a twist. Each of its 11 steps halves, so no number outgrows the largest slot, which takes
63 bits; products have 128 bits. Two steps are exact, the others round once. All is integer arithmetic: the
same bits on every machine.

The error, for every input of magnitude at most D, in units of D*scale/2^63 and as root mean square over the
coefficients: a step rounds a number by at most 1/2, and shrinks the two-norm of what it finds by sqrt(2), so
that all steps leave 1.64; factors of 62 bits err by a share of numbers that shrink alike, and leave 0.2; the
twist rounds by 1. The bound is 2.95 (`params.SLOT_ERROR`), and 0.66 was measured on random slots. Where the
scale is so small that the result's own integers are coarser, their 1/2 takes the place of the twist's 1.
"""

from functools import lru_cache
from math import isqrt
from typing import Any

import numpy as np
from numba.core import types  # type: ignore[import-untyped,unused-ignore]
from numba.extending import intrinsic  # type: ignore[import-untyped,unused-ignore]

from merveil.protocols.ckks.constants import DEGREE
from merveil.protocols.ckks.ring import Residues, compiled

POINTS = DEGREE // 2
_ROOM = (1 << 63) - 64  # 16 are needed: what 11 steps may add to a number
_FRACTION = 62  # bits of a factor
_WIDE = 160  # bits that the tables are computed with


def _butterfly(typing: Any, a: Any, x: Any, w: Any, y: Any, z: Any) -> Any:
    """((a*2^62 + t) / 2^63, (a*2^62 - t) / 2^63) rounded, t = x*w + y*z in 128 bits."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = args[0].type
        wide = type(word)(128)
        one, two, three, four, five = (builder.sext(v, wide) for v in args)
        t = builder.add(builder.mul(two, three), builder.mul(four, five))
        base = builder.shl(builder.add(one, wide(1)), wide(_FRACTION))
        sums = (builder.add(base, t), builder.sub(base, t))
        down = [builder.trunc(builder.ashr(s, wide(_FRACTION + 1)), word) for s in sums]
        return context.make_tuple(builder, signature.return_type, down)

    pair: Any = types.UniTuple
    return pair(types.int64, 2)(*[types.int64] * 5), code


_halves: Any = intrinsic(_butterfly)


@compiled
def _transform(out: Any, values: Any, factor: Any, where: Any, real: Any, imaginary: Any, twist: Any) -> None:
    """values: (k, 2048) to out: (k, 4096). factor: a quarter of the grid's. real, imaginary: zeta^(-4j)."""
    n = values.shape[1]
    for k in range(values.shape[0]):
        re, im = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64)
        row, low, high = values[k], out[k, :n], out[k, n:]
        for j in range(0, n, 4):  # two steps at once: their factors are 1 and -i
            a, b, c, d = row[where[j]], row[where[j + 1]], row[where[j + 2]], row[where[j + 3]]
            re[j], re[j + 2] = (a + b + c + d) * factor, (a + b - c - d) * factor
            re[j + 1], re[j + 3] = (a - b) * factor, (a - b) * factor
            im[j], im[j + 2] = 0, 0
            im[j + 1], im[j + 3] = (d - c) * factor, (c - d) * factor
        half = 4
        while half < n:
            stride = n // (2 * half)
            for start in range(0, n, 2 * half):
                re_left, re_right = re[start : start + half], re[start + half : start + 2 * half]
                im_left, im_right = im[start : start + half], im[start + half : start + 2 * half]
                for j in range(half):
                    c, s = real[j * stride], imaginary[j * stride]
                    x, y = re_right[j], im_right[j]
                    re_left[j], re_right[j] = _halves(re_left[j], x, c, -y, s)
                    im_left[j], im_right[j] = _halves(im_left[j], x, s, y, c)
            half *= 2
        for j in range(n):
            low[j], _ = _halves(0, re[j], twist[0, j], -im[j], twist[1, j])
            high[j], _ = _halves(0, re[j], twist[1, j], im[j], twist[0, j])


@lru_cache(maxsize=1)
def _circle() -> list[tuple[int, int]]:
    """zeta^k, k from 0 to 4095, as (cosine, sine) of 160 bits: powers of i's angle halved eleven times."""
    one = 1 << _WIDE
    c, s = 0, one
    for _ in range(DEGREE.bit_length() - 2):
        c, s = isqrt((one + c) * one // 2), isqrt((one - c) * one // 2)
    found = [(one, 0)]
    for _ in range(DEGREE - 1):
        x, y = found[-1]
        found.append(((x * c - y * s) >> _WIDE, (x * s + y * c) >> _WIDE))
    return found


@lru_cache(maxsize=1)
def _tables() -> tuple[Any, ...]:
    """Which slot comes where before the transform, and its factors zeta^(-4j)."""
    where = np.empty(POINTS, dtype=np.int64)
    power, bits = 1, POINTS.bit_length() - 1
    for i in range(POINTS):  # slot i is at exponent 3^i, or at its conjugate, 1 modulo 4
        exponent = power if power % 4 == 1 else 2 * DEGREE - power
        where[int(f"{exponent // 4:0{bits}b}"[::-1], 2)] = i
        power = power * 3 % (2 * DEGREE)
    factors = _fixed([_circle()[4 * j] for j in range(POINTS // 2)], 1, 1)
    return where, factors[0], factors[1]


@lru_cache(maxsize=8)
def _twist(over: int, under: int) -> Any:
    return _fixed(_circle()[:POINTS], over, under)


def _fixed(points: list[tuple[int, int]], over: int, under: int) -> Any:
    """Conjugates of the points times over/under < 2, in 62 bits and rounded."""
    shift = _WIDE - _FRACTION
    half = under << (shift - 1)
    rows = [[(v * over + half) // (under << shift) for v in (c, -s)] for c, s in points]
    return np.ascontiguousarray(np.array(rows, dtype=np.int64).T)


def to_polynomial(values: Residues, largest: int, scale: int) -> tuple[Residues, int]:
    """(coefficients c, shift): scale times the polynomial is c * 2^shift, both up to the error above.

    values: (k, 2048), magnitudes at most `largest`; c: (k, 4096), magnitudes below 2^63; shift >= 0.
    """
    factor = 4 * (_ROOM // (4 * largest))
    shift = max(0, scale.bit_length() - factor.bit_length())
    over, under = 2 * scale, factor << shift  # c = z * over / under / 2
    if over >= 2 * under:
        shift, under = shift + 1, 2 * under
    out = np.empty((values.shape[0], DEGREE), dtype=np.int64)
    where, real, imaginary = _tables()
    _transform(out, values, factor // 4, where, real, imaginary, _twist(over, under))
    return out, shift
