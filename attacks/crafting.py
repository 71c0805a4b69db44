"""Weights made to leak, for one fully connected or convolutional layer: rows [rows, width] and biases [rows].

bins: all rows measure the same thing, each from its own threshold on. trap: half of each row's weights are
negative and a little larger than the other half, so that few inputs of positive pixels wake a unit.
Sources: Fowl et al., ICLR 2022 (Robbing the Fed); Boenisch et al., EuroS&P 2023 (trap weights).
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def bins(cuts: Floats, width: int) -> tuple[Floats, Floats]:
    """The mean of the inputs, from each of the cuts on."""
    return np.full((len(cuts), width), 1 / width), -cuts


def trap(rows: int, width: int, factor: float, rng: np.random.Generator, mirrored: bool = True) -> Floats:
    """Rows whose positive part is `factor` times the negative one; scale as torch's default start.

    mirrored: the same magnitudes on both sides, as published; else both sides are drawn, which hides better.
    """
    half = width // 2
    low = np.abs(rng.normal(size=(rows, half)))
    high = rng.permuted(low, axis=1) if mirrored else np.abs(rng.normal(size=(rows, half)))
    values = np.concatenate([-low, factor * high, np.zeros((rows, width - 2 * half))], axis=1)
    return np.asarray(rng.permuted(values, axis=1) / np.sqrt(3 * width))
