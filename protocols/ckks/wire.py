"""Polynomials on the wire: residues bit-packed, prime after prime, each below its prime, in NTT form.

The length follows from the parameters alone; there is no level, scale, flag or compression to lie about, and
no byte of a peer reaches a foreign parser. 64 residues of b bits fill b words of 8 bytes, so there is no
padding.
"""

from collections.abc import Sequence

import numpy as np

from merveil.protocols.ckks.constants import BITS, DEGREE, PRIMES
from merveil.protocols.ckks.packing import pack, unpack
from merveil.protocols.ckks.ring import Residues
from merveil.protocols.errors import AbortCode, RemoteError


def polynomials_size(count: int, rows: int) -> int:
    """Bytes of `count` polynomials over the first `rows` primes."""
    return count * DEGREE // 8 * sum(BITS[:rows])


def encode_polynomials(x: Residues) -> bytes:
    """Canonical bytes of residues, shape (count, rows, 4096)."""
    flat = (np.ascontiguousarray(x[:, r]).reshape(-1) for r in range(x.shape[1]))
    return b"".join(pack(part, BITS[r]) for r, part in enumerate(flat))


def decode_polynomials(data: bytes | memoryview, count: int, rows: int, sender: int) -> Residues:
    """Inverse of `encode_polynomials`; RemoteError BAD_CIPHERTEXT for another length or a residue >= p."""
    if len(data) != polynomials_size(count, rows):
        raise RemoteError("polynomials of a wrong length", (sender,), AbortCode.BAD_CIPHERTEXT)
    out = np.empty((count, rows, DEGREE), dtype=np.int64)
    at = 0
    for r in range(rows):
        end = at + count * DEGREE // 8 * BITS[r]
        flat = np.empty(count * DEGREE, dtype=np.int64)
        unpack(flat, memoryview(data)[at:end], BITS[r])
        out[:, r] = flat.reshape(count, DEGREE)
        if flat.max() >= PRIMES[r]:
            raise RemoteError("a residue is not below its prime", (sender,), AbortCode.BAD_CIPHERTEXT)
        at = end
    return out


def check_opaque(parts: Sequence[Residues] | Residues, sender: int) -> None:
    """Refuse a ciphertext whose second polynomial is zero modulo a prime: its message is in clear."""
    for x in parts:
        if not x.any(axis=-1).all():
            raise RemoteError("a ciphertext is transparent", (sender,), AbortCode.BAD_CIPHERTEXT)
