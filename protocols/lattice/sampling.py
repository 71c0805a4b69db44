"""Randomness of `lattice`: 32 bytes of the operating system, expanded by AES-128 in counter mode.

Public polynomials are expanded from the context in NTT form. Secrets and errors are discrete Gaussians, from
a table of cumulative weights with 63 bits: a sample is within 2^-57 of the true distribution.
"""

from fractions import Fraction
from functools import lru_cache

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES128
from cryptography.hazmat.primitives.ciphers.modes import CTR
from numpy.typing import NDArray

from merveil.protocols.lattice.constants import LANES, SIGMA
from merveil.protocols.lattice.kernels import gaussian
from merveil.protocols.primitives.kdf import hash_fields
from merveil.protocols.rng import Rng

_SPARE = 64
_POINT = 256
_CHUNK = 1 << 18
_ZEROS = memoryview(bytes(_CHUNK))


class Stream:
    """One keystream, read front to back and never twice. key: 32 bytes, AES key and first counter."""

    def __init__(self, key: bytes) -> None:
        self._cipher = Cipher(AES128(key[:16]), CTR(key[16:])).encryptor()

    def words(self, count: int) -> NDArray[np.uint32]:
        """Little-endian words that the caller may change."""
        out = np.empty(4 * count + 16, dtype=np.uint8)  # the cipher asks for a spare block
        for at in range(0, 4 * count, _CHUNK):
            zeros = _ZEROS[: 4 * count - at]
            self._cipher.update_into(zeros, out[at : at + len(zeros) + 16].data)
        return out[: 4 * count].view("<u4")

    def longs(self, count: int) -> NDArray[np.uint64]:
        return self.words(2 * count).view("<u8")


def fresh(rng: Rng, label: str) -> Stream:
    """A stream under a new seed of the operating system. label: the purpose, e.g. `lattice/error`."""
    return Stream(rng.draw(32, label))


def below(stream: Stream, count: int, p: int) -> NDArray[np.uint32]:
    """Uniform residues below p < 2^32, shape (count,).

    Words are cut to the prime's length; slots that hold p or more take, in ascending order, the next words of
    the stream that are below.
    """
    mask = np.uint32((1 << p.bit_length()) - 1)
    out = stream.words(count)
    out &= mask
    missing = np.flatnonzero(out >= p)
    while missing.size:
        drawn = stream.words(missing.size + _SPARE) & mask
        good = drawn[drawn < p][: missing.size]
        out[missing[: good.size]] = good
        missing = missing[good.size :]
    return out


def public(context: bytes, degree: int, groups: int, row: int, p: int) -> NDArray[np.uint32]:
    """The public polynomials modulo one prime in NTT form: flat, groups of N rows of 16 lanes.

    context: 32 bytes, never used for two rounds. row: the prime's place among the residues.
    """
    seed = hash_fields("lattice/1/public", context, bytes((row,)))
    return below(Stream(seed), groups * degree * LANES, p)


@lru_cache(maxsize=4)
def gaussian_table(sigma: float = SIGMA) -> NDArray[np.uint64]:
    """Steps T_1 < T_2 < ...: T_k = floor(2^63 P(|x| < k)), until a step reaches 2^63 - 1.

    Integers with 256 fractional bits throughout, so the table is the same everywhere.
    """
    base = _exp_minus(1 / (2 * Fraction(str(sigma)) ** 2))
    square, odd, weight = base * base >> _POINT, base, 1 << _POINT
    weights = [weight]
    while weight:
        weight = weight * odd >> _POINT  # exp(-(k+1)^2 x) = exp(-k^2 x) exp(-(2k+1) x)
        odd = odd * square >> _POINT
        weights.append(2 * weight)
    total, under, steps = sum(weights), 0, []
    for w in weights:
        under += w
        step = (under << 63) // total
        if step >= 2**63 - 1:
            break
        steps.append(step)
    return np.array(steps, dtype=np.uint64)


def _exp_minus(x: Fraction) -> int:
    """exp(-x) for 0 < x < 1 with 256 fractional bits, by its series."""
    term = total = 1 << _POINT
    k = 0
    while term:
        k += 1
        term = term * x.numerator // (x.denominator * k)
        total += -term if k % 2 else term
    return total


def gaussians(stream: Stream, count: int) -> NDArray[np.int32]:
    """Discrete Gaussians of deviation 6.4, shape (count,)."""
    out = np.empty(count, dtype=np.int32)
    gaussian(out, stream.longs(count), gaussian_table())
    return out
