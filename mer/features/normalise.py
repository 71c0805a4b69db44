"""From full-size flow and strain to the small feature image, in one of two stated scales.

`percent` (default) keeps magnitude: u and v in percent of a face length, strain in percent, float32.
`ststnet-compat` is the scale of the published 28x28 maps: per image and channel min-max to uint8 0..255.
It discards magnitude, and zero flow is no longer one fixed grey value.
Channel order of every feature image: strain, v, u.
"""

import numpy as np
from numpy.typing import NDArray

from merveil.mer.errors import InputError
from merveil.mer.features.opencv import opencv

MODES = ("percent", "ststnet-compat")


def check_mode(mode: str) -> None:
    if mode not in MODES:
        raise InputError(f"unknown normalisation {mode!r}: choose one of {', '.join(MODES)}")


def shrink(channels: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """[h, w, c] -> [size, size, c] by area means; flow is resized after it is computed, never before."""
    if min(channels.shape[:2]) < size:
        raise ValueError(f"maps of {list(channels.shape[:2])} cannot be shrunk to {size}")
    cv2 = opencv()
    small = cv2.resize(channels, (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(small, dtype=np.float32).reshape(size, size, channels.shape[2])


def stack(flow: NDArray[np.float32], strain: NDArray[np.float32], length: float) -> NDArray[np.float32]:
    """[strain, v, u] in percent: flow pixels over `length` pixels, strain (no unit) times 100."""
    if not length > 0:
        raise ValueError(f"a face length must be positive, not {length}")
    scale = np.float32(100.0 / length)
    return np.stack([strain * np.float32(100.0), flow[..., 1] * scale, flow[..., 0] * scale], axis=-1)


def min_max(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Per-channel min-max of one feature image to 0..255; a constant channel becomes 0."""
    low = image.min(axis=(0, 1), keepdims=True)
    span = image.max(axis=(0, 1), keepdims=True) - low
    unit = np.divide(image - low, span, out=np.zeros_like(image), where=span > 0)
    return np.rint(unit * 255).astype(np.uint8)
