"""Codes to limbs to messages and back, in either encoding.

coefficients: a limb is a coefficient, 4,096 a ciphertext. The scale is a multiple of p0, so the message is
zero modulo p0 and is read off by integer division. slots: a limb is the value of the polynomial at a complex
root of unity, 2,048 a ciphertext, in SEAL's order; the transform costs 5.5 bits of noise and half the room.
Either way a limb comes back as the nearest integer, and what is left over is held against the noise bound.
Encoding to slots rounds, and its error tells of the message; it is computed in 80-bit floats, so that the
error stays far below the noise that smudging hides.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from merveil.protocols.ckks import ring
from merveil.protocols.ckks.constants import DATA, DEGREE, PRIMES
from merveil.protocols.ckks.params import CkksParams
from merveil.protocols.ckks.ring import Residues
from merveil.protocols.codec import Codes
from merveil.protocols.errors import LocalError

_P0, _P1 = PRIMES[:DATA]
_WORD = 1 << 32
Long = NDArray[np.longdouble]


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


def message(params: CkksParams, limbs: Residues) -> Residues:
    """The plaintext of limbs, shape (k, capacity), in NTT form over the data primes: (k, 2, 4096)."""
    if params.slots:
        return _from_float(to_polynomial(limbs) * np.longdouble(params.layout.scale))
    out = np.zeros((limbs.shape[0], DATA, DEGREE), dtype=np.int64)
    factor = np.full((1, 1, DEGREE), params.layout.delta * _P0 % _P1, dtype=np.int64)
    out[:, 1:] = ring.forward(ring.multiply(ring.residues(limbs, 1, 1), factor, 1), 1)
    return out


def read(params: CkksParams, plain: Residues) -> tuple[Residues, bool]:
    """(limbs, whether the noise is what it must be) from c0 + sum of answers, in NTT form.

    A wrong key leaves uniform noise, which is above the bound with certainty.
    """
    found = params.layout
    low, high = split(ring.inverse(plain.copy()))
    if params.slots:
        values = to_values(low + high.astype(np.longdouble) * _P0)
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
def roots() -> tuple[NDArray[np.intp], NDArray[np.clongdouble]]:
    """Where SEAL puts slot i (the root with exponent 3^i), and the twist from a cyclic transform to ours.

    LocalError where numpy has no transform in extended precision.
    """
    probe = np.fft.fft(np.ones(2, dtype=np.clongdouble))
    if probe.dtype != np.clongdouble or np.finfo(np.longdouble).nmant < 63:
        raise LocalError("slots need numpy 2 and 80-bit floats (x86): use the coefficient encoding")
    exponents = np.empty(DEGREE // 2, dtype=np.intp)
    power = 1
    for i in range(DEGREE // 2):
        exponents[i] = power
        power = power * 3 % (2 * DEGREE)
    turn = np.arange(DEGREE, dtype=np.longdouble) * (4 * np.arctan(np.longdouble(1)) / DEGREE)
    return (exponents - 1) // 2, np.asarray(np.cos(turn) + 1j * np.sin(turn), dtype=np.clongdouble)


def to_polynomial(values: NDArray[np.int64] | NDArray[np.float64]) -> Long:
    """Real coefficients of the polynomial with these slots: (k, 2048) to (k, 4096)."""
    where, twist = roots()
    table = np.zeros((values.shape[0], DEGREE), dtype=np.clongdouble)
    table[:, where] = values
    table[:, DEGREE - 1 - where] = values  # conjugate roots
    return np.asarray((np.fft.fft(table, axis=1) / DEGREE / twist).real, dtype=np.longdouble)


def to_values(coefficients: Long | NDArray[np.float64]) -> NDArray[np.float64]:
    """Slots of polynomials: (k, 4096) to (k, 2048)."""
    where, twist = roots()
    table = np.fft.ifft(coefficients * twist, axis=1) * DEGREE
    return np.asarray(table.real[:, where], dtype=np.float64)


def _from_float(coefficients: Long) -> Residues:
    """Integers up to 2^80 held in floats, to residues in NTT form."""
    whole = np.rint(coefficients)
    high = np.floor(whole / _WORD)
    low = whole - high * _WORD
    out = ring.residues(high.astype(np.int64), DATA)
    ring.scale_add(out, tuple(_WORD % p for p in PRIMES[:DATA]), ring.residues(low.astype(np.int64), DATA))
    return ring.forward(out)
