"""STSTNet's work between its two matrix products, compiled.

For one clip and a chunk of models: ReLU, sums, pooling, dropout, mean, normalisation, linear layer, loss,
and the way back to the gradient at every convolution output, in place. It takes torch some sixty passes over
small arrays; here an array is read while it is still in the first caches. Compiled by numba on first use and
kept on disk where that can be written; imported only by the training kernel.

Arrays are float32 unless said; R = 16 m rows (model, filter), W windows of nine columns, q cells of the 2/2
mean, window s*q + c the s-th of the four of cell c (see `Windows`), K classes.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from merveil.mer.extras import need

Array = NDArray[Any]
NONE = 9  # where no output of a window exceeds zero: none of the nine
FAR = np.float32(3e38)
ZERO = np.float32(0)
QUARTER = np.float32(0.25)
ENDS = ((0, 3), (3, 8), (8, 16))  # filters of the three streams


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile without the interpreter lock; keep the machine code on disk unless there is no place for it.

    Sums may be reordered (vectors), but infinities and NaN keep their meaning. Callees are put into their
    callers: one of its own is compiled twice, alone and with its caller, each with another order of sums, and
    the process that compiles them runs another of the two than one that loads them.
    """
    numba = need("numba", "mer")
    options = {
        "nogil": True,
        "fastmath": {"reassoc", "contract", "nsz", "arcp"},
        "error_model": "numpy",
        "inline": "always",
    }
    try:
        compiled: Callable[..., Any] = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # numba found neither the package's folder nor the user's cache writable
        compiled = numba.njit(**options)(function)
    return compiled


@_compiled
def _largest(row: Array, inside: Array, top: Array, arg: Array) -> None:
    """Largest of nine outputs >= 0 and the first place it has; NONE where all are zero."""
    windows = top.size
    for w in range(windows):
        top[w] = ZERO
        arg[w] = NONE
    for k in range(9):
        for w in range(windows):
            seen = row[k * windows + w] * inside[k * windows + w]
            arg[w] = k if seen > top[w] else arg[w]
            top[w] = seen if seen > top[w] else top[w]


@_compiled
def _smallest(row: Array, inside: Array, top: Array, arg: Array) -> None:
    """Smallest of nine outputs >= 0 and the first place it has."""
    windows = top.size
    for w in range(windows):
        top[w] = FAR
        arg[w] = NONE
    for k in range(9):
        for w in range(windows):
            seen = row[k * windows + w] if inside[k * windows + w] > ZERO else FAR
            arg[w] = k if seen < top[w] else arg[w]
            top[w] = seen if seen < top[w] else top[w]


@_compiled
def pool(
    maps: Array,
    inside: Array,
    gamma: Array,
    keep: Array,
    sums: Array,
    squares: Array,
    best: Array,
    share: Array,
    where: Array,
) -> None:
    """One clip: ReLU in place, sums, pooling, dropout, 2/2 mean.

    maps [R,9W]: convolution outputs, after ReLU on return; inside [9W]: 1 where an output is in its window;
    gamma [R]: the norm's weights (where negative the smallest output is pooled, since normalisation then
    turns the order round); keep uint8 [R,W]: dropout factors, 0 or 2, or 1 without dropout.
    Out: sums, squares [R] over all outputs; best [R,q]: mean over a cell of kept pooled outputs; share [R,q]:
    the same of ones; where uint8 [R,W]: which of the nine outputs was pooled, NONE if all are zero.
    """
    windows, cells = maps.shape[1] // 9, best.shape[1]
    top = np.empty(windows, np.float32)
    arg = np.empty(windows, np.int32)
    for r in range(maps.shape[0]):
        row = maps[r]
        total, power = ZERO, ZERO
        for i in range(row.size):
            value = row[i] if row[i] > ZERO else ZERO
            row[i] = value
            total += value
            power += value * value
        sums[r], squares[r] = total, power
        if gamma[r] < ZERO:
            _smallest(row, inside, top, arg)
        else:
            _largest(row, inside, top, arg)
        for w in range(windows):
            where[r, w] = arg[w]
        for c in range(cells):
            best[r, c] = ZERO
            share[r, c] = ZERO
        for s in range(4):
            for c in range(cells):
                kept = QUARTER * np.float32(keep[r, s * cells + c])
                best[r, c] += kept * top[s * cells + c]
                share[r, c] += kept


