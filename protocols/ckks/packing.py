"""Residues to and from their packed words, compiled: the layout of `primitives.packing`, 64 values at a time.

A polynomial has 4,096 values, so b bits a value always fill whole words. Everything a round sends is packed
and unpacked once, which took a fifth of it in numpy.
"""

from typing import Any

import numpy as np

from merveil.protocols.ckks.ring import Residues, compiled


@compiled
def _pack(out: Any, values: Any, bits: Any) -> None:
    at, filled, word = 0, np.uint64(0), np.uint64(0)
    width = np.uint64(bits)
    for j in range(values.size):
        v = np.uint64(values[j])
        word |= v << filled
        filled += width
        if filled >= np.uint64(64):
            out[at] = word
            at += 1
            filled -= np.uint64(64)
            word = v >> (width - filled) if filled > np.uint64(0) else np.uint64(0)


@compiled
def _unpack(out: Any, words: Any, bits: Any) -> None:
    mask = (np.uint64(1) << np.uint64(bits)) - np.uint64(1)
    at, used = 0, np.uint64(0)
    width = np.uint64(bits)
    for j in range(out.size):
        v = words[at] >> used
        used += width
        if used >= np.uint64(64):
            at += 1
            used -= np.uint64(64)
            if used > np.uint64(0):
                v |= words[at] << (width - used)
        out[j] = np.int64(v & mask)


def pack(values: Residues, bits: int) -> bytes:
    """Residues below 2^bits, flat and a multiple of 64 in number, bits in 1..63, as little-endian words."""
    out = np.empty(values.size // 64 * bits, dtype=np.uint64)
    _pack(out, values, bits)
    return out.astype("<u8", copy=False).tobytes()


def unpack(out: Residues, data: bytes | memoryview, bits: int) -> None:
    """Inverse of `pack` into a contiguous array; the caller has checked the length."""
    words = np.frombuffer(data, dtype="<u8").astype(np.uint64, copy=False)
    _unpack(out, words, bits)
