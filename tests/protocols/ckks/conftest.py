"""A joint key of a small cohort as plain arrays, below the sessions."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import pytest

from merveil.protocols.ckks import encoding, encryption, ring
from merveil.protocols.ckks.params import CkksParams
from merveil.protocols.ckks.ring import Residues
from merveil.protocols.ckks.sampling import expand
from merveil.protocols.codec import Codes
from merveil.protocols.rng import SeededRng


@dataclass
class Keys:
    """All that a dealer, a holder or an attacker may have. secrets: (1, 4096) each, ternary."""

    params: CkksParams
    common: Residues
    joint: Residues
    secrets: tuple[Residues, ...]
    shares: dict[int, Residues]
    rng: SeededRng = field(repr=False)

    def encrypt(self, codes: Codes) -> tuple[Residues, Residues]:
        limbs = encoding.to_limbs(self.params, codes)
        return encryption.encrypt(self.joint, self.common, self.params, limbs, self.rng)

    def answer(self, index: int, subset: Sequence[int], c1: Residues, sigma: float | None = None) -> Residues:
        weights = encryption.lagrange(sorted(subset), index)
        noise = self.params.layout.smudging if sigma is None else sigma
        return encryption.partial(self.shares[index], c1, weights, noise, self.rng)

    def open(self, c0: Residues, c1: Residues, subset: Sequence[int]) -> Residues:
        """c0 plus the answers of a subset, in NTT form."""
        total = c0.copy()
        for i in subset:
            ring.add(total, self.answer(i, subset, c1))
        return total

    @property
    def secret(self) -> Residues:
        """The joint secret's coefficients, which no party of the protocol ever holds."""
        return np.sum(self.secrets, axis=0)

    def codes(self, seed: int) -> Codes:
        rng = np.random.default_rng(seed)
        p = self.params
        codes = rng.integers(-p.levels, p.levels + 1, p.size)
        codes[:2] = p.levels, -p.levels
        if p.weighted:
            codes[-1] = p.max_weight
        return codes


@lru_cache(maxsize=8)
def make_keys(params: CkksParams, seed: int = 0) -> Keys:
    rng = SeededRng(seed).child("ckks")
    common = expand(bytes(32))
    pairs = [encryption.key_pair(common, rng) for _ in range(params.cohort)]
    joint, shares = np.zeros_like(common), {}
    for secret, public in pairs:
        ring.add(joint, public)
        for x, part in encryption.deal(secret, range(1, params.cohort + 1), params.threshold, rng).items():
            shares[x] = ring.add(shares[x], part) if x in shares else part
    return Keys(params, common, joint, tuple(s for s, _ in pairs), shares, rng)


@pytest.fixture(scope="session")
def keys() -> object:
    return make_keys
