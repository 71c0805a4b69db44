"""Headroom, modulus, committee: what fits is proven, what does not is refused."""

import math
from dataclasses import replace
from typing import Any

import pytest

from merveil.protocols.errors import AbortCode, Aborted, LocalError
from merveil.protocols.lattice import Lattice
from merveil.protocols.lattice.constants import CAPS, CHECK, SIGMA
from merveil.protocols.lattice.params import (
    LatticeParams,
    _is_prime,
    hint_epsilon,
    hint_sigma,
    make_digits,
)
from merveil.protocols.params import Params
from merveil.protocols.policy import Policy
from merveil.protocols.registry import params_from


@pytest.mark.parametrize("cohort", [3, 5, 24, 100, 1_000, 10_000, 65_535])
@pytest.mark.parametrize("dim", [1, 1_700, 1_000_000])
@pytest.mark.parametrize(("bits", "weight"), [(4, 1), (16, 1), (24, 1_000), (40, 65_535)])
def test_a_full_cohort_fits_with_the_error_that_the_check_lets_pass(
    cohort: int, dim: int, bits: int, weight: int, make: Any
) -> None:
    if cohort * weight >= 1 << (bits + (cohort - 1).bit_length()):
        pytest.skip("weights that the common parameters refuse")
    p = make(cohort, dim, bits=bits, max_weight=weight)
    layout, d = p.layout, p.digits
    assert d.radix > cohort * (d.base - 1), "the sum of a digit stays below its radix"
    assert d.base**d.limbs > 2 * p.levels and d.base**d.weight > (weight if p.weighted else 0)
    assert layout.step > 2 * CHECK * SIGMA * math.sqrt(cohort), "and the error below its step"
    q = math.prod(layout.primes)
    assert q >= layout.step * d.radix**layout.values and q.bit_length() <= CAPS[p.degree]
    assert layout.values * layout.count >= d.total > layout.values * (layout.count - 16)
    for prime, width in zip(layout.primes, layout.bits):
        assert _is_prime(prime) and prime % (2 * p.degree) == 1 and prime.bit_length() == width <= 31
    assert len(set(layout.primes)) == len(layout.primes)
    # a uniform residual passes in every coefficient with 2^-40 at most
    share = (2 * math.floor(CHECK * SIGMA * math.sqrt(cohort)) + 1) / layout.step
    assert layout.count * math.log2(share) < -39.5
    assert p.field > 2 * 10 * SIGMA * math.sqrt(cohort) and p.field > p.members + p.pack


def test_primes_are_primes() -> None:
    sieve = [True] * 20_000
    for i in range(2, 20_000):
        if sieve[i]:
            assert _is_prime(i)
            sieve[i * i :: i] = [False] * len(sieve[i * i :: i])
        else:
            assert not _is_prime(i)
    for carmichael in (561, 1_729, 825_265, 413_631_505, 2_147_483_649):
        assert not _is_prime(carmichael)
    assert _is_prime(2**31 - 1)


def test_the_contracted_sizes() -> None:
    """Ciphertext, shares and frame at d = 1M, 16 bits: 3.3 B a value at 100 clients, 3.8 at 1,000."""
    for cohort, most, degree, values, q in ((100, 3.3, 8192, 9, 215), (1_000, 3.8, 8192, 7, 194)):
        p = Lattice().params(cohort, 1_000_000)
        assert (p.degree, p.layout.values, p.layout.modulus_bits) == (degree, values, q)
        assert (p.members, p.quorum, p.corrupt_members, p.pack) == (30, 20, 9, 11)
        assert (p.layout.size + 30 * (p.share_size + 16) + 173) / 1_000_000 <= most
    small = Lattice().params(12, 1_700)
    assert (small.members, small.corrupt_members, small.quorum, small.pack) == (12, 3, 8, 5)


def test_what_does_not_fit_is_refused(make: Any) -> None:
    p = make(100, 1_000)
    for degree, cap in CAPS.items():
        fitting = [v for v in range(1, 65) if _fits(p, degree, v)]
        assert fitting == list(range(1, fitting[-1] + 1)) and fitting[-1] < 12
        bits = math.log2(p.layout.step * p.digits.radix ** (fitting[-1] + 1))
        assert bits > cap - 0.1
    with pytest.raises(LocalError) as caught:
        replace(p, degree=2048, values=2)
    assert caught.value.code is AbortCode.MODULUS_TOO_SMALL and "55 bits" in str(caught.value)


def _fits(p: LatticeParams, degree: int, values: int) -> bool:
    try:
        replace(p, degree=degree, values=values)
    except LocalError as error:
        assert error.code is AbortCode.MODULUS_TOO_SMALL
        return False
    return True


