"""What convicts a dealer whose shares lie on no polynomial of degree t - 1, without showing one.

A dealer commits to each holder's share (a salted hash, a *node*) and answers a challenge that is a hash of
these: for random vectors rho it publishes the polynomial Z(x) = <rho, f(x)> + m(x), m being a random one of
degree t - 1 whose values travel with the shares. A holder checks Z at its own point. Shares of honest holders
that pass lie on one polynomial but for 2^-72 a try; Z says nothing of f, since m(0) is uniform to any t - 1
holders. That the polynomial's constant is the secret behind b is not shown: it would take a proof over
lattices. The argument is in ADR 0055.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from merveil.protocols.ckks import messages as msg
from merveil.protocols.ckks import ring, sampling
from merveil.protocols.ckks.constants import CIPHERTEXT_BYTES, DATA, PRIMES
from merveil.protocols.ckks.messages import REPEATS, SALT
from merveil.protocols.ckks.ring import Residues
from merveil.protocols.primitives.kdf import DIGEST, hash_fields
from merveil.protocols.rng import Rng

Scalars = tuple[tuple[int, ...], ...]  # REPEATS rows, a value for each data prime


def node(dealer: int, holder: int, plain: bytes) -> bytes:
    """Commitment to one box's content, which ends in its salt."""
    return hash_fields("ckks/1/share", msg.index_bytes((dealer, holder)), plain)


def challenge(sid: bytes, dealer: int, commitment: bytes, nodes: bytes) -> Residues:
    """rho, shape (REPEATS, 2, 4096): fixed by b and by every share."""
    seed = hash_fields("ckks/1/challenge", sid, msg.index_bytes((dealer,)), commitment, nodes)
    return sampling.uniform(sampling.Stream(seed), REPEATS, DATA)


def masks(threshold: int, rng: Rng) -> list[Scalars]:
    """Coefficients of the masking polynomials, lowest first."""
    stream = sampling.fresh(rng, "ckks/proof-mask")
    drawn = [sampling.below(stream, r, threshold * REPEATS).reshape(threshold, REPEATS) for r in range(DATA)]
    return _scalars(np.stack(drawn, axis=-1))


def _scalars(values: Residues) -> list[Scalars]:
    """values: (k, REPEATS, 2)."""
    return [tuple(map(tuple, rows)) for rows in values.tolist()]


def at(coefficients: Sequence[Scalars], x: int) -> Scalars:
    """Value of the polynomials at x."""
    rows = []
    for i in range(REPEATS):
        row = []
        for r, p in enumerate(PRIMES[:DATA]):
            value = 0
            for c in reversed(coefficients):
                value = (value * x + c[i][r]) % p
            row.append(value)
        rows.append(tuple(row))
    return tuple(rows)


def respond(polynomial: Residues, mask: Sequence[Scalars], rho: Residues) -> list[Scalars]:
    """Coefficients of Z. polynomial: those of f, shape (t, 2, 4096), lowest first."""
    found = ring.inner(polynomial, rho)
    return [_add(found[k], mask[k]) for k in range(len(mask))]


def _add(inner: Residues, mask: Scalars) -> Scalars:
    return tuple(
        tuple((int(v) + m) % p for v, m, p in zip(row, own, PRIMES[:DATA])) for row, own in zip(inner, mask)
    )


def fits(plain: bytes, share: Residues, holder: int, response: Sequence[Scalars], rho: Residues) -> bool:
    """Whether a share, and the mask's value in its box, lie on Z at the holder's point."""
    mask = decode_scalars(plain[CIPHERTEXT_BYTES:-SALT])
    return mask is not None and _add(ring.inner(share, rho)[0], mask[0]) == at(response, holder)


def nodes_of(dealer: int, plains: Mapping[int, bytes]) -> bytes:
    return b"".join(node(dealer, i, plains[i]) for i in sorted(plains))


def node_at(nodes: bytes, position: int) -> bytes:
    return nodes[DIGEST * position : DIGEST * (position + 1)]


def encode_scalars(values: Sequence[Scalars]) -> bytes:
    return b"".join(v.to_bytes(8, "big") for rows in values for row in rows for v in row)


def decode_scalars(data: bytes) -> list[Scalars] | None:
    """Inverse of `encode_scalars`; None where a value is not below its prime."""
    flat = np.frombuffer(data, dtype=">u8").reshape(-1, REPEATS, DATA)
    if (flat >= np.array(PRIMES[:DATA], dtype=np.uint64)).any():
        return None
    return _scalars(flat.astype(np.int64))
