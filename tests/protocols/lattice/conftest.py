"""Plain-integer oracles and small federations for the scheme's own tests."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from merveil.protocols.lattice import Lattice
from merveil.protocols.lattice.params import LatticeParams, Layout
from merveil.protocols.rng import SeededRng


def negacyclic(a: list[int], b: list[int], p: int) -> list[int]:
    """a*b modulo X^N + 1 and p, by one product of long integers (Kronecker's substitution)."""
    n, width = len(a), 96

    def whole(x: list[int]) -> int:
        return sum(v << (width * i) for i, v in enumerate(x))

    product, mask = whole([v % p for v in a]) * whole([v % p for v in b]), (1 << width) - 1
    long = [(product >> (width * i)) & mask for i in range(2 * n)]
    return [(long[i] - long[i + n]) % p for i in range(n)]


def lanes_of(layout: Layout, flat: np.ndarray) -> list[list[int]]:
    """The polynomials in a flat array of whole groups: [16 g + lane][coefficient]."""
    grouped = flat.reshape(-1, layout.degree, 16)
    return [grouped[g, :, lane].tolist() for g in range(grouped.shape[0]) for lane in range(16)]


def unpack_residues(data: bytes, positions: int, bits: int) -> list[int]:
    """One prime's part of a ciphertext, bit by bit, as the wire page says."""
    words = np.frombuffer(data, dtype="<u4").reshape(-1, 16)
    out = [0] * (16 * positions)
    for lane in range(16):
        stream = sum(int(w) << (32 * i) for i, w in enumerate(words[:, lane]))
        for t in range(positions):
            out[16 * t + lane] = stream >> (t * bits) & ((1 << bits) - 1)
    return out


@pytest.fixture(scope="session")
def oracle() -> Any:
    return SimpleNamespace(negacyclic=negacyclic, lanes_of=lanes_of, unpack_residues=unpack_residues)


@pytest.fixture(scope="session")
def make() -> Any:
    """Parameters by (cohort, dim, ...), with fields replaced."""

    def build(cohort: int = 5, dim: int = 7, **options: Any) -> LatticeParams:
        return Lattice().params(cohort, dim, **options)

    return build


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> SeededRng:
    return SeededRng(request.node.name.encode())
