"""Properties of packing, codec and headroom over many shapes."""

from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from merveil.protocols.codec import Codec, check_codes, check_sum, to_signed
from merveil.protocols.params import Params
from merveil.protocols.primitives.packing import pack, packed_size, tail_is_zero, unpack, unpack_blocks


@st.composite
def residues(draw: st.DrawFn) -> tuple[list[int], int]:
    bits = draw(st.integers(1, 64))
    return draw(st.lists(st.integers(0, 2**bits - 1), min_size=1, max_size=300)), bits


@given(residues())
def test_packing_is_the_integer_form(case: tuple[list[int], int]) -> None:
    values, bits = case
    data = pack(np.array(values, dtype=np.uint64), bits)
    number = sum(v << (i * bits) for i, v in enumerate(values))
    assert data == number.to_bytes(packed_size(len(values), bits), "little")
    assert unpack(data, len(values), bits).tolist() == values
    assert [v for _, part in unpack_blocks(data, len(values), bits) for v in part.tolist()] == values


@given(st.binary(min_size=1, max_size=200), st.integers(1, 64), st.data())
def test_what_has_a_clean_tail_re_encodes_to_the_same_bytes(
    data: bytes, bits: int, more: st.DataObject
) -> None:
    most = len(data) * 8 // bits
    counts = [n for n in range(max(1, most - 8), most + 1) if packed_size(n, bits) == len(data)]
    if not counts:
        return
    count = more.draw(st.sampled_from(counts))
    again = pack(unpack(data, count, bits), bits)
    assert (again == data) is tail_is_zero(data, count, bits)


@st.composite
def cohorts(draw: st.DrawFn) -> tuple[Params, np.ndarray, list[int], np.ndarray | None]:
    n = draw(st.integers(1, 12))
    bits = draw(st.integers(4, 40))
    most = draw(st.integers(1, min(200, 2**bits // n)))
    clip = draw(st.floats(1e-6, 1e6))
    params = Params("plain", n, draw(st.integers(1, 9)), bits=bits, clip=clip, max_weight=most)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    updates = clip * draw(st.sampled_from([1.0, 1.0, 0.01])) * rng.uniform(-1.2, 1.2, (n, params.dim))
    weights = [draw(st.integers(1, most)) for _ in range(n)]
    coins = rng.random((n, params.dim)) if draw(st.booleans()) else None
    return params, updates, weights, coins


@given(cohorts())
@settings(max_examples=200)
def test_sums_decode_within_the_stated_error_and_never_wrap(
    case: tuple[Params, np.ndarray, list[int], np.ndarray | None],
) -> None:
    params, updates, weights, coins = case
    codec, n = Codec(params), params.cohort
    codes = [
        codec.encode(u, w, None if coins is None else coins[i])
        for i, (u, w) in enumerate(zip(updates, weights))
    ]
    for c in codes:
        check_codes(params, c)
    total = np.sum(codes, axis=0)
    wire = np.mod(np.sum([np.mod(c, params.modulus) for c in codes], axis=0), params.modulus)
    assert np.array_equal(to_signed(params, wire.astype(np.uint64)), total), "no wrap"
    check_sum(params, total, n)
    mean = codec.decode(total, n)
    exact = np.average(np.clip(updates, -params.clip, params.clip), axis=0, weights=weights)
    step = params.clip / params.levels
    assert mean.weight == sum(weights)
    bound = n * params.max_weight / sum(weights) * step
    assert np.abs(mean.value - exact).max() <= bound * (1 + 1e-9) + 1e-12 * params.clip


@given(st.integers(1, 65_535), st.integers(4, 40))
def test_headroom_is_proved_for_every_cohort_and_width(cohort: int, bits: int) -> None:
    params = Params("plain", cohort, 1, bits=bits)
    assert 2 * cohort * params.levels < params.modulus


@given(st.floats(-2, 2), st.floats(0, 1, exclude_max=True), st.integers(4, 40))
def test_stochastic_rounding_moves_a_value_by_one_step_at_most(value: float, coin: float, bits: int) -> None:
    params = Params("plain", 2, 1, bits=bits, clip=1.5)
    code = int(Codec(params).encode(np.array([value]), coins=np.array([coin]))[0])
    exact = Fraction(min(max(value, -1.5), 1.5)) * params.levels / Fraction(1.5)
    assert abs(code - exact) <= 1 + Fraction(1, 2**8) and abs(code) <= params.levels
