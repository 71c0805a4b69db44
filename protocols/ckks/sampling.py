"""Randomness of `ckks`: 32 bytes of the operating system, expanded by AES-128 in counter mode.

Nothing here comes from numpy's generators. Distributions: uniform residues (by rejection), ternary secrets
(by rejection), errors (centred binomial of 2 x 21 bits, SEAL's), and rounded normals for smudging.
"""

import hashlib
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES128
from cryptography.hazmat.primitives.ciphers.modes import CTR
from numpy.typing import NDArray

from merveil.protocols.ckks.constants import BITS, DEGREE, PRIMES
from merveil.protocols.ckks.ring import Residues, compiled
from merveil.protocols.primitives.kdf import hash_fields
from merveil.protocols.rng import Rng

_SPARE = 64
_STEP = 1 << 20  # values at a time, so that intermediate arrays stay small


class Stream:
    """One keystream, read front to back and never twice."""

    def __init__(self, key: bytes) -> None:
        digest = hashlib.sha256(key).digest()
        self._cipher = Cipher(AES128(digest[:16]), CTR(digest[16:])).encryptor()

    def words(self, count: int) -> NDArray[np.uint64]:
        return np.frombuffer(self._cipher.update(bytes(8 * count)), dtype="<u8")

    def bytes(self, count: int) -> NDArray[np.uint8]:
        return np.frombuffer(self._cipher.update(bytes(count)), dtype=np.uint8)


def fresh(rng: Rng, label: str) -> Stream:
    """A stream under a new seed of the operating system. label: the purpose, e.g. `ckks/smudging`."""
    return Stream(rng.draw(32, label))


def uniform(stream: Stream, count: int, rows: int) -> Residues:
    """Uniform residues, shape (count, rows, 4096)."""
    out = np.empty((count, rows, DEGREE), dtype=np.int64)
    for r in range(rows):
        out[:, r] = below(stream, r, count * DEGREE).reshape(count, DEGREE)
    return out


def below(stream: Stream, which: int, count: int) -> Residues:
    """`count` uniform residues of one prime."""
    p, bits = PRIMES[which], BITS[which]
    out = np.empty(count, dtype=np.int64)
    have = 0
    while have < count:
        have = _accept(
            out, have, stream.words(count - have + _SPARE), np.uint64((1 << bits) - 1), np.uint64(p)
        )
    return out


@compiled
def _accept(out: Any, have: Any, words: Any, mask: Any, p: Any) -> Any:
    """Fill `out` from `have` on with the masked words below p; how many it then holds."""
    for j in range(words.size):
        if have == out.size:
            break
        v = words[j] & mask
        if v < p:
            out[have] = np.int64(v)
            have += 1
    return have


def expand(key_id: bytes) -> Residues:
    """The common polynomial `a` in NTT form over all primes, shape (1, 3, 4096), from a 32-byte id."""
    return uniform(Stream(hash_fields("ckks/1/common", key_id)), 1, len(PRIMES))


def ternary(stream: Stream, count: int) -> Residues:
    """Coefficients uniform in {-1, 0, 1}, shape (count, 4096)."""
    total, have = count * DEGREE, 0
    out = np.empty(total, dtype=np.int64)
    while have < total:
        drawn = stream.bytes(total - have + total // 128 + _SPARE)
        good = drawn[drawn < 255][: total - have]
        out[have : have + good.size] = good % 3
        have += good.size
    return (out - 1).reshape(count, DEGREE)


def errors(stream: Stream, count: int) -> Residues:
    """Centred binomial of 21 minus 21 bits, standard deviation 3.24, shape (count, 4096)."""
    return binomial(stream.words(count * DEGREE)).reshape(count, DEGREE)


@compiled
def _binomial(out: Any, words: Any) -> None:
    """Set bits of the low 21 bits minus those of the next 21, by halves."""
    one, two, four, ten = np.uint64(1), np.uint64(2), np.uint64(4), np.uint64(16)
    for j in range(out.shape[0]):
        w = words[j]
        total = np.int64(0)
        for side in range(2):
            x = w & np.uint64(0x1FFFFF)
            x = x - ((x >> one) & np.uint64(0x155555))
            x = (x & np.uint64(0x133333)) + ((x >> two) & np.uint64(0x133333))
            x = (x + (x >> four)) & np.uint64(0x0F0F0F)
            ones = np.int64(((x * np.uint64(0x010101)) >> ten) & np.uint64(0xFF))
            total += ones if side == 0 else -ones
            w = w >> np.uint64(21)
        out[j] = total


def binomial(words: NDArray[np.uint64]) -> Residues:
    """21 coin flips minus 21 coin flips from each word."""
    out = np.empty(words.size, dtype=np.int64)
    _binomial(out, words)
    return out


def normals(stream: Stream, count: int, sigma: float) -> Residues:
    """Rounded normals of standard deviation `sigma`, shape (count, 4096), by Box-Muller on 53-bit uniforms.

    The uniforms end the tails at 8.6 sigma. A second, independent uniform of a thousandth of sigma smooths
    the float grid; it is added, so it can only bring two shifted distributions nearer.
    """
    total = count * DEGREE
    out = np.empty(total, dtype=np.int64)
    for at in range(0, total, _STEP):
        half = (min(_STEP, total - at) + 1) // 2
        words = stream.words(4 * half)
        u = ((words[:half] >> np.uint64(11)).astype(np.float64) + 1) * 2.0**-53
        turn = (words[half : 2 * half] >> np.uint64(11)).astype(np.float64) * (2 * np.pi * 2.0**-53)
        radius = sigma * np.sqrt(-2 * np.log(u))
        both = np.concatenate((radius * np.cos(turn), radius * np.sin(turn)))
        dither = (words[2 * half :] >> np.uint64(11)).astype(np.float64) * 2.0**-53 - 0.5
        values = np.rint(both + dither * (sigma / 1000)).astype(np.int64)
        out[at : at + 2 * half] = values[: total - at]
    return out.reshape(count, DEGREE)
