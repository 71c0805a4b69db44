"""Canonical bytes of a session's state: length-prefixed fields, so that no general unpickler is needed."""

from collections.abc import Sequence

from merveil.protocols.errors import AbortCode, Aborted, RemoteError
from merveil.protocols.frame import Reader


def pack_fields(fields: Sequence[bytes]) -> bytes:
    """Count (4 bytes), then each field with its length (8 bytes)."""
    parts = [len(fields).to_bytes(4, "big")]
    for f in fields:
        parts.append(len(f).to_bytes(8, "big"))
        parts.append(f)
    return b"".join(parts)


def unpack_fields(data: bytes, count: int | None = None) -> list[bytes]:
    """Inverse of `pack_fields`. Aborts with STATE_ROLLBACK on anything else, or another count."""
    reader = Reader(data, 0)
    try:
        found = reader.u32()
        if found > len(data) or (count is not None and found != count):
            raise Aborted(AbortCode.STATE_ROLLBACK, "the snapshot has another layout")
        fields = [reader.take(reader.u64()) for _ in range(found)]
        reader.end()
    except RemoteError as error:
        raise Aborted(AbortCode.STATE_ROLLBACK, "the snapshot is damaged") from error
    return fields
