"""Masks: AES-128 in counter mode (NIST SP 800-38A) as a stream of little-endian words.

A mask key is used for one mask. Word i of a mask is the i-th 4-byte (or 8-byte) word of the keystream whose
counter starts at zero; being a stream of blocks, any range can be produced alone. Words are added modulo 2^32
or 2^64, of which the sum's modulus 2^m is a divisor.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES128
from cryptography.hazmat.primitives.ciphers.modes import CTR
from numpy.typing import NDArray

from merveil.protocols.primitives.packing import word_type

KEY = 16
_BLOCK = 16
_CHUNK = 1 << 18  # bytes: keystream and accumulator stay in the second-level cache
_ZEROS = bytes(_CHUNK)

Words = NDArray[np.unsignedinteger[Any]]


def add_masks(total: Words, plus: Sequence[bytes], minus: Sequence[bytes], start: int = 0) -> None:
    """Add the masks of `plus` to `total` and subtract those of `minus`, in place, modulo the word.

    total: shape (count,), uint32 or uint64, contiguous. plus, minus: 16-byte keys. start: index of total's
    first word in the masks, a multiple of 16 bytes.
    """
    width = total.itemsize
    if start * width % _BLOCK:
        raise ValueError("a range of a mask starts at a block of 16 bytes")
    first = (start * width // _BLOCK).to_bytes(_BLOCK, "big")
    added = [Cipher(AES128(key), CTR(first)).encryptor() for key in plus]
    subtracted = [Cipher(AES128(key), CTR(first)).encryptor() for key in minus]
    buffer = bytearray(_CHUNK + _BLOCK)
    words = np.frombuffer(buffer, dtype=total.dtype, count=_CHUNK // width)
    step = _CHUNK // width
    for at in range(0, total.size, step):
        part = total[at : at + step]
        zeros = _ZEROS if part.size == step else _ZEROS[: part.size * width]
        mask = words[: part.size]
        for stream in added:
            stream.update_into(zeros, buffer)
            np.add(part, mask, out=part)
        for stream in subtracted:
            stream.update_into(zeros, buffer)
            np.subtract(part, mask, out=part)


def mask_range(bits: int, start: int, count: int, plus: Sequence[bytes], minus: Sequence[bytes]) -> Words:
    """Sum of masks over words start..start+count: a job that a process of the caller's executor can run."""
    total = np.zeros(count, dtype=word_type(bits))
    add_masks(total, plus, minus, start)
    return total


def ranges(count: int, parts: int, width: int) -> list[tuple[int, int]]:
    """Split 0..count into at most `parts` ranges (start, length) that begin at blocks of 16 bytes."""
    align = _BLOCK // width
    step = -(-count // parts)
    step = -(-step // align) * align
    return [(at, min(step, count - at)) for at in range(0, count, step)]