@_compiled
def spread(maps: Array, where: Array, keep: Array, up: Array, shift: Array, slope: Array) -> None:
    """One clip: the gradient at the convolution outputs, in place of the outputs.

    maps [R,9W]: outputs before or after ReLU; where, keep as in `pool`; up [R,q]: gradient at the cells,
    times the normalisation's factor; shift, slope [R]: an output v > 0 receives -(shift + slope v) through
    mean and variance, and the pooled one its window's gradient besides.
    """
    windows, cells = maps.shape[1] // 9, up.shape[1]
    down = np.zeros(windows, np.float32)
    for r in range(maps.shape[0]):
        row = maps[r]
        for s in range(4):
            for c in range(cells):
                down[s * cells + c] = QUARTER * np.float32(keep[r, s * cells + c]) * up[r, c]
        level, tilt = -shift[r], -slope[r]
        for k in range(9):
            for w in range(windows):
                value = row[k * windows + w]
                grad = level + tilt * value + (down[w] if where[r, w] == k else ZERO)
                row[k * windows + w] = grad if value > ZERO else ZERO


@_compiled
def group_statistics(
    sums: Array, squares: Array, positions: int, eps: float, mean: Array, rate: Array
) -> None:
    """GroupNorm(1, C) of one clip and model: mean and 1/sd [16] from the sums [16] of its three streams."""
    for low, high in ENDS:
        total = np.float64(positions * (high - low))
        centre, power = 0.0, 0.0
        for f in range(low, high):
            centre += sums[f]
            power += squares[f]
        centre /= total
        var = max(power / total - centre * centre, 0.0)
        for f in range(low, high):
            mean[f] = centre
            rate[f] = 1 / np.sqrt(var + eps)


@_compiled
def features(
    best: Array, share: Array, gamma: Array, beta: Array, mean: Array, rate: Array, out: Array
) -> None:
    """The linear layer's input [16,q]: normalisation of the pooled outputs [16,q] of one clip and model."""
    for f in range(16):
        scale = gamma[f] * rate[f]
        shift = beta[f] - mean[f] * scale
        for c in range(best.shape[1]):
            out[f, c] = scale * best[f, c] + shift * share[f, c]


@_compiled
def scores(inputs: Array, weight: Array, bias: Array, out: Array) -> None:
    """Logits [K] of the linear layer: weight [K,16q], bias [K], inputs [16,q]."""
    flat = inputs.reshape(-1)
    for k in range(bias.size):
        total = ZERO
        for i in range(flat.size):
            total += flat[i] * weight[k, i]
        out[k] = total + bias[k]


@_compiled
def head(
    best: Array,
    share: Array,
    gamma: Array,
    beta: Array,
    mean: Array,
    rate: Array,
    weight: Array,
    bias: Array,
    target: Array,
    d_gamma: Array,
    d_beta: Array,
    d_weight: Array,
    d_bias: Array,
    up: Array,
    level: Array,
    tilt: Array,
) -> float:
    """Loss of one clip and model and the way back to its pooled outputs; returns the loss.

    target [K]: weighted label, see StackedNet.gradients. Adds to d_gamma, d_beta [16], d_weight [K,16q],
    d_bias [K]. Out: up [16,q], gradient at the cells times gamma/sd; level, tilt [16]: the sums over pooled
    outputs of the gradient, and of the gradient times the normalised output.
    """
    inputs = np.empty(best.shape, np.float32)
    features(best, share, gamma, beta, mean, rate, inputs)
    logits = np.empty(bias.size, np.float32)
    scores(inputs, weight, bias, logits)
    high = logits.max()
    log_sum = np.log(np.exp(logits - high).sum()) + high
    loss, weight_sum = 0.0, np.float32(target.sum())
    flat, flat_up = inputs.reshape(-1), up.reshape(-1)
    flat_up[:] = ZERO
    for k in range(bias.size):
        log_p = logits[k] - log_sum
        loss -= target[k] * log_p
        error = np.float32(weight_sum * np.exp(log_p) - target[k])
        d_bias[k] += error
        for i in range(flat.size):
            d_weight[k, i] += error * flat[i]
            flat_up[i] += error * weight[k, i]
    for f in range(16):
        first, second = ZERO, ZERO
        factor = gamma[f] * rate[f]
        for c in range(best.shape[1]):
            first += up[f, c] * share[f, c]
            second += up[f, c] * best[f, c]
            up[f, c] *= factor
        level[f] = first
        tilt[f] = (second - mean[f] * first) * rate[f]
        d_beta[f] += first
        d_gamma[f] += tilt[f]
    return loss


