"""Bodies of the messages of `lattice`, and the hashes over them; layouts in docs/wire.md."""

import enum
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from merveil.protocols.context import FINGERPRINT
from merveil.protocols.frame import Reader, malformed
from merveil.protocols.lattice.params import LatticeParams
from merveil.protocols.primitives.aead import OVERHEAD
from merveil.protocols.primitives.kdf import DIGEST, hash_fields
from merveil.protocols.primitives.sign import SIGNATURE

SUITE = 4
KEY = 32
HEAD = FINGERPRINT + KEY


class Kind(enum.IntEnum):
    """Message kinds in a frame's header."""

    UPLOAD = 1
    SURVIVORS = 2
    SIGNED = 3
    REQUEST = 4
    ANSWER = 5


class Upload(NamedTuple):
    """All that a client says: its ephemeral key, its ciphertext, and one sealed share a member, ascending."""

    fingerprint: bytes
    ephemeral: bytes
    ciphertext: bytes | memoryview
    boxes: bytes

    def encode(self) -> bytes:
        return b"".join(self)


def box_size(params: LatticeParams) -> int:
    return params.share_size + OVERHEAD


def upload_size(params: LatticeParams) -> int:
    return HEAD + params.layout.size + params.members * box_size(params)


def peek_fingerprint(body: bytes, sender: int) -> bytes:
    """The context fingerprint of a body that may belong to other parameters."""
    return Reader(body, sender).take(FINGERPRINT)


def decode_upload(params: LatticeParams, body: bytes, sender: int) -> Upload:
    if len(body) != upload_size(params):
        raise malformed("an upload of another length", sender)
    end = HEAD + params.layout.size
    view = memoryview(body)[HEAD:end]
    return Upload(body[:FINGERPRINT], body[FINGERPRINT:HEAD], view, body[end:])


class Dealt(NamedTuple):
    """One survivor's part for one member."""

    ephemeral: bytes
    box: bytes


def survivors_size(params: LatticeParams) -> int:
    """Most bytes of a SURVIVORS body."""
    return (params.cohort + 7) // 8 + params.cohort * (KEY + box_size(params))


def encode_survivors(bitmap: bytes, dealt: Sequence[Dealt]) -> bytes:
    return bitmap + b"".join(d.ephemeral + d.box for d in dealt)


def decode_survivors(
    params: LatticeParams, cohort: Sequence[int], body: bytes
) -> tuple[bytes, dict[int, Dealt]]:
    """(bitmap over the cohort's positions, what each survivor dealt to this member)."""
    reader, n = Reader(body, 0), len(cohort)
    bitmap = reader.take((n + 7) // 8)
    if n % 8 and bitmap[-1] >> (n % 8):
        raise malformed("the bitmap names positions beyond the cohort", 0)
    alive = [i for p, i in enumerate(cohort) if bitmap[p >> 3] >> (p & 7) & 1]
    dealt = {i: Dealt(reader.take(KEY), reader.take(box_size(params))) for i in alive}
    reader.end()
    return bitmap, dealt


def survivor_root(context: bytes, bitmap: bytes, ephemerals: Sequence[bytes]) -> bytes:
    """What members sign: who is in the sum, and the key by which each survivor dealt, ascending."""
    return hash_fields("lattice/1/survivors", context, bitmap, b"".join(ephemerals))


def encode_request(signatures: Mapping[int, bytes]) -> bytes:
    parts = [len(signatures).to_bytes(2, "big")]
    parts += [i.to_bytes(2, "big") + s for i, s in sorted(signatures.items())]
    return b"".join(parts)


def decode_request(body: bytes) -> dict[int, bytes]:
    reader = Reader(body, 0)
    found: dict[int, bytes] = {}
    last = 0
    for _ in range(reader.u16()):
        index = reader.u16()
        if index <= last:
            raise malformed("signers are not in ascending order", 0)
        found[index], last = reader.take(SIGNATURE), index
    reader.end()
    return found


def decode_signed(body: bytes, sender: int) -> bytes:
    reader = Reader(body, sender)
    root = reader.take(DIGEST)
    reader.end()
    return root
