"""The two passes over STSTNet's convolution outputs, compiled: one forward, one backward, each in place.

They do what takes torch some fifteen passes, so that an array which was just written by the matrix product is
read once while it is still in the cache. Compiled by numba on first use and kept on disk where that can be
written; imported only by the training kernel.

Arrays are float32 unless said; R = 16 m rows (model, filter), W windows, q cells of the 2/2 mean, and window
s*q + c is the s-th of the four windows of cell c (see `Windows`).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from merveil.mer.extras import need

Array = NDArray[Any]
NONE = 9  # where no output of a window exceeds zero: none of the nine


def _compiled(function: Callable[..., None]) -> Callable[..., None]:
    """Compile without the interpreter lock; keep the machine code on disk unless there is no place for it."""
    numba = need("numba", "mer")
    options = {"nogil": True, "fastmath": True, "error_model": "numpy"}
    try:
        compiled: Callable[..., None] = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # numba found neither the package's folder nor the user's cache writable
        compiled = numba.njit(**options)(function)
    return compiled


def _largest(row: Array, inside: Array, top: Array, arg: Array) -> None:
    """Largest of nine outputs >= 0 and the first place it has; NONE where all are zero."""
    windows = top.size
    for w in range(windows):
        top[w] = np.float32(0)
        arg[w] = NONE
    for k in range(9):
        for w in range(windows):
            seen = row[k * windows + w] * inside[k * windows + w]
            arg[w] = k if seen > top[w] else arg[w]
            top[w] = max(seen, top[w])


def _smallest(row: Array, inside: Array, top: Array, arg: Array) -> None:
    """Smallest of nine outputs >= 0 and the first place it has."""
    windows = top.size
    for w in range(windows):
        top[w] = np.inf
        arg[w] = NONE
    for k in range(9):
        for w in range(windows):
            seen = row[k * windows + w] if inside[k * windows + w] > 0 else np.float32(np.inf)
            arg[w] = k if seen < top[w] else arg[w]
            top[w] = min(seen, top[w])


def _forward(
    maps: Array,
    inside: Array,
    falling: Array,
    keep: Array,
    cells: int,
    sums: Array,
    squares: Array,
    best: Array,
    share: Array,
    where: Array,
) -> None:
    """One clip: ReLU in place, sums, pooling, dropout, 2/2 mean.

    maps [R,9W] convolution outputs, ReLU applied on return; inside [9W]: 1 where the output is in its window;
    falling uint8 [R]: 1 where the norm weight is negative, so that the smallest output is pooled;
    keep uint8 [R,W]: dropout factors, 0 or 2, or 1 without dropout.
    Out: sums, squares [R] over all outputs; best [R,q]: mean over a cell of kept pooled outputs; share [R,q]:
    the same of ones; where uint8 [R,W]: which of the nine outputs was pooled, NONE if all are zero.
    """
    windows = maps.shape[1] // 9
    top = np.empty(windows, np.float32)
    arg = np.empty(windows, np.int32)
    zero, quarter = np.float32(0), np.float32(0.25)
    for r in range(maps.shape[0]):
        row = maps[r]
        total, power = zero, zero
        for i in range(row.size):
            value = max(row[i], zero)
            row[i] = value
            total += value
            power += value * value
        if falling[r]:
            _smallest(row, inside, top, arg)
        else:
            _largest(row, inside, top, arg)
        sums[r] = total
        squares[r] = power
        for w in range(windows):
            where[r, w] = arg[w]
        for c in range(cells):
            best[r, c] = zero
            share[r, c] = zero
        for s in range(4):
            for c in range(cells):
                kept = quarter * np.float32(keep[r, s * cells + c])
                best[r, c] += kept * top[s * cells + c]
                share[r, c] += kept


def _backward(maps: Array, where: Array, keep: Array, up: Array, shift: Array, slope: Array) -> None:
    """One clip: the gradient at the convolution outputs, in place of the outputs.

    maps [R,9W]: outputs before or after ReLU; where, keep as in `_forward`; up [R,q]: gradient at the cells,
    times the normalisation's factor; shift, slope [R]: an output v > 0 receives -(shift + slope v) through
    mean and variance, and the pooled one its window's gradient besides.
    """
    windows, cells = maps.shape[1] // 9, up.shape[1]
    down = np.zeros(windows, np.float32)
    zero, quarter = np.float32(0), np.float32(0.25)
    for r in range(maps.shape[0]):
        row = maps[r]
        for s in range(4):
            for c in range(cells):
                down[s * cells + c] = quarter * np.float32(keep[r, s * cells + c]) * up[r, c]
        level, tilt = -shift[r], -slope[r]
        for k in range(9):
            for w in range(windows):
                value = row[k * windows + w]
                grad = level + tilt * value + (down[w] if where[r, w] == k else zero)
                row[k * windows + w] = grad if value > zero else zero


_largest, _smallest = _compiled(_largest), _compiled(_smallest)
forward = _compiled(_forward)
backward = _compiled(_backward)
