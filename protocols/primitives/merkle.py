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


def levels(leaves: Sequence[bytes]) -> list[list[bytes]]:
    """All levels, leaves first, the root alone in the last."""
    row = list(leaves) + [ZERO] * ((1 << depth(len(leaves))) - len(leaves))
    tree = [row]
    while len(row) > 1:
        row = [node(row[i], row[i + 1]) for i in range(0, len(row), 2)]
        tree.append(row)
    return tree


def path(tree: Sequence[Sequence[bytes]], position: int, skip: int = 0) -> list[bytes]:
    """Siblings from level `skip` (where `position` counts) up to below the root."""
    found = []
    for row in tree[skip:-1]:
        found.append(row[position ^ 1])
        position >>= 1
    return found


def climb(start: bytes, position: int, siblings: Sequence[bytes]) -> bytes:
    """The root that a leaf or node at `position` and its siblings lead to."""
    for sibling in siblings:
        start = node(sibling, start) if position & 1 else node(start, sibling)
        position >>= 1
    return start
