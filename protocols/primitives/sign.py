"""Ed25519 signatures (RFC 8032) over domain-separated inputs."""

from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from merveil.protocols.primitives.kdf import encode_fields

SIGNATURE = 64
PUBLIC_KEY = 32
_P = 2**255 - 19
# y of the points whose order divides 8 (RFC 8032's curve): 1, -1, 0, and +-y8 with y8 of order 8
_Y8 = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
_LOW_ORDER = frozenset((0, 1, _P - 1, _Y8, _P - _Y8))


@lru_cache(maxsize=65536)
def _public(key: bytes) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(key)


def sign(key: Ed25519PrivateKey, purpose: str, *fields: bytes) -> bytes:
    """A 64-byte signature over the canonical encoding of purpose and fields."""
    return key.sign(encode_fields(purpose, *fields))


def verify(key: bytes, signature: bytes, purpose: str, *fields: bytes) -> bool:
    """Whether `signature` is one of the 32-byte public key over purpose and fields."""
    if len(key) != PUBLIC_KEY or len(signature) != SIGNATURE:
        return False
    try:
        _public(key).verify(signature, encode_fields(purpose, *fields))
    except (InvalidSignature, ValueError):  # ValueError: bytes that are no curve point
        return False
    return True


def is_low_order(key: bytes) -> bool:
    """Whether a public key is of small order, under which anyone can sign, or is no canonical encoding."""
    y = int.from_bytes(key, "little") & (2**255 - 1)
    return len(key) != PUBLIC_KEY or y >= _P or y in _LOW_ORDER
