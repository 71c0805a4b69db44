"""Hashing and key derivation with domain separation.

Every hash, KDF and signature input starts with `merveil/<scheme>/<version>/<purpose>` and carries its fields
length-prefixed (4 bytes, big endian), so that no two different inputs encode alike. docs/wire.md lists the
purposes; tests/vectors holds known answers.
"""

import hashlib
import hmac
from functools import lru_cache

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

DIGEST = 32
_SIZES = [size.to_bytes(4, "big") for size in range(256)]


@lru_cache(maxsize=256)
def _tag(purpose: str) -> bytes:
    text = f"merveil/{purpose}".encode()
    return len(text).to_bytes(4, "big") + text


def encode_fields(purpose: str, *fields: bytes) -> bytes:
    """The canonical byte string of a purpose and its fields."""
    parts = [_tag(purpose)]
    for field in fields:
        size = len(field)
        parts.append(_SIZES[size] if size < 256 else size.to_bytes(4, "big"))
        parts.append(field)
    return b"".join(parts)


def hash_fields(purpose: str, *fields: bytes) -> bytes:
    """SHA-256 over the canonical encoding: 32 bytes. purpose: e.g. `secagg/1/sid`."""
    return hashlib.sha256(encode_fields(purpose, *fields)).digest()


def derive_key(secret: bytes, salt: bytes, purpose: str, *fields: bytes, length: int = DIGEST) -> bytes:
    """HKDF-SHA256 (RFC 5869) of `secret`, with the purpose and fields as info.

    salt: at least 16 bytes, here always a session id or context. length: output bytes, at most 8160.
    """
    info = encode_fields(purpose, *fields)
    return HKDF(algorithm=SHA256(), length=length, salt=salt, info=info).derive(secret)


def equal(left: bytes, right: bytes) -> bool:
    """Constant-time comparison."""
    return hmac.compare_digest(left, right)
