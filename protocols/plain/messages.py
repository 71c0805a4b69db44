"""Body of the one message of `plain`.

nonce (32) | fingerprint (48) | packed residues, m bits each, little-endian bit order, padding zero.
"""

import numpy as np

from merveil.protocols.codec import Codes
from merveil.protocols.context import FINGERPRINT, Context
from merveil.protocols.frame import Reader, malformed
from merveil.protocols.params import Params
from merveil.protocols.primitives.packing import pack, packed_size, tail_is_zero, unpack

VECTOR = 1
NONCE = 32


def body_size(params: Params) -> int:
    return NONCE + FINGERPRINT + packed_size(params.size, params.modulus_bits)


def encode_vector(params: Params, context: Context, nonce: bytes, codes: Codes) -> bytes:
    residues = np.mod(codes, params.modulus).astype(np.uint64)
    return nonce + context.fingerprint + pack(residues, params.modulus_bits)


def decode_vector(params: Params, body: bytes, sender: int) -> tuple[bytes, bytes, Codes]:
    """(nonce, fingerprint, signed codes). RemoteError for a wrong length or a non-canonical encoding."""
    reader = Reader(body, sender)
    nonce, fingerprint = reader.take(NONCE), reader.take(FINGERPRINT)
    packed = reader.take(packed_size(params.size, params.modulus_bits))
    reader.end()
    if not tail_is_zero(packed, params.size, params.modulus_bits):
        raise malformed("padding is not zero", sender)
    codes = unpack(packed, params.size, params.modulus_bits).astype(np.int64)
    values = codes[: params.dim]
    values[values >= params.modulus // 2] -= params.modulus
    return nonce, fingerprint, codes


def peek_fingerprint(body: bytes, sender: int) -> bytes:
    """The context fingerprint of a body that may belong to other parameters."""
    reader = Reader(body, sender)
    reader.take(NONCE)
    return reader.take(FINGERPRINT)
