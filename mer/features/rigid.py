"""Take the head's own motion out of a flow field, so that what is left is expression."""

import numpy as np
from numpy.typing import NDArray

from merveil.mer.errors import InputError

MODES = ("nose", "median", "similarity", "none")
NOSE = (0.36, 0.56, 0.42, 0.58)  # the nose ridge, rows and columns as shares of the face square
ROUNDS = 5  # of reweighting in the similarity fit


def check_mode(mode: str) -> None:
    if mode not in MODES:
        raise InputError(f"unknown rigid-motion mode {mode!r}: choose one of {', '.join(MODES)}")


def remove_rigid(flow: NDArray[np.float32], mode: str = "nose") -> NDArray[np.float32]:
    """Subtract head motion from a face's flow, float32 [h, w, 2] -> same.

    nose: the mean flow of the nose ridge, the part of a face that expressions move least.
    median: the median flow. similarity: a robust fit of shift, turn and growth. none: nothing.
    """
    check_mode(mode)
    if mode == "nose":
        height, width = flow.shape[:2]
        top, bottom = round(NOSE[0] * height), round(NOSE[1] * height)
        left, right = round(NOSE[2] * width), round(NOSE[3] * width)
        return flow - flow[top:bottom, left:right].mean(axis=(0, 1))
    if mode == "median":
        return flow - np.median(flow, axis=(0, 1))
    if mode == "similarity":
        return flow - similarity(flow)
    return flow


def similarity(flow: NDArray[np.float32]) -> NDArray[np.float32]:
    """The shift, turn and growth that explain most of the field: least squares, reweighted by residual.

    u = a x - b y + c, v = b x + a y + d; weights 1 / (1 + (r / s)^2) with s the median residual, so that
    the moving part of the face (a minority of its pixels) does not pull the fit.
    """
    height, width = flow.shape[:2]
    step = max(1, min(height, width) // 32)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    x, y = (x - (width - 1) / 2) / width, (y - (height - 1) / 2) / width  # one unit for both
    xs, ys = x[::step, ::step].ravel(), y[::step, ::step].ravel()
    sample = flow[::step, ::step].reshape(-1, 2).astype(np.float64)
    one, zero = np.ones_like(xs), np.zeros_like(xs)
    design = np.concatenate([np.stack([xs, -ys, one, zero], 1), np.stack([ys, xs, zero, one], 1)])
    target = np.concatenate([sample[:, 0], sample[:, 1]])
    weight = np.ones(len(xs))
    for _ in range(ROUNDS):
        both = np.sqrt(np.concatenate([weight, weight]))
        a, b, c, d = np.linalg.lstsq(design * both[:, None], target * both, rcond=None)[0]
        rest = target - design @ np.array([a, b, c, d])
        size = np.hypot(rest[: len(xs)], rest[len(xs) :])
        weight = 1 / (1 + (size / max(float(np.median(size)), 1e-6)) ** 2)
    return np.stack([a * x - b * y + c, b * x + a * y + d], axis=-1).astype(np.float32)
