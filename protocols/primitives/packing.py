"""Residues modulo 2^m as a dense little-endian bit stream: m bits a value, the last byte zero-padded.

Value i occupies the bits [i*m, (i+1)*m) of the stream, bit j of the stream being bit j mod 8 of byte j div 8.
Sixty-four values fill exactly m 64-bit words, so whole groups are packed column by column.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.unsignedinteger[Any]]
_GROUP = 64
_BLOCK = 256  # groups at a time: 128 kB of 64-bit values, so that a block stays in the cache


def word_type(bits: int) -> type[np.uint32] | type[np.uint64]:
    """The narrowest word that holds residues of `bits` bits: uint32 up to 32, else uint64."""
    return np.uint32 if bits <= 32 else np.uint64


def packed_size(count: int, bits: int) -> int:
    """Bytes of `count` packed values."""
    return (count * bits + 7) // 8


def pack(values: Words, bits: int) -> bytes:
    """Pack residues, shape (count,), each below 2^bits (higher bits are ignored), bits in 1..64."""
    count = values.size
    groups = -(-count // _GROUP)
    out = np.empty((groups, bits), dtype="<u8")
    mask = np.uint64((1 << bits) - 1)
    for start in range(0, groups, _BLOCK):
        stop = min(start + _BLOCK, groups)
        part = np.zeros((stop - start) * _GROUP, dtype=np.uint64)
        piece = values[start * _GROUP : stop * _GROUP]
        np.bitwise_and(piece, mask, out=part[: piece.size], casting="unsafe", dtype=np.uint64)
        columns = np.ascontiguousarray(part.reshape(-1, _GROUP).T)
        words = np.zeros((bits, stop - start), dtype=np.uint64)
        for j in range(_GROUP):
            word, shift = divmod(j * bits, 64)
            words[word] |= columns[j] << np.uint64(shift)
            if shift + bits > 64:
                words[word + 1] |= columns[j] >> np.uint64(64 - shift)
        out[start:stop] = words.T
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
    kind = word_type(bits)
    mask = np.uint64((1 << bits) - 1)
    blocks: list[tuple[int, Words]] = []
    for start in range(0, groups, _BLOCK):
        words = np.ascontiguousarray(table[start : start + _BLOCK].T)
        columns = np.empty((_GROUP, words.shape[1]), dtype=np.uint64)
        for j in range(_GROUP):
            word, shift = divmod(j * bits, 64)
            np.right_shift(words[word], np.uint64(shift), out=columns[j])
            if shift + bits > 64:
                columns[j] |= words[word + 1] << np.uint64(64 - shift)
        columns &= mask
        values = columns.T.reshape(-1)[: count - start * _GROUP].astype(kind)
        blocks.append((start * _GROUP, values))
    return blocks


def tail_is_zero(data: bytes | memoryview, count: int, bits: int) -> bool:
    """Whether the padding bits of the last byte are zero: a canonical encoding has no other form."""
    spare = packed_size(count, bits) * 8 - count * bits
    return spare == 0 or data[-1] >> (8 - spare) == 0
