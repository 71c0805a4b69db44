"""Ed25519 signatures (RFC 8032) over domain-separated inputs."""

from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from merveil.protocols.primitives.kdf import encode_fields

SIGNATURE = 64
PUBLIC_KEY = 32


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
