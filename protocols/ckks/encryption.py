"""Keys, encryption, shares and joint decryption of `ckks`: pure functions over residues in NTT form.

Public key b = -(a*s + e) over three primes, `a` common to all clients, so that sums of b and of s belong
together. Encryption under (sum b, a) is SEAL's: v*(b, a) + e over three primes, divided by the third with
rounding, plus the message. Shares are Shamir's over each data prime, one polynomial of degree t - 1 for each
residue. Source: Mouchet et al., eprint 2020/304 and 2022/780 (Lagrange before the noise).
"""

from collections.abc import Sequence

import numpy as np

from merveil.protocols.ckks import encoding, ring, sampling
from merveil.protocols.ckks.constants import DATA, DEGREE, PRIMES, SPECIAL
from merveil.protocols.ckks.params import CkksParams
from merveil.protocols.ckks.ring import Residues
from merveil.protocols.rng import Rng

_ALL = len(PRIMES)


def key_pair(common: Residues, rng: Rng) -> tuple[Residues, Residues]:
    """(secret coefficients, shape (1, 4096) in {-1, 0, 1}; public b in NTT form, shape (1, 3, 4096))."""
    secret = sampling.ternary(sampling.fresh(rng, "ckks/secret"), 1)
    error = sampling.errors(sampling.fresh(rng, "ckks/key-error"), 1)
    public = ring.forward(ring.residues(error, _ALL))
    ring.multiply_add(public, common, ring.forward(ring.residues(secret, _ALL)))
    return secret, ring.negate(public)


def polynomial(secret: Residues, threshold: int, rng: Rng) -> Residues:
    """Coefficients of the sharing polynomials, lowest first, shape (threshold, 2, 4096)."""
    constant = ring.forward(ring.residues(secret, DATA))
    higher = sampling.uniform(sampling.fresh(rng, "ckks/shares"), threshold - 1, DATA)
    return np.concatenate((constant, higher))


def share_at(coefficients: Residues, x: int) -> Residues:
    """The share at a point (a roster index >= 1), shape (1, 2, 4096)."""
    value = np.zeros_like(coefficients[:1])
    for k in range(coefficients.shape[0] - 1, -1, -1):  # Horner from the highest coefficient
        ring.scale_add(value, (x, x), coefficients[k : k + 1])
    return value


def deal(secret: Residues, points: Sequence[int], threshold: int, rng: Rng) -> dict[int, Residues]:
    """Shares of a secret at the points, each of shape (1, 2, 4096)."""
    coefficients = polynomial(secret, threshold, rng)
    return {x: share_at(coefficients, x) for x in points}


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


# Encryption


_INVERSES = tuple(pow(PRIMES[SPECIAL], -1, q) for q in PRIMES[:DATA])
_AT_ONCE = 4  # ciphertexts, so that what is worked on stays in the cache


def encrypt(
    joint: Residues, common: Residues, params: CkksParams, limbs: Residues, rng: Rng
) -> tuple[Residues, Residues]:
    """Fresh encryption of limbs, as `to_limbs` lays them out: (c0, c1), each (K, 2, 4096) in NTT form."""
    count = limbs.shape[0]
    out = np.empty((2, count, DATA, DEGREE), dtype=np.int64)
    labels = ("ckks/ephemeral", "ckks/error-0", "ckks/error-1")
    hiding, *noise = (sampling.fresh(rng, label) for label in labels)
    for at in range(0, count, _AT_ONCE):
        part = slice(at, min(at + _AT_ONCE, count))
        v = sampling.ternary(hiding, part.stop - at)
        hidden = ring.forward(ring.residues(v, _ALL))
        for i, key in enumerate((joint, common)):
            error = sampling.errors(noise[i], part.stop - at)
            said = None if i else encoding.coefficients(params, limbs[part])
            out[i, part] = ring.divide(ring.multiply(hidden, key), error, SPECIAL, _INVERSES, said)
    return out[0], out[1]


# Decryption


def partial(share: Residues, c1: Residues, coefficients: tuple[int, ...], sigma: float, rng: Rng) -> Residues:
    """One decryptor's answer: c1*(lambda*share) + fresh smudging, shape (K, 2, 4096)."""
    noise = sampling.normals(sampling.fresh(rng, "ckks/smudging"), c1.shape[0], sigma)
    answer = ring.forward(ring.residues(noise, DATA))
    weighted = ring.scale_add(share.copy(), coefficients, np.zeros_like(share))
    return ring.multiply_add(answer, c1, weighted)
