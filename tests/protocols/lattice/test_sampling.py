"""The Gaussian table against exact weights, and samples against the table."""

from decimal import Decimal, getcontext

import numpy as np

from merveil.protocols.lattice.constants import SIGMA
from merveil.protocols.lattice.kernels import gaussian
from merveil.protocols.lattice.sampling import Stream, fresh, gaussian_table, gaussians
from merveil.protocols.rng import SeededRng


def weights(count: int) -> list[Decimal]:
    getcontext().prec = 80
    ratio = 1 / (2 * Decimal(str(SIGMA)) ** 2)
    return [(-(ratio * k * k)).exp() * (2 if k else 1) for k in range(count)]


def test_the_table_is_the_cumulative_distribution_to_63_bits() -> None:
    w, table = weights(120), gaussian_table().tolist()
    total, under = sum(w), Decimal(0)
    for k, step in enumerate(table):
        under += w[k]
        assert abs(step - int(2**63 * under / total)) <= 1, k
    missed = sum(w[len(table) :]) / total
    assert 50 < len(table) < 62 and missed < Decimal(2) ** -57


def test_a_sample_is_the_number_of_steps_passed() -> None:
    table = gaussian_table()
    words = []
    for k in (0, 1, 5, 20, len(table) - 1):
        for u in (int(table[k]) - 1, int(table[k]), int(table[k]) + 1):
            words += [2 * u, 2 * u + 1]
    out = np.empty(len(words), dtype=np.int32)
    gaussian(out, np.array(words, dtype=np.uint64), table)
    for w, x in zip(words, out.tolist()):
        size = sum(w >> 1 >= int(t) for t in table)
        assert x == (-size if w & 1 else size)


def test_samples_have_the_stated_distribution() -> None:
    """Chi square over 41 values of 400,000 seeded samples; variance and mean besides."""
    x = gaussians(fresh(SeededRng(3), "x"), 400_000)
    w = weights(90)
    total = sum(w)
    chi = 0.0
    for k in range(-20, 21):
        p = float(w[abs(k)] / total) / (2 if k else 1)
        expected = 400_000 * p
        chi += (int((x == k).sum()) - expected) ** 2 / expected
    assert chi < 80, "the 99.99 % point of 41 degrees of freedom"
    assert abs(x.mean()) < 5 * SIGMA / 400_000**0.5
    assert abs(x.var() / SIGMA**2 - 1) < 5 * (2 / 400_000) ** 0.5


def test_a_stream_is_read_once_front_to_back() -> None:
    whole = Stream(b"k" * 32).words(200_000).tolist()
    parts = Stream(b"k" * 32)
    sizes = [4, 65_536, 8, 65_540, 60_000]
    assert [w for n in sizes for w in parts.words(n).tolist()] == whole[: sum(sizes)]
    assert Stream(b"k" * 32).longs(2).tolist() == [whole[0] | whole[1] << 32, whole[2] | whole[3] << 32]
