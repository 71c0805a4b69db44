"""The attacks on `ckks`: each wins on its weakened build and fails on the scheme; arithmetic is checked."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tenseal", reason="needs the ckks extra")
pytest.importorskip("torch")

from merveil.attacks import ckks, lattice3, registry
from merveil.attacks.a16_ckks_malformed import KINDS
from merveil.attacks.base import Attack
from merveil.attacks.protocol import Field, sound
from merveil.attacks.runner import try_on_fields
from merveil.attacks.verdict import succeeded
from merveil.audits.broken.ckks_builds import BUILDS
from merveil.audits.broken.ckks_weak import INSECURE_SHARED
from merveil.protocols.ckks import encoding, encryption, ring
from merveil.protocols.ckks.constants import DATA
from merveil.protocols.ckks.sampling import expand
from merveil.protocols.errors import Aborted, LocalError
from merveil.protocols.registry import get
from merveil.protocols.rng import SeededRng

TRIES = {"A14": 3, "A15": 3, "A16": len(KINDS), "A31": 3, "A31-server": 4, "A34": 3}


def short(name: str) -> Attack:
    return replace(registry.get(name), tries=TRIES[name])


@pytest.mark.parametrize("name", TRIES)
def test_the_control_wins(name: str) -> None:
    attack = short(name)
    found = try_on_fields(attack, BUILDS[name](), 1).finding
    assert found.score >= (3 / 7 if name == "A16" else 1.0) and found.score >= attack.rule.success, found


@pytest.mark.parametrize("name", sorted(TRIES))
def test_the_scheme_holds_but_for_the_declared_leak(name: str) -> None:
    found = try_on_fields(short(name), sound("ckks"), 2).finding
    assert found.held == 1.0, found
    assert found.score == (1.0 if name == "A31" else 0.0), found
    assert succeeded(found, short(name).rule) is False or name == "A31"


def test_a_key_for_all_is_reached_by_no_name_and_refused_by_every_policy() -> None:
    with pytest.raises(LocalError, match="shared"):
        get("ckks").params(6, 10, keys="shared")  # type: ignore[call-arg]
    field = Field(replace(sound("ckks"), params=INSECURE_SHARED), np.random.default_rng(0))
    with pytest.raises(Aborted, match=r"split view|tolerates"):
        field.session(1)


def solved(smudging: float) -> float:
    """Share of the joint key that a division gives, with answers of that much smudging."""
    params = get("ckks").params(5, 4096)
    rng, common = SeededRng(3), expand(bytes(32))
    secret, public = encryption.key_pair(common, rng)
    codes = np.random.default_rng(0).integers(-9, 9, params.size)
    c0, c1 = encryption.encrypt(public, common, params, encoding.to_limbs(params, codes), rng)
    key = ring.forward(ring.residues(secret, DATA))
    seen = ring.add(c0.copy(), encryption.partial(key, c1, (1, 1), smudging, rng))
    return ckks.small(ckks.solve(c0, c1, seen), 1)


def test_smudging_is_what_stops_the_division() -> None:
    assert solved(1e-9) == 1.0, "an exact decryption gives the whole key"
    assert solved(get("ckks").params(5, 4096).layout.smudging) == 0.0  # type: ignore[attr-defined]


@pytest.mark.parametrize("bits", [33, 41])
def test_three_answers_give_the_noise_away(bits: int) -> None:
    """Weights of general position: exact at 2^41, as FORMULAS says of three answers."""
    rng = np.random.default_rng(bits)
    q = lattice3._P0 * lattice3._P1
    weights = tuple(tuple(int(rng.integers(1, p)) for p in (lattice3._P0, lattice3._P1)) for _ in range(3))
    x = [int(a) * 2**36 + int(b) for a, b in rng.integers(0, 2**36, (50, 2))]
    noise = np.rint(rng.normal(0, 2.0**bits, (3, 50))).astype(np.int64)
    answers = [
        halves([(lattice3.lift(w) * v + int(e)) % q for v, e in zip(x, row)])
        for w, row in zip(weights, noise)
    ]
    assert np.array_equal(lattice3.nearest(weights, answers), noise[0])


def halves(values: list[int]) -> Any:
    """h = low + p0*high, high centred, as `encoding.split` gives it."""
    low = np.array([v % lattice3._P0 for v in values])
    high = np.array([v // lattice3._P0 for v in values])
    return low, np.where(high > lattice3._P1 // 2, high - lattice3._P1, high)


def test_a_reduced_basis_spans_the_same_lattice() -> None:
    rows = [[1, 345, 9876], [0, 10_007, 0], [0, 0, 10_007]]
    reduced = lattice3.reduce(rows)
    assert round(abs(np.linalg.det(np.array(reduced, dtype=float)))) == 10_007**2
    assert all((r[1] - 345 * r[0]) % 10_007 == 0 and (r[2] - 9876 * r[0]) % 10_007 == 0 for r in reduced)
    assert max(map(abs, reduced[0])) < 10_007 ** (2 / 3) * 2
