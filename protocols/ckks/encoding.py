"""Codes to limbs to messages and back, in either encoding.

coefficients: a limb is a coefficient, 4,096 a ciphertext. The scale is a multiple of p0, so the message is
zero modulo p0 and is read off by integer division. slots: a limb is the value of the polynomial at a complex
root of unity, 2,048 a ciphertext, in SEAL's order; the transform costs 5.5 bits of noise and half the room.
Either way a limb comes back as the nearest integer, and what is left over is held against the noise bound.
Encoding to slots rounds, and its error tells of the message: `slots` bounds it, and `params` counts it among
the noise that smudging hides. Decoding is of smudged sums and takes ordinary floats.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from merveil.protocols.ckks import ring, slots
from merveil.protocols.ckks.constants import DATA, DEGREE, PRIMES
from merveil.protocols.ckks.params import CkksParams
from merveil.protocols.ckks.ring import Residues
from merveil.protocols.codec import Codes

_P0, _P1 = PRIMES[:DATA]


def to_limbs(params: CkksParams, codes: Codes) -> Residues:
    """Signed digits of the codes, zero-padded, shape (K, capacity). Limb i of value j is entry i*size + j."""
    found = params.layout
    out = np.zeros(found.ciphertexts * found.capacity, dtype=np.int64)
    rest, half = codes.copy(), 1 << (found.width - 1)
    for i in range(found.limbs):
        digit = rest
        if i < found.limbs - 1:
            high = (rest + half) >> found.width
            digit, rest = rest - (high << found.width), high
        out[i * params.size : (i + 1) * params.size] = digit
    return out.reshape(found.ciphertexts, found.capacity)


def from_limbs(params: CkksParams, limbs: Residues) -> Codes:
    """Sums of limbs to sums of codes, shape (size,)."""
    found, flat = params.layout, limbs.reshape(-1)
    total = np.zeros(params.size, dtype=np.int64)
    for i in range(found.limbs - 1, -1, -1):
        total = (total << found.width) + flat[i * params.size : (i + 1) * params.size]
    return total


def coefficients(params: CkksParams, limbs: Residues) -> tuple[Residues, tuple[int, ...]]:
    """(signed integers, shape (k, 4096), a factor for each data prime): their product is the plaintext.

    Sums of limbs, beyond what one client may send, are encoded on a coarser grid.
    """
    found = params.layout
    if not params.slots:
        return limbs, (0, found.delta * _P0 % _P1)
    largest = max(found.digit, int(np.abs(limbs).max()))
    whole, shift = slots.to_polynomial(limbs, largest, found.delta * _P0)
    return whole, tuple((1 << shift) % p for p in PRIMES[:DATA])


def message(params: CkksParams, limbs: Residues) -> Residues:
    """The plaintext of limbs, shape (k, capacity), in NTT form over the data primes: (k, 2, 4096)."""
    whole, factors = coefficients(params, limbs)
    out = ring.residues(whole, DATA)
    return ring.forward(ring.scale_add(out, factors, np.zeros_like(out)))


def read(params: CkksParams, plain: Residues) -> tuple[Residues, bool]:
    """(limbs, whether the noise is what it must be) from c0 + sum of answers, in NTT form.

    A wrong key leaves uniform noise, which is above the bound with certainty.
    """
    found = params.layout
    low, high = split(ring.inverse(plain.copy()))
    if params.slots:
        values = to_values(low + high.astype(np.float64) * _P0)
        steps = values / found.scale
        limbs = np.rint(steps).astype(np.int64)
        return limbs, bool(np.abs(steps - limbs).max() <= found.noise_bound / found.scale)
    limbs = np.asarray((2 * high + found.delta) // (2 * found.delta), dtype=np.int64)
    rest = np.abs(high - limbs * found.delta)
    return limbs, bool(rest.max() <= found.noise_bound / _P0 + 2)


def split(coefficients: Residues) -> tuple[Residues, Residues]:
    """x = low + p0*high of each coefficient, high centred: (k, 4096) each."""
    low = coefficients[:, :1]
    difference = coefficients[:, 1:] - np.where(low >= _P1, low - _P1, low)
    difference = np.where(difference < 0, difference + _P1, difference)
    factor = np.full((1, 1, DEGREE), pow(_P0, -1, _P1), dtype=np.int64)
    high = ring.multiply(difference, factor, 1)[:, 0]
    return low[:, 0], np.asarray(np.where(high > _P1 // 2, high - _P1, high), dtype=np.int64)


# Slots


@lru_cache(maxsize=1)
def roots() -> tuple[NDArray[np.intp], NDArray[np.complex128]]:
    """Where SEAL puts slot i (the root with exponent 3^i), and the twist from a cyclic transform to ours."""
    exponents = np.empty(DEGREE // 2, dtype=np.intp)
    power = 1
    for i in range(DEGREE // 2):
        exponents[i] = power
        power = power * 3 % (2 * DEGREE)
    return (exponents - 1) // 2, np.exp(1j * np.pi / DEGREE * np.arange(DEGREE))


def to_values(polynomials: NDArray[np.float64]) -> NDArray[np.float64]:
    """Slots of polynomials: (k, 4096) to (k, 2048)."""
    where, twist = roots()
    table = np.fft.ifft(polynomials * twist, axis=1) * DEGREE
    return np.asarray(table.real[:, where], dtype=np.float64)
