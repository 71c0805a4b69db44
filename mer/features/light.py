"""Take slow lighting out of a face before its flow is computed.

TV-L1 assumes that a point keeps its grey value. A lamp that changes by 5 % breaks that and produces flow of
several pixels that is not there: on the warped portrait the end-point error rises from .08 to .21 px, and
stays at .08 with this step (`tests/mer/test_portrait.py`). DIS compares patches without their mean and
does not need it; it is applied to both, so that the two see the same pictures.
Source of the idea: the structure part of Wedel et al. 2009 (an improved algorithm for TV-L1 optical flow).
"""

import numpy as np
from numpy.typing import NDArray

from merveil.mer.errors import InputError
from merveil.mer.features.opencv import opencv

MODES = ("flat", "none")
REACH = 1 / 28  # of the face square: standard deviation of the local mean that is subtracted


def check_mode(mode: str) -> None:
    if mode not in MODES:
        raise InputError(f"unknown lighting mode {mode!r}: choose one of {', '.join(MODES)}")


def flatten(gray: NDArray[np.uint8], mode: str = "flat") -> NDArray[np.uint8]:
    """flat: grey minus its local mean, plus 128, uint8 [h, w]. none: as it is."""
    check_mode(mode)
    if mode == "none":
        return gray
    values = gray.astype(np.float32)
    mean = opencv().GaussianBlur(values, (0, 0), REACH * min(gray.shape))
    return np.clip(np.rint(values - mean + 128), 0, 255).astype(np.uint8)
