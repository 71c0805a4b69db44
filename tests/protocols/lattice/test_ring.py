"""Compiled arithmetic against plain integers."""

import math
from typing import Any

import numpy as np
import pytest

from merveil.protocols.lattice import encryption, kernels, ring
from merveil.protocols.lattice.constants import CAPS
from merveil.protocols.lattice.params import choose_primes, make_digits, make_layout
from merveil.protocols.lattice.sampling import below, public
from merveil.protocols.rng import SeededRng

PRIMES = [(n, p) for n in CAPS for p in (choose_primes(n, 1 << CAPS[n] - 1)[0], choose_primes(n, 1 << 20)[0])]


def uniform(seed: int, count: int, p: int) -> np.ndarray:
    return np.frombuffer(SeededRng(seed).draw(8 * count, "uniform"), dtype="<u8") % np.uint64(p)


@pytest.mark.parametrize(("degree", "p"), PRIMES)
def test_a_transform_is_the_values_at_the_odd_powers_of_the_least_root(degree: int, p: int) -> None:
    x = uniform(1, degree, p).astype(np.uint32)
    coefficients, bits = x.tolist(), degree.bit_length() - 1
    t = ring.table(degree, p)
    ring._forward(x, t.up, t.up_quotients, p)
    psi = ring.least_root(degree, p)
    assert pow(psi, degree, p) == p - 1
    for i in (0, 1, 2, degree // 2 - 1, degree - 1):
        at = pow(psi, 2 * int(f"{i:0{bits}b}"[::-1], 2) + 1, p)
        value = 0
        for c in reversed(coefficients):
            value = (value * at + c) % p
        assert int(x[i]) == value


@pytest.mark.parametrize(("degree", "p"), PRIMES)
def test_multiply_is_the_product_modulo_the_ring(degree: int, p: int, oracle: Any) -> None:
    """Values in NTT form times a signed secret, all sixteen lanes, two groups."""
    secret = (uniform(2, degree, 81).astype(np.int64) - 40) * (np.arange(degree) % 3 != 1)
    polynomials = [uniform(10 + k, degree, p).astype(np.uint32) for k in range(32)]
    t = ring.table(degree, p)
    flat = np.empty((2, degree, 16), dtype=np.uint32)
    for k, x in enumerate(polynomials):
        form = x.copy()
        ring._forward(form, t.up, t.up_quotients, p)
        flat[k // 16, :, k % 16] = form
    found = ring.multiply(flat.reshape(-1), ring.secret_factors(degree, p, secret), degree, p)
    layout = make_layout(make_digits(5, 7, 1, 0), 5, degree, 1)
    for k in (0, 7, 15, 16, 31):
        got = oracle.lanes_of(layout, found)[k]
        assert got == oracle.negacyclic(polynomials[k].tolist(), secret.tolist(), p)


@pytest.mark.parametrize("p", [choose_primes(8192, 1 << 214)[0], choose_primes(2048, 1 << 16)[0]])
def test_the_edges_of_a_residue(p: int) -> None:
    """Factors and values at 0, 1 and p - 1, where corrections wrap."""
    degree = 2048 if p < 1 << 20 else 8192
    edge = np.array([0, 1, p - 1, p // 2, p // 2 + 1], dtype=np.uint32)
    x = np.resize(edge, degree * 16).astype(np.uint32)
    factors = np.resize(edge[::-1], degree).astype(np.uint32)
    expected = [int(a) * int(b) * pow(2**32, -1, p) % p for a, b in zip(x, np.repeat(factors, 16))]
    ring._multiply_lanes(x, factors, p, pow(p, -1, 2**32), 16)
    assert x.tolist() == expected


def test_public_polynomials_are_the_documented_stream(make: Any) -> None:
    """Rejection by the page: slots that hold too much take the next words that do not."""
    p = choose_primes(2048, 1 << 16)[0]  # a sixteenth of the words is rejected
    found = public(bytes(32), 2048, 1, 3, p)
    from merveil.protocols.lattice.sampling import Stream
    from merveil.protocols.primitives.kdf import hash_fields

    seed = hash_fields("lattice/1/public", bytes(32), bytes((3,)))
    mask, count = (1 << p.bit_length()) - 1, 2048 * 16
    stream = Stream(seed)
    words = [int(w) & mask for w in stream.words(count)]
    slots = [i for i, w in enumerate(words) if w >= p]
    assert len(slots) > 500
    while slots:
        extra = [w for w in (int(w) & mask for w in stream.words(len(slots) + 64)) if w < p]
        for slot, w in zip(slots, extra):
            words[slot] = w
        slots = slots[len(extra) :]
    assert found.tolist() == words
    assert below(Stream(seed), 0, p).size == 0


CASES = [
    (5, 7, 16, 1), (6, 200, 4, 15), (7, 65, 40, 1), (5, 64, 32, 9), (11, 3, 5, 2), (3, 40_000, 16, 1),
    (60_000, 33, 40, 65_535), (100, 2_000, 16, 1), (1_000, 500, 24, 3),
]  # fmt: skip


@pytest.mark.parametrize(("cohort", "dim", "bits", "weight"), CASES)
def test_a_ciphertext_is_what_plain_integers_say(
    cohort: int, dim: int, bits: int, weight: int, make: Any, oracle: Any, rng: SeededRng
) -> None:
    """c - a s, lifted by the Chinese remainder theorem, is e + the mixed radix of the digits."""
    p = make(cohort, dim, bits=bits, max_weight=weight)
    layout, digits = p.layout, p.digits
    codes = (uniform(5, p.size, 2 * p.levels + 1)).astype(np.int64) - p.levels
    codes[0], codes[dim - 1] = p.levels, -p.levels
    if p.weighted:
        codes[-1] = weight
    key = encryption.Key.draw(p.degree, rng)
    secret = key.peek().tolist()
    data = encryption.mask(p, bytes(range(32)), key, codes, rng)
    assert len(data) == layout.size
    values, offset = encryption.to_digits(p, codes)
    flat = [int(v) + offset for v in values] + [0] * (layout.values * layout.count - digits.total)
    assert all(0 <= d < digits.base for d in flat)
    whole, at, positions = math.prod(layout.primes), 0, layout.count // 16
    lifted = [0] * 16
    for row, (prime, width) in enumerate(zip(layout.primes, layout.bits)):
        size = 64 * -(-positions * width // 32)
        part = oracle.unpack_residues(data[at : at + size], positions, width)
        at += size
        assert max(part) < prime
        unit = whole // prime * pow(whole // prime, -1, prime)
        form = public(bytes(range(32)), p.degree, layout.groups, row, prime)
        masks = ring.multiply(form, ring.secret_factors(p.degree, prime, np.array(secret)), p.degree, prime)
        for m in range(16):
            lifted[m] += (part[m] - int(masks[m])) * unit
    for m in range(16):
        x = (lifted[m] + layout.error) % whole
        e, rest = x % layout.step - layout.error, x // layout.step
        assert abs(e) < 9 * 6.4
        for i in range(layout.values):
            rest, digit = divmod(rest, digits.radix)
            assert digit == flat[i * layout.count + m]
        assert rest == 0


def test_packed_lanes_are_bit_streams(oracle: Any) -> None:
    for bits in (13, 17, 25, 31):
        for positions in (1, 2, 31, 32, 33):
            x = uniform(bits, 16 * positions, 1 << bits).astype(np.uint32)
            data = bytes(encryption.pack(x, bits))
            assert oracle.unpack_residues(data, positions, bits) == x.tolist()
            words = np.frombuffer(data, dtype="<u4")
            assert kernels.largest_lanes(words, positions, bits, 16) == (x.max(), 0)
            total = uniform(bits + 1, 16 * positions, (1 << bits) - 1).astype(np.uint32)
            x = np.minimum(x, (1 << bits) - 2).astype(np.uint32)
            expected = ((total.astype(int) + x) % ((1 << bits) - 1)).tolist()
            kernels.add_lanes(
                total, np.frombuffer(bytes(encryption.pack(x, bits)), "<u4"), bits, (1 << bits) - 1, 16
            )
            assert total.tolist() == expected


def test_padding_bits_are_seen() -> None:
    x = np.zeros(16 * 3, dtype=np.uint32)
    words = np.frombuffer(encryption.pack(x, 13), dtype="<u4").copy()
    words[-1] = 1 << 31
    assert kernels.largest_lanes(words, 3, 13, 16) == (0, 1 << 24)


@pytest.mark.parametrize("dim", [1, 15, 16, 17, 300, 5_000])
def test_the_top_of_every_digit_survives_a_full_cohort(dim: int, make: Any, rng: SeededRng) -> None:
    """Everybody at the edge of the grid, the error at the edge of its bound: nothing wraps."""
    for sign in (1, -1):
        p = make(9, dim, bits=16)
        total, secret = encryption.Total(p.layout), np.zeros(p.degree, dtype=np.int64)
        codes = np.full(p.size, sign * p.levels, dtype=np.int64)
        for _ in range(9):
            key = encryption.Key.draw(p.degree, rng)
            secret += key.peek()
            total.add(encryption.residues(p.layout, encryption.mask(p, bytes(32), key, codes, rng)))
        for row, q in zip(total.rows, p.layout.primes):  # move every error near plus or minus nine deviations
            shift = sign * int(9 * 6.4 * 3 - 5 * 6.4 * 3)
            row[:] = (row.astype(np.int64) + shift) % q
        found = encryption.open_sum(p, bytes(32), total, secret, 9)
        assert (found == 9 * codes).all()
