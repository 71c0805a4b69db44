"""The randomised Hadamard rotation: spreads a vector evenly over its padded coordinates.

Guarantee: an isometry up to float rounding, inverted by `unrotate`. The signs are public, a function of 32
public bytes; privacy does not depend on them, only how evenly the grid is used.
Source: Suresh et al. 2017; Kairouz, Liu, Steinke 2021, section 4.
"""

import hashlib
import math

import numpy as np
from numpy.typing import NDArray

from merveil.protocols.primitives.kdf import encode_fields

Floats = NDArray[np.float64]


def padded(dim: int) -> int:
    """The power of two at or above dim: coordinates that travel."""
    return 1 << (dim - 1).bit_length()


def signs(public: bytes, size: int) -> Floats:
    """+1 or -1, shape (size,): SHAKE-256 of the public bytes."""
    bits = hashlib.shake_256(encode_fields("dp/1/signs", public)).digest((size + 7) // 8)
    ones = np.unpackbits(np.frombuffer(bits, dtype=np.uint8), count=size)
    return np.asarray(1.0 - 2.0 * ones, dtype=np.float64)


def rotate(vector: Floats, public: bytes) -> Floats:
    """shape (dim,) -> shape (padded(dim),)."""
    size = padded(len(vector))
    out = np.zeros(size)
    out[: len(vector)] = vector
    return hadamard(out * signs(public, size))


def unrotate(vector: Floats, public: bytes, dim: int) -> Floats:
    """Inverse of `rotate`; also of sums, since both are linear."""
    return (hadamard(vector) * signs(public, len(vector)))[:dim]


def hadamard(vector: Floats) -> Floats:
    """The orthonormal Walsh-Hadamard transform of a vector whose length is a power of two."""
    out, width = np.array(vector, dtype=np.float64), 1
    while width < len(out):
        pairs = out.reshape(-1, 2, width)
        left = pairs[:, 0] + pairs[:, 1]
        np.subtract(pairs[:, 0], pairs[:, 1], out=pairs[:, 1])
        pairs[:, 0] = left
        width *= 2
    return out / math.sqrt(len(out))
