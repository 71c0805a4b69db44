"""X25519 key agreement (RFC 7748) that refuses low-order points."""

from functools import lru_cache

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from merveil.protocols.errors import AbortCode, Aborted

KEY = 32


@lru_cache(maxsize=65536)
def _public(key: bytes) -> X25519PublicKey:
    return X25519PublicKey.from_public_bytes(key)


def public_bytes(key: X25519PrivateKey) -> bytes:
    """The 32-byte public key."""
    return key.public_key().public_bytes_raw()


def private_key(seed: bytes) -> X25519PrivateKey:
    """The private key of a 32-byte scalar seed (clamped as RFC 7748 says)."""
    return X25519PrivateKey.from_private_bytes(seed)


def agree(own: X25519PrivateKey, peer: bytes, culprit: int) -> bytes:
    """The shared secret, 32 bytes. Aborts with BAD_KEY, naming `culprit`, on an all-zero output."""
    try:
        secret = own.exchange(_public(peer))
    except ValueError as error:  # the library refuses an all-zero output, and keys of a wrong length
        raise Aborted(AbortCode.BAD_KEY, "low-order or malformed key", (culprit,)) from error
    return secret


def is_low_order(peer: bytes) -> bool:
    """Whether every agreement with this public key gives zero (a point of small order).

    Also true for an encoding that is not canonical: it would be a second name of another's key.
    """
    if len(peer) != KEY or int.from_bytes(peer, "little") >= 2**255 - 19:
        return True
    try:
        X25519PrivateKey.from_private_bytes(b"\x01" * KEY).exchange(X25519PublicKey.from_public_bytes(peer))
    except ValueError:
        return True
    return False
