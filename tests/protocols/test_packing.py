"""Packed residues against python integers, at every width and around every block edge."""

import numpy as np
import pytest

from merveil.protocols.primitives.packing import (
    pack,
    packed_size,
    tail_is_zero,
    unpack,
    unpack_blocks,
    word_type,
)

COUNTS = (1, 2, 7, 8, 63, 64, 65, 127, 128, 129, 1000)


def by_integers(values: list[int], bits: int) -> bytes:
    """The documented layout as one big little-endian number."""
    number = sum((v & (2**bits - 1)) << (i * bits) for i, v in enumerate(values))
    return number.to_bytes((len(values) * bits + 7) // 8, "little")


@pytest.mark.parametrize("bits", range(1, 65))
def test_every_width_equals_the_integer_form_and_inverts(bits: int) -> None:
    rng = np.random.default_rng(bits)
    for count in COUNTS:
        values = rng.integers(0, 2**64 - 1, count, dtype=np.uint64, endpoint=True) >> np.uint64(64 - bits)
        values[0], values[-1] = 2**bits - 1, 2**bits - 1
        data = pack(values, bits)
        assert data == by_integers([int(v) for v in values], bits)
        assert len(data) == packed_size(count, bits)
        back = unpack(data, count, bits)
        assert back.dtype == word_type(bits) and np.array_equal(back, values)
        assert np.array_equal(unpack(memoryview(data), count, bits), values)
        assert tail_is_zero(data, count, bits)


@pytest.mark.parametrize("bits", [17, 23, 32, 33, 47, 64])
def test_more_than_one_block(bits: int) -> None:
    count = 512 * 64 + 65
    values = np.arange(count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) & np.uint64(2**bits - 1)
    data = pack(values, bits)
    assert data == by_integers([int(v) for v in values], bits)
    blocks = unpack_blocks(data, count, bits)
    at = 0
    for start, part in blocks:
        assert start == at and np.array_equal(part, values[at : at + part.size])
        at += part.size
    assert at == count


@pytest.mark.parametrize("dtype", [np.uint32, np.uint64])
def test_bits_above_the_width_are_ignored(dtype: type) -> None:
    values = np.array([0xFFFF_FF05, 0x8000_0003], dtype=dtype)
    assert pack(values, 4) == b"\x35"


def test_packing_leaves_its_input_alone() -> None:
    values = np.arange(100, dtype=np.uint64)
    pack(values, 5)
    assert np.array_equal(values, np.arange(100, dtype=np.uint64))


@pytest.mark.parametrize(("count", "bits"), [(1, 1), (3, 5), (7, 19), (65, 23)])
def test_each_padding_bit_is_seen(count: int, bits: int) -> None:
    data = pack(np.zeros(count, dtype=np.uint64), bits)
    used = count * bits - 8 * (len(data) - 1)
    for bit in range(8):
        spoilt = data[:-1] + bytes((1 << bit,))
        assert tail_is_zero(spoilt, count, bits) is (bit < used)


def test_a_full_last_byte_has_no_padding() -> None:
    assert tail_is_zero(b"\xff", 2, 4)
