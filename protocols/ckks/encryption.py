"""Keys, encryption, shares and joint decryption of `ckks`: pure functions over residues in NTT form.

Public key b = -(a*s + e) over three primes, `a` common to all clients, so that sums of b and of s belong
together. Encryption under (sum b, a) is SEAL's: v*(b, a) + e over three primes, divided by the third with
rounding, plus the message. Shares are Shamir's over each data prime, one polynomial of degree t - 1 for each
residue. Source: Mouchet et al., eprint 2020/304 and 2022/780 (Lagrange before the noise).
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from merveil.protocols.ckks import ring, sampling
from merveil.protocols.ckks.constants import DATA, DEGREE, PRIMES, SPECIAL
from merveil.protocols.ckks.params import DEVIATIONS, CkksParams
from merveil.protocols.ckks.ring import Residues
from merveil.protocols.codec import Codes
from merveil.protocols.rng import Rng

_ALL = len(PRIMES)


def key_pair(common: Residues, rng: Rng) -> tuple[Residues, Residues]:
    """(secret coefficients, shape (1, 4096) in {-1, 0, 1}; public b in NTT form, shape (1, 3, 4096))."""
    secret = sampling.ternary(sampling.fresh(rng, "ckks/secret"), 1)
    error = sampling.errors(sampling.fresh(rng, "ckks/key-error"), 1)
    public = ring.forward(ring.residues(error, _ALL))
    ring.multiply_add(public, common, ring.forward(ring.residues(secret, _ALL)))
    return secret, ring.negate(public)


def deal(secret: Residues, points: Sequence[int], threshold: int, rng: Rng) -> dict[int, Residues]:
    """Shares of a secret at the points (roster indices >= 1), each of shape (1, 2, 4096)."""
    constant = ring.forward(ring.residues(secret, DATA))
    higher = sampling.uniform(sampling.fresh(rng, "ckks/shares"), threshold - 1, DATA)
    shares = {}
    for x in points:
        value = np.zeros_like(constant)
        for k in range(threshold - 2, -1, -1):  # Horner from the highest coefficient
            ring.scale_add(value, (x, x), higher[k : k + 1])
        shares[x] = ring.scale_add(value, (x, x), constant)
    return shares


def lagrange(points: Sequence[int], own: int) -> tuple[int, ...]:
    """Coefficient of `own` at zero for the points, modulo each data prime."""
    found = []
    for p in PRIMES[:DATA]:
        over, under = 1, 1
        for x in points:
            if x != own:
                over, under = over * x % p, under * (x - own) % p
        found.append(over * pow(under, -1, p) % p)
    return tuple(found)


# Codes and limbs


def to_limbs(params: CkksParams, codes: Codes) -> Residues:
    """Signed digits of the codes, zero-padded, shape (K, 4096). Limb i of value j is entry i*size + j."""
    found = params.layout
    out = np.zeros(found.ciphertexts * DEGREE, dtype=np.int64)
    rest, half = codes.copy(), 1 << (found.width - 1)
    for i in range(found.limbs):
        if i == found.limbs - 1:
            digit = rest
        else:
            high = (rest + half) >> found.width
            digit, rest = rest - (high << found.width), high
        out[i * params.size : (i + 1) * params.size] = digit
    return out.reshape(found.ciphertexts, DEGREE)


def from_limbs(params: CkksParams, limbs: Residues) -> Codes:
    """Sums of limbs back to sums of codes, shape (size,)."""
    found, flat = params.layout, limbs.reshape(-1)
    total = np.zeros(params.size, dtype=np.int64)
    for i in range(found.limbs - 1, -1, -1):
        total = (total << found.width) + flat[i * params.size : (i + 1) * params.size]
    return total


# Encryption


@lru_cache(maxsize=1)
def _special() -> tuple[tuple[int, ...], tuple[int, ...]]:
    p = PRIMES[SPECIAL]
    return tuple(pow(p, -1, q) for q in PRIMES[:DATA]), tuple(p % q for q in PRIMES[:DATA])


def encrypt(
    joint: Residues, common: Residues, limbs: Residues, delta: int, rng: Rng
) -> tuple[Residues, Residues]:
    """Fresh encryption of limbs, shape (K, 4096), at scale delta*p0: (c0, c1), each (K, 2, 4096)."""
    count = limbs.shape[0]
    v = sampling.ternary(sampling.fresh(rng, "ckks/ephemeral"), count)
    hidden = ring.forward(ring.residues(v, _ALL))
    parts = []
    for key, label in ((joint, "ckks/error-0"), (common, "ckks/error-1")):
        error = sampling.errors(sampling.fresh(rng, label), count)
        parts.append(_divided(ring.multiply(hidden, key), error))
    _add_message(parts[0], limbs, delta)
    return parts[0], parts[1]


def _divided(product: Residues, error: Residues) -> Residues:
    """(product + error) / P rounded, product in NTT form over three primes, as (K, 2, 4096) in NTT form."""
    p = PRIMES[SPECIAL]
    low = ring.inverse(np.ascontiguousarray(product[:, SPECIAL:]), SPECIAL)[:, 0] + error
    low = np.where(low >= p, low - p, low)
    low = np.where(low > p // 2, low - p, low)  # centred: the remainder that the division leaves
    out = ring.forward(ring.residues(error - low, DATA))
    inverse = _special()[0]
    data = np.ascontiguousarray(product[:, :DATA])
    zero = np.zeros_like(out)
    return ring.scale_add(ring.add(out, data), inverse, zero)


def _add_message(c0: Residues, limbs: Residues, delta: int) -> None:
    """Add delta*p0*m, which is zero modulo p0."""
    p = PRIMES[1]
    factor = delta * PRIMES[0] % p
    m = ring.residues(limbs, 1, 1)
    scaled = ring.multiply(m, np.full((1, 1, DEGREE), factor, dtype=np.int64), 1)
    ring.forward(scaled, 1)
    part = c0[:, 1:2] + scaled
    c0[:, 1:2] = np.where(part >= p, part - p, part)


# Decryption


def partial(share: Residues, c1: Residues, coefficients: tuple[int, ...], sigma: float, rng: Rng) -> Residues:
    """One decryptor's answer: c1*(lambda*share) + fresh smudging, shape (K, 2, 4096)."""
    noise = sampling.normals(sampling.fresh(rng, "ckks/smudging"), c1.shape[0], sigma)
    answer = ring.forward(ring.residues(noise, DATA))
    weighted = ring.scale_add(share.copy(), coefficients, np.zeros_like(share))
    return ring.multiply_add(answer, c1, weighted)


def read(params: CkksParams, plain: Residues) -> tuple[Residues, bool]:
    """(limbs, whether the noise is what it must be) from c0 + sum of answers, in NTT form.

    The value is x = r0 + p0*k. Limb = k / delta rounded; what is left of k is the noise over p0, which for a
    wrong key is uniform.
    """
    found = params.layout
    coefficients = ring.inverse(plain.copy())
    p0, p1 = PRIMES[:DATA]
    low = coefficients[:, :1]
    difference = coefficients[:, 1:2] - np.where(low >= p1, low - p1, low)
    difference = np.where(difference < 0, difference + p1, difference)
    factor = np.full((1, 1, DEGREE), pow(p0, -1, p1), dtype=np.int64)
    k = ring.multiply(np.ascontiguousarray(difference), factor, 1)[:, 0]
    k = np.where(k > p1 // 2, k - p1, k)
    limbs = np.asarray((2 * k + found.delta) // (2 * found.delta), dtype=np.int64)
    rest = np.abs(k - limbs * found.delta)
    bound = DEVIATIONS * np.sqrt(params.threshold * found.smudging**2 + found.ciphertext_noise**2) / p0 + 2
    return limbs, bool(rest.max() <= bound)