@_compiled
def group_step(
    maps: Array,
    inside: Array,
    gamma: Array,
    beta: Array,
    weight: Array,
    bias: Array,
    keep: Array,
    targets: Array,
    positions: int,
    eps: float,
    d_gamma: Array,
    d_beta: Array,
    d_weight: Array,
    d_bias: Array,
    loss: Array,
) -> None:
    """A whole step of one clip with GroupNorm, for m models: maps [16m,9W] become their gradient.

    gamma, beta, d_gamma, d_beta [m,16]; weight, d_weight [m,K,16q]; bias, d_bias, targets [m,K];
    keep uint8 [16m,W]; positions: outputs of a filter; loss [m], added to.
    """
    cells = weight.shape[2] // 16
    sums, squares = np.empty(16, np.float32), np.empty(16, np.float32)
    mean, rate = np.empty(16, np.float32), np.empty(16, np.float32)
    shift, slope = np.empty(16, np.float32), np.empty(16, np.float32)
    level, tilt = np.empty(16, np.float32), np.empty(16, np.float32)
    best, share = np.empty((16, cells), np.float32), np.empty((16, cells), np.float32)
    up, where = np.empty((16, cells), np.float32), np.empty((16, maps.shape[1] // 9), np.uint8)
    for m in range(gamma.shape[0]):
        mine, kept, g = maps[16 * m : 16 * m + 16], keep[16 * m : 16 * m + 16], gamma[m]
        if targets[m].sum() == ZERO:  # not a clip of this model
            mine[:] = ZERO
            continue
        pool(mine, inside, g, kept, sums, squares, best, share, where)
        group_statistics(sums, squares, positions, eps, mean, rate)
        loss[m] += head(
            best, share, g, beta[m], mean, rate, weight[m], bias[m], targets[m],
            d_gamma[m], d_beta[m], d_weight[m], d_bias[m], up, level, tilt,
        )  # fmt: skip
        for low, high in ENDS:
            first, second = ZERO, ZERO
            for f in range(low, high):
                first += g[f] * level[f]
                second += g[f] * tilt[f]
            total = np.float32(positions * (high - low))
            for f in range(low, high):
                slope[f] = rate[f] * rate[f] * second / total
                shift[f] = rate[f] * first / total - mean[f] * slope[f]
        spread(mine, where, kept, up, shift, slope)


@_compiled
def batch_head(
    best: Array,
    share: Array,
    gamma: Array,
    beta: Array,
    mean: Array,
    rate: Array,
    weight: Array,
    bias: Array,
    targets: Array,
    d_gamma: Array,
    d_beta: Array,
    d_weight: Array,
    d_bias: Array,
    up: Array,
    loss: Array,
) -> None:
    """The head of a whole batch with BatchNorm: clips u, models m; the statistics mean, rate are [m,16].

    best, share [u,16m,q]; targets [u,m,K]; up [u,16m,q] is filled; the rest as in `group_step`. The sums of
    `head` that normalisation needs over the batch are what d_beta and d_gamma come to.
    """
    level, tilt = np.empty(16, np.float32), np.empty(16, np.float32)
    for u in range(best.shape[0]):
        for m in range(gamma.shape[0]):
            rows = slice(16 * m, 16 * m + 16)
            if targets[u, m].sum() == ZERO:
                up[u, rows] = ZERO
                continue
            loss[m] += head(
                best[u, rows], share[u, rows], gamma[m], beta[m], mean[m], rate[m], weight[m], bias[m],
                targets[u, m], d_gamma[m], d_beta[m], d_weight[m], d_bias[m], up[u, rows], level, tilt,
            )  # fmt: skip


@_compiled
def batch_scores(
    best: Array,
    share: Array,
    gamma: Array,
    beta: Array,
    mean: Array,
    rate: Array,
    weight: Array,
    bias: Array,
    out: Array,
) -> None:
    """Logits [m,K] of one clip from pooled outputs [16m,q] and statistics [m,16]."""
    inputs = np.empty((16, best.shape[1]), np.float32)
    for m in range(gamma.shape[0]):
        rows = slice(16 * m, 16 * m + 16)
        features(best[rows], share[rows], gamma[m], beta[m], mean[m], rate[m], inputs)
        scores(inputs, weight[m], bias[m], out[m])
