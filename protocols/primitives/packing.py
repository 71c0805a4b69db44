"""Residues modulo 2^m as a dense little-endian bit stream: m bits a value, the last byte zero-padded.

Value i occupies the bits [i*m, (i+1)*m) of the stream, bit j of the stream being bit j mod 8 of byte j div 8.
Sixty-four values fill exactly m 64-bit words, so a group is the unit of work.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.unsignedinteger[Any]]
Index = NDArray[np.intp]
Shift = NDArray[np.uint64]
_GROUP = 64
_BLOCK = 512  # groups at a time: 256 kB of 64-bit values, so that a block stays in the cache


@lru_cache(maxsize=64)
def _plan(bits: int) -> tuple[Index, Shift, Shift, Index, Index]:
    """Where the 64 values of a group lie in its `bits` words.

    word and shift of each value's first bit, the complement 64 - shift, the first value that starts in each
    word, and the values that run over into the next word.
    """
    starts = np.arange(_GROUP) * bits
    word, shift = starts // 64, (starts % 64).astype(np.uint64)
    first = np.searchsorted(word, np.arange(bits))
    over = np.flatnonzero(starts % 64 + bits > 64)
    return word, shift, np.uint64(64) - shift, first, over


def word_type(bits: int) -> "np.dtype[np.unsignedinteger[Any]]":
    """The narrowest word that holds residues of `bits` bits: uint32 up to 32, else uint64."""
    return np.dtype(np.uint32) if bits <= 32 else np.dtype(np.uint64)


def packed_size(count: int, bits: int) -> int:
    """Bytes of `count` packed values."""
    return (count * bits + 7) // 8


def pack(values: Words, bits: int) -> bytes:
    """Pack residues, shape (count,), each below 2^bits (higher bits are ignored), bits in 1..64."""
    count = values.size
    groups = -(-count // _GROUP)
    word, shift, rest, first, over = _plan(bits)
    out = np.empty((groups, bits), dtype="<u8")
    mask = np.uint64((1 << bits) - 1)
    for start in range(0, groups, _BLOCK):
        stop = min(start + _BLOCK, groups)
        part = np.zeros((stop - start, _GROUP), dtype=np.uint64)
        piece = values[start * _GROUP : stop * _GROUP]
        part.reshape(-1)[: piece.size] = piece
        part &= mask
        words = np.add.reduceat(part << shift, first, axis=1)  # disjoint bits, so adding is or-ing
        if over.size:
            words[:, word[over] + 1] |= part[:, over] >> rest[over]
        out[start:stop] = words
    return out.tobytes()[: packed_size(count, bits)]


def unpack(data: bytes | memoryview, count: int, bits: int) -> Words:
    """Inverse of `pack`: shape (count,), dtype word_type(bits). The caller has checked the length."""
    out = np.empty(count, dtype=word_type(bits))
    for start, piece in unpack_blocks(data, count, bits):
        out[start : start + piece.size] = piece
    return out


def unpack_blocks(data: bytes | memoryview, count: int, bits: int) -> "list[tuple[int, Words]]":
    """The unpacked values block by block as (offset, values), so that a sum needs no second vector."""
    groups = -(-count // _GROUP)
    padded = np.zeros(groups * bits * 8, dtype=np.uint8)
    padded[: packed_size(count, bits)] = np.frombuffer(data, dtype=np.uint8)
    table = padded.view("<u8").reshape(groups, bits)
    word, shift, rest, _, over = _plan(bits)
    kind = word_type(bits)
    mask = np.uint64((1 << bits) - 1)
    blocks: list[tuple[int, Words]] = []
    for start in range(0, groups, _BLOCK):
        words = table[start : start + _BLOCK]
        part = words[:, word] >> shift
        if over.size:
            part[:, over] |= words[:, word[over] + 1] << rest[over]
        part &= mask
        values = part.reshape(-1)[: count - start * _GROUP].astype(kind)
        blocks.append((start * _GROUP, values))
    return blocks


def tail_is_zero(data: bytes | memoryview, count: int, bits: int) -> bool:
    """Whether the padding bits of the last byte are zero: a canonical encoding has no other form."""
    spare = packed_size(count, bits) * 8 - count * bits
    return spare == 0 or data[-1] >> (8 - spare) == 0
