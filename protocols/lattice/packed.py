"""Packed Shamir sharing (Franklin and Yung 1992) of a short key over a small prime field.

l coefficients of the key ride on one polynomial of degree t - 1, as its values at the points k + 1 .. k + l;
member j has its value at j. t values rebuild all; t - l of them are uniform and independent of the key.
Sums of shares are shares of sums. Secret i of polynomial m is coefficient i*blocks + m, the tail is zero.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from merveil.protocols.lattice.params import LatticeParams
from merveil.protocols.lattice.sampling import below, fresh
from merveil.protocols.primitives.packing import pack, packed_size, tail_is_zero, unpack
from merveil.protocols.rng import Rng

Matrix = NDArray[np.float64]
Elements = NDArray[np.int64]


@lru_cache(maxsize=64)
def interpolation(p: int, known: tuple[int, ...], wanted: tuple[int, ...]) -> Matrix:
    """M with f(wanted) = M f(known) modulo p, for f of degree below len(known); entries in [0, p)."""
    weights = []
    for i, x in enumerate(known):
        product = 1
        for j, y in enumerate(known):
            if i != j:
                product = product * (x - y) % p
        weights.append(pow(product, -1, p))
    rows = []
    for z in wanted:
        if z in known:
            rows.append([int(z == x) for x in known])
            continue
        whole = 1
        for x in known:
            whole = whole * (z - x) % p
        rows.append([whole * w % p * pow(z - x, -1, p) % p for w, x in zip(weights, known)])
    return np.array(rows, dtype=np.float64).reshape(len(wanted), len(known))


def apply(matrix: Matrix, values: Elements, p: int) -> Elements:
    """matrix @ values modulo p. Exact: at most 256 products below 2^34 each."""
    product = matrix @ values.astype(np.float64)
    return np.asarray(product, dtype=np.int64) % p


def _points(params: LatticeParams) -> tuple[int, ...]:
    return tuple(range(params.members + 1, params.members + params.pack + 1))


def share(params: LatticeParams, secret: Elements, rng: Rng) -> Elements:
    """Shares of a key, shape (members, blocks): row j belongs to point j + 1.

    The shares of the first t - l members are drawn, the other members' follow from them and the secrets.
    """
    p, free = params.field, params.privacy
    secrets = np.zeros(params.pack * params.blocks, dtype=np.int64)
    secrets[: secret.size] = secret % p
    drawn = below(fresh(rng, "lattice/shares"), free * params.blocks, p).astype(np.int64)
    known = np.concatenate((secrets, drawn)).reshape(params.quorum, params.blocks)
    nodes = (*_points(params), *range(1, free + 1))
    return apply(interpolation(p, nodes, tuple(range(1, params.members + 1))), known, p)


def recover(params: LatticeParams, answers: dict[int, Elements]) -> Elements:
    """The key sum, signed, shape (N,), from exactly t summed shares by point."""
    points = tuple(sorted(answers))
    values = np.stack([answers[x] for x in points])
    p = params.field
    found = apply(interpolation(p, points, _points(params)), values, p).reshape(-1)[: params.degree]
    return np.asarray(np.where(found > p // 2, found - p, found), dtype=np.int64)


def encode(params: LatticeParams, elements: Elements) -> bytes:
    return pack(elements.astype(np.uint64), params.field_bits)


def decode(params: LatticeParams, data: bytes) -> Elements | None:
    """Inverse of `encode`; None for another length, padding, or an element that is not below the prime."""
    bits, count = params.field_bits, params.blocks
    if len(data) != packed_size(count, bits) or not tail_is_zero(data, count, bits):
        return None
    found = unpack(data, count, bits).astype(np.int64)
    return found if int(found.max()) < params.field else None
