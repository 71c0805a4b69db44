"""Merkle trees over 32-byte leaves (SHA-256), padded with zeros to a power of two.

Inner nodes are hashed under their own tag, so a node cannot pass for a leaf; the number of leaves is fixed by
the protocol, never read from the wire.
"""

import hashlib
from collections.abc import Sequence

from merveil.protocols.primitives.kdf import DIGEST, encode_fields

ZERO = bytes(DIGEST)
_NODE = encode_fields("merkle/1/node")


def node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(_NODE + left + right).digest()


def depth(leaves: int) -> int:
    """Levels above the leaves: the length of a path."""
    return (leaves - 1).bit_length()


def size(leaves: int) -> int:
    """Bytes of a flat tree."""
    return DIGEST * ((2 << depth(leaves)) - 1)


def flat_tree(leaves: Sequence[bytes]) -> bytes:
    """All levels one after the other, leaves first, the root last: 32 bytes a node."""
    row = list(leaves) + [ZERO] * ((1 << depth(len(leaves))) - len(leaves))
    parts = [b"".join(row)]
    while len(row) > 1:
        row = [node(row[i], row[i + 1]) for i in range(0, len(row), 2)]
        parts.append(b"".join(row))
    return b"".join(parts)


def root(tree: bytes) -> bytes:
    return tree[-DIGEST:]


def leaf(tree: bytes, position: int) -> bytes:
    return tree[DIGEST * position : DIGEST * (position + 1)]


def path(tree: bytes, position: int) -> bytes:
    """Siblings from the leaves up to below the root, joined."""
    width = (len(tree) // DIGEST + 1) // 2
    found, start = [], 0
    while width > 1:
        at = DIGEST * (start + (position ^ 1))
        found.append(tree[at : at + DIGEST])
        start, width, position = start + width, width // 2, position >> 1
    return b"".join(found)


def climb(start: bytes, position: int, siblings: bytes) -> bytes:
    """The root that a leaf at `position` and its joined siblings lead to."""
    for at in range(0, len(siblings), DIGEST):
        sibling = siblings[at : at + DIGEST]
        pair = sibling + start if position & 1 else start + sibling
        start = hashlib.sha256(_NODE + pair).digest()
        position >>= 1
    return start
