"""AES-256-GCM (NIST SP 800-38D) for messages under single-use keys, and for sealed snapshots."""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

OVERHEAD = 16
NONCE = 12
_ZERO = b"\x00" * NONCE


def seal_once(key: bytes, plaintext: bytes, aad: bytes) -> bytes:
    """Encrypt under a key that encrypts this one message: the nonce is zero. Returns len + 16 bytes."""
    return AESGCM(key).encrypt(_ZERO, plaintext, aad)


def open_once(key: bytes, sealed: bytes, aad: bytes) -> bytes | None:
    """The plaintext, or None where key, data or AAD differ from what was sealed."""
    try:
        return AESGCM(key).decrypt(_ZERO, sealed, aad)
    except (InvalidTag, ValueError):
        return None


def seal(key: bytes, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
    """Encrypt under a long-lived key with a 12-byte nonce that the caller draws; the nonce is prepended."""
    return nonce + AESGCM(key).encrypt(nonce, plaintext, aad)


def unseal(key: bytes, blob: bytes, aad: bytes) -> bytes | None:
    """Inverse of `seal`, or None."""
    try:
        return AESGCM(key).decrypt(blob[:NONCE], blob[NONCE:], aad)
    except (InvalidTag, ValueError):
        return None
