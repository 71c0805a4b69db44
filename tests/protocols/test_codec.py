"""Floats to grid integers and back: bounds, roundings, weights and what is refused."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from merveil.protocols.codec import Codec, check_codes, check_sum, to_signed
from merveil.protocols.errors import AbortCode, Aborted, LocalError
from merveil.protocols.params import Params

P = Params("plain", 3, 4, bits=8, clip=2.0)  # 127 levels
W = replace(P, max_weight=10)


def test_the_grid_ends_exactly_at_the_clip() -> None:
    codes = Codec(P).encode(np.array([2.0, -2.0, 0.0, 2 / 127]))
    assert codes.tolist() == [127, -127, 0, 1] and codes.dtype == np.int64


def test_values_beyond_the_clip_are_cut_and_counted() -> None:
    update = np.array([2.0000001, -9.0, 1e300, 1.0])
    assert Codec(P).encode(update).tolist() == [127, -127, 127, 64]
    assert Codec(P).cut(update) == 3
    assert Codec(P).cut(np.array([2.0, -2.0, 0, 0])) == 0


def test_nearest_rounding_is_that_of_exact_arithmetic() -> None:
    rng = np.random.default_rng(3)
    for bits in (4, 16, 40):
        p = Params("plain", 5, 200, bits=bits, clip=0.75)
        update = rng.uniform(-0.75, 0.75, 200)
        for value, code in zip(update, Codec(p).encode(update)):
            exact = Fraction(float(value)) * p.levels / Fraction(0.75)
            assert abs(exact - int(code)) <= Fraction(1, 2) + Fraction(1, 2**10)


def test_stochastic_rounding_is_within_one_step_and_unbiased() -> None:
    p = Params("plain", 2, 20_000, bits=6, clip=1.0)
    rng = np.random.default_rng(5)
    update = np.full(p.dim, 0.3)
    codes = Codec(p).encode(update, coins=rng.random(p.dim))
    steps = 0.3 * 31
    assert set(codes.tolist()) == {9, 10}
    fraction = steps - 9
    deviation = (fraction * (1 - fraction) / p.dim) ** 0.5
    assert abs(codes.mean() - steps) < 5 * deviation
    most = np.full(p.dim, 1 - 2**-53)
    assert set(Codec(p).encode(np.ones(p.dim), coins=most).tolist()) == {31}, "no coin leaves the grid"
    assert set(Codec(p).encode(-np.ones(p.dim), coins=most).tolist()) <= {-31, -30}
    assert set(Codec(p).encode(-np.ones(p.dim), coins=0 * most).tolist()) == {-31}


@pytest.mark.parametrize(
    "coins", [np.ones(4), np.full(4, -0.1), np.zeros(3), np.zeros((4, 1)), np.full(4, np.nan)]
)
def test_coins_are_uniforms_of_the_right_number(coins: np.ndarray) -> None:
    with pytest.raises(LocalError) as caught:
        Codec(P).encode(np.zeros(4), coins=coins)
    assert caught.value.code is AbortCode.SHAPE_MISMATCH


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_named(bad: float) -> None:
    with pytest.raises(LocalError, match="coordinate 2 is") as caught:
        Codec(P).encode(np.array([0.0, 1.0, bad, bad]))
    assert caught.value.code is AbortCode.INPUT_NOT_FINITE


@pytest.mark.parametrize(
    "update",
    [np.zeros(3), np.zeros(5), np.zeros((4, 1)), np.zeros((2, 2)), np.zeros(4, dtype=np.int64), [0.0] * 4,
     np.zeros(4, dtype=object), np.zeros(4, dtype=complex)],
)  # fmt: skip
def test_another_shape_or_type_is_refused(update: object) -> None:
    with pytest.raises(LocalError) as caught:
        Codec(P).encode(update)  # type: ignore[arg-type]
    assert caught.value.code is AbortCode.SHAPE_MISMATCH


@pytest.mark.parametrize("weight", [0, -1, 11, 1.0, 2.5, True, "3", None, np.bool_(True)])
def test_a_weight_is_an_integer_in_range(weight: object) -> None:
    with pytest.raises(LocalError) as caught:
        Codec(W).encode(np.zeros(4), weight)  # type: ignore[arg-type]
    assert caught.value.code is AbortCode.INPUT_RANGE


def test_an_unweighted_codec_takes_weight_one_only() -> None:
    assert Codec(P).encode(np.zeros(4), 1).shape == (4,)
    with pytest.raises(LocalError):
        Codec(P).encode(np.zeros(4), 2)


def test_the_weighted_mean_is_within_the_stated_error() -> None:
    rng = np.random.default_rng(8)
    p = Params("plain", 6, 50, bits=16, clip=1.0, max_weight=8)
    updates, weights = rng.uniform(-1, 1, (6, 50)), [1, 8, 3, np.int64(2), 5, 1]
    codec = Codec(p)
    total = np.sum([codec.encode(u, w) for u, w in zip(updates, weights)], axis=0)
    mean = codec.decode(total, 6)
    exact = np.average(updates, axis=0, weights=weights)
    step = p.clip / p.levels
    assert mean.weight == 20
    assert np.abs(mean.value - exact).max() <= 6 * 8 / 20 * step


def test_a_vector_of_full_range_survives_a_full_cohort() -> None:
    for sign in (1, -1):
        p = Params("plain", 9, 3, bits=40, clip=1.0)
        codes = Codec(p).encode(np.full(3, sign * 1.0))
        residues = np.mod(9 * codes, p.modulus).astype(np.uint64)
        assert to_signed(p, residues).tolist() == [sign * 9 * p.levels] * 3
        assert np.allclose(Codec(p).decode(to_signed(p, residues), 9).value, sign)


def test_to_signed_leaves_the_weight_coordinate_alone() -> None:
    p = Params("plain", 2, 1, bits=4, max_weight=15)  # modulus 32, weights sum to 30
    assert to_signed(p, np.array([31, 30], dtype=np.uint64)).tolist() == [-1, 30]
    assert to_signed(p, np.array([16, 0], dtype=np.uint32)).tolist() == [-16, 0]
    assert to_signed(p, np.array([15, 0], dtype=np.uint32)).tolist() == [15, 0]


@pytest.mark.parametrize(
    ("codes", "code"),
    [
        (np.array([128, 0, 0, 0, 1]), AbortCode.INPUT_RANGE),
        (np.array([0, 0, 0, -128, 1]), AbortCode.INPUT_RANGE),
        (np.array([0, 0, 0, np.iinfo(np.int64).min, 1]), AbortCode.INPUT_RANGE),
        (np.array([0, 0, 0, 0, 0]), AbortCode.INPUT_RANGE),
        (np.array([0, 0, 0, 0, 11]), AbortCode.INPUT_RANGE),
        (np.array([0, 0, 0, 0, -1]), AbortCode.INPUT_RANGE),
        (np.array([0, 0, 0, 0]), AbortCode.SHAPE_MISMATCH),
        (np.zeros(5, dtype=np.int32), AbortCode.SHAPE_MISMATCH),
        (np.zeros(5, dtype=np.float64), AbortCode.SHAPE_MISMATCH),
        (np.zeros(5, dtype=">i8"), AbortCode.SHAPE_MISMATCH),
        ([0, 0, 0, 0, 1], AbortCode.SHAPE_MISMATCH),
    ],
)
def test_codes_that_no_codec_makes_are_refused(codes: object, code: AbortCode) -> None:
    check_codes(W, np.array([127, -127, 0, 0, 10]))
    with pytest.raises(LocalError) as caught:
        check_codes(W, codes)  # type: ignore[arg-type]
    assert caught.value.code is code


@pytest.mark.parametrize(
    ("total", "survivors"),
    [
        ([255, 0, 0, 0, 2], 2),
        ([0, -255, 0, 0, 2], 2),
        ([0, 0, 0, 0, 1], 2),
        ([0, 0, 0, 0, 21], 2),
        ([0, 0, 0, 0, 0], 0),
        ([0, 0, 0, 0, 1], 0),
    ],
)
def test_a_sum_that_the_survivors_cannot_have_sent_aborts(total: list[int], survivors: int) -> None:
    check_sum(W, np.array([254, -254, 0, 0, 20]), 2)
    check_sum(W, np.array([254, -254, 0, 0, 2]), 2)
    with pytest.raises(Aborted) as caught:
        check_sum(W, np.array(total), survivors)
    assert caught.value.code is AbortCode.IMPLAUSIBLE_SUM
    with pytest.raises(Aborted):
        Codec(W).decode(np.array(total), survivors)
