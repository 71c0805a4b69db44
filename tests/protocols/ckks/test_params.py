"""What fits, what is refused, and what enters the context."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from merveil.protocols.ckks import encoding, encryption, ring
from merveil.protocols.ckks.constants import DEGREE, PRIMES
from merveil.protocols.ckks.params import CkksParams, fresh_noise, from_fields, smudging_noise
from merveil.protocols.errors import AbortCode, Aborted, LocalError
from merveil.protocols.params import Params
from merveil.protocols.registry import get

TEN = CkksParams("ckks", 10, 100_000, threshold=7, corrupt=3)


def test_the_modulus_is_within_the_cap_for_128_bits() -> None:
    assert sum(math.log2(p) for p in PRIMES) <= 106, "2025 guidelines, N = 4096, ternary secret"
    assert all(p % (2 * DEGREE) == 1 and pow(2, p - 1, p) == 1 for p in PRIMES)


@pytest.mark.parametrize(
    ("cohort", "dim", "slots", "limbs", "bytes_per_value"),
    [(10, 100_000, 0, 1, 18.5), (10, 100_000, 1, 1, 36.5), (100, 100_000, 0, 1, 18.5), (5, 8192, 0, 1, 18.0)],
)
def test_bytes_a_value(cohort: int, dim: int, slots: int, limbs: int, bytes_per_value: float) -> None:
    c = -(-cohort // 3) - 1
    p = CkksParams("ckks", cohort, dim, threshold=(cohort + c) // 2 + 1, corrupt=c, slots=slots)
    shown = p.describe()
    assert shown["limbs"] == limbs and shown["bytes_per_value"] <= bytes_per_value
    assert shown["headroom_bits"] >= 0 and shown["smudging_bits"] == 40


@pytest.mark.parametrize("cohort", [2, 3, 10, 33, 100, 1000, 10_000])
@pytest.mark.parametrize(("bits", "weight"), [(4, 1), (16, 1), (16, 64), (40, 65_535)])
@pytest.mark.parametrize("slots", [0, 1])
def test_whatever_is_accepted_fits(cohort: int, bits: int, weight: int, slots: int) -> None:
    c = -(-cohort // 3) - 1
    t = (cohort + c) // 2 + 1
    try:
        p = CkksParams("ckks", cohort, 10_000, bits, 1.0, weight, t, c, slots=slots)
    except LocalError as error:
        assert error.code is AbortCode.MODULUS_TOO_SMALL and cohort >= 1000
        return
    found = p.layout
    digit = max(p.levels, weight) if found.limbs == 1 else 2 ** (found.width - 1) + 1
    half = PRIMES[0] * PRIMES[1] / 2
    assert cohort * digit * found.scale + found.scale / 2 <= half, "a full cohort at the edge does not wrap"
    spread = math.sqrt(DEGREE / 2) if slots else 1
    noise = math.sqrt(t * found.smudging**2 + found.ciphertext_noise**2) * spread
    assert 10 * noise <= found.noise_bound * 1.0001 and found.noise_bound < found.scale / 2


def test_the_smudging_is_that_of_the_paper() -> None:
    """KL over tau ciphertexts is tau*B^2/(2 sigma^2), which is to be 2^-40 / 24."""
    own = math.sqrt(10) * fresh_noise(10)
    norm = math.sqrt(DEGREE) * own
    sigma = smudging_noise(own, 25, 40)
    assert 25 * norm**2 / (2 * sigma**2) <= 2**-40 / 24


def test_codes_survive_the_limbs() -> None:
    for bits, weight in ((4, 9), (16, 1), (40, 65_535)):
        p = CkksParams("ckks", 8, 500, bits, 1.0, weight, 6, 2)
        rng = np.random.default_rng(bits)
        codes = rng.integers(-p.levels, p.levels + 1, p.size)
        codes[:2] = p.levels, -p.levels
        limbs = encoding.to_limbs(p, codes)
        assert np.array_equal(encoding.from_limbs(p, limbs), codes)
        assert p.layout.limbs == 1 or np.abs(limbs).max() <= 2 ** (p.layout.width - 1) + 1
        assert np.array_equal(encoding.from_limbs(p, 8 * limbs), 8 * codes)


def test_options_enter_the_context() -> None:
    base = TEN.encoded
    assert b"smudging=40" in base and b"slots=0" in base
    assert len({base, replace(TEN, smudging=41).encoded, replace(TEN, slots=1).encoded}) == 3
    assert from_fields({"scheme": "ckks", "cohort": 10, "dim": 3, "threshold": 7, "corrupt": 3}).dim == 3
    with pytest.raises(LocalError):
        from_fields({"scheme": "ckks", "cohort": 10, "dim": 3, "scale": 2.0})


@pytest.mark.parametrize(
    "change", [{"smudging": 0}, {"smudging": 61}, {"slots": 2}, {"cohort": 1, "threshold": 1}]
)
def test_nonsense_is_refused(change: dict[str, int]) -> None:
    with pytest.raises(LocalError):
        replace(TEN, **{"corrupt": 0, **change})


@pytest.mark.parametrize(
    ("change", "policy"),
    [({"smudging": 39}, {}), ({"corrupt": 2}, {}), ({"neighbours": 4}, {}), ({}, {"max_verify_bytes": 1000})],
)
def test_a_policy_refuses_before_anything_is_said(federation: Any, change: Any, policy: Any) -> None:
    from merveil.protocols.policy import Policy

    floor = Policy(federation(10).roster.anchor, frozenset({"ckks"}), **policy)
    scheme = get("ckks")
    scheme.check_policy(TEN, Policy(federation(10).roster.anchor))
    with pytest.raises(Aborted) as caught:
        scheme.check_policy(replace(TEN, **change), floor)
    assert caught.value.code is AbortCode.PARAMS_BELOW_FLOOR


def test_plain_params_are_the_callers_mistake(federation: Any) -> None:
    from merveil.protocols.policy import Policy

    with pytest.raises(LocalError, match="own parameters"):
        get("ckks").check_policy(
            Params("ckks", 10, 4, threshold=7, corrupt=3), Policy(federation(10).roster.anchor)
        )


@pytest.mark.parametrize("slots", [0, 1])
def test_the_noise_is_as_large_as_it_must_be_and_no_larger(keys: Any, slots: int) -> None:
    """Measured on real parameters: one answer's smudging, and the ciphertext noise that it hides."""
    p = CkksParams("ckks", 6, 4096, threshold=4, corrupt=1, slots=slots)
    k = keys(p)
    codes = [k.codes(i) for i in range(6)]
    pairs = [k.encrypt(c) for c in codes]
    c0, c1 = pairs[0]
    for a, b in pairs[1:]:
        ring.add(c0, a), ring.add(c1, b)
    exact = ring.add(
        ring.multiply(c1, ring.forward(ring.residues(k.secret, 2))), c0
    )  # what nobody can compute: no smudging
    total = np.sum(codes, axis=0)
    sent = encoding.message(p, encoding.to_limbs(p, total))
    own = _signed(ring.add(exact.copy(), ring.negate(sent)))
    assert own.std() < p.layout.ciphertext_noise * 1.1, "the noise that smudging was sized for"
    opened = k.open(c0, c1, (1, 2, 4, 6))
    smudged = _signed(ring.add(opened, ring.negate(exact))).std()
    assert abs(smudged / (2 * p.layout.smudging) - 1) < 0.05, "four answers, each with its own noise"
    assert smudged > 2**18 * own.std()
    assert encryption.lagrange([1, 2], 1) == tuple([2] * 2)


def _signed(x: Any) -> Any:
    """Coefficients as floats, centred modulo Q."""
    low, high = encoding.split(ring.inverse(x.copy()))
    return low.astype(float) + high.astype(float) * PRIMES[0]


@pytest.mark.parametrize("index", [-1, 65_536])
def test_an_authority_is_a_roster_index(index: int) -> None:
    with pytest.raises(LocalError, match="authority is a roster index or 0"):
        get("ckks").params(10, 100, keys="authority", authority=index)
    assert get("ckks").params(10, 100, keys="authority", authority=65_535).authority == 65_535


def test_colluders_that_leave_no_threshold_are_said() -> None:
    with pytest.raises(LocalError, match="2 clients with 2 colluding leave no threshold") as caught:
        get("ckks").params(2, 100, corrupt=2)
    assert caught.value.code is AbortCode.COHORT_TOO_SMALL