@pytest.mark.parametrize(
    "change",
    [{"degree": 1024}, {"values": 0}, {"values": 65}, {"members": 13}, {"members": 0}, {"pack": 9},
     {"pack": 0}, {"quorum": 13}, {"corrupt_members": -1}, {"quorum": 2.5}],
)  # fmt: skip
def test_fields_that_do_not_go_together(change: dict[str, Any], make: Any) -> None:
    with pytest.raises(LocalError):
        replace(make(12), **change)


def test_parameters_from_their_fields(make: Any) -> None:
    p = make(12, 40, max_weight=3)
    fields = {k: getattr(p, k) for k in p.__dataclass_fields__}
    assert params_from(fields) == p
    with pytest.raises(LocalError):
        params_from({**fields, "sigma": 3})
    assert b"\npack=5" in p.encoded and b"\nquorum=8" in p.encoded


POLICY = [
    ({"members": 29, "quorum": 20, "pack": 9}, {}, AbortCode.PARAMS_BELOW_FLOOR),
    ({"quorum": 19}, {}, AbortCode.PARAMS_BELOW_FLOOR),  # 2 * 19 <= 30 + 9
    ({"corrupt_members": 8}, {}, AbortCode.PARAMS_BELOW_FLOOR),
    ({"pack": 12}, {}, AbortCode.PARAMS_BELOW_FLOOR),  # privacy against 8 of 9
    ({"corrupt": 32}, {}, AbortCode.PARAMS_BELOW_FLOOR),
    ({"threshold": 66}, {}, AbortCode.PARAMS_BELOW_FLOOR),
    ({"neighbours": 2}, {}, AbortCode.PARAMS_BELOW_FLOOR),
    ({}, {"min_honest": 35}, AbortCode.COHORT_TOO_SMALL),
    ({}, {"schemes": frozenset({"secagg"})}, AbortCode.PARAMS_BELOW_FLOOR),
]


@pytest.mark.parametrize(("change", "policy", "code"), POLICY, ids=str)
def test_each_floor(change: dict[str, Any], policy: dict[str, Any], code: AbortCode) -> None:
    p = Lattice().params(100, 50)
    floor = Policy(bytes(32), frozenset({"lattice"}))
    floor.check(p, 1)
    Lattice().check_policy(p, floor)
    weak, strict = replace(p, **change), replace(floor, **policy)
    with pytest.raises(Aborted) as caught:
        strict.check(weak, 1)
        Lattice().check_policy(weak, strict)
    assert caught.value.code is code


def test_an_explicit_committee_passes_the_policy_that_allows_it() -> None:
    """k = 30, c = 7, l = 12, t = 19: eleven may drop."""
    p = Lattice().params(100, 50, members=30, corrupt_members=7)
    assert (p.quorum, p.pack, p.privacy) == (19, 12, 7)
    Lattice().check_policy(p, Policy(bytes(32), corrupt=7))
    with pytest.raises(Aborted):
        Lattice().check_policy(p, Policy(bytes(32)))


def test_committees_that_cannot_be(make: Any) -> None:
    with pytest.raises(Aborted) as refused:
        Lattice().check_policy(make(1), Policy(bytes(32), allow_small_cohort=True))
    assert refused.value.code is AbortCode.PARAMS_BELOW_FLOOR, "one member alone would read a key"
    with pytest.raises(LocalError) as caught:
        make(12, corrupt_members=12)
    assert caught.value.code is AbortCode.COHORT_TOO_SMALL
    with pytest.raises(LocalError):
        Lattice().check_policy(Params("lattice", 5, 4, threshold=4, corrupt=1), Policy(bytes(32)))


def test_what_a_hint_leaves() -> None:
    """Known values, docs/lattice.md: half of sigma at two honest clients, and the two epsilons."""
    assert hint_sigma(2) == SIGMA / 2 and abs(hint_sigma(3) / SIGMA - 0.577) < 5e-4
    assert abs(hint_sigma(10) / SIGMA - 0.671) < 5e-4 and hint_sigma(1) == 0
    assert round(hint_epsilon(2, 2 * 4096), 1) == -131.8
    assert round(hint_epsilon(2, 83 * 4096), 1) == -126.4
    assert hint_epsilon(1, 8192) >= 0
    for cohort, dim in ((5, 10), (24, 1_700), (100, 1_000_000), (10_000, 10_000), (1_000, 2**28)):
        assert Lattice().params(cohort, dim).describe()["log2_hint_epsilon"] < -120


def test_a_code_of_many_bits_is_cut_into_digits() -> None:
    d = make_digits(1_000, (1 << 39) - 1, 10, 65_535)
    assert (d.limbs, d.base, d.weight, d.total) == (2, 1 << 20, 1, 21)
    assert make_digits(5, 7, 10, 300).weight == 3 and make_digits(100, 32_767, 10, 0).limbs == 1
