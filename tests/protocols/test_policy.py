"""A party's floor: every field refuses on its own, before anything is revealed."""

from dataclasses import fields, replace
from typing import Any

import pytest

from merveil.protocols.dp.discrete import Mechanism, plan
from merveil.protocols.errors import AbortCode, Aborted, LocalError
from merveil.protocols.params import Params
from merveil.protocols.policy import Policy, default_corrupt, default_threshold

ANCHOR = bytes(32)
POLICY = Policy(ANCHOR, frozenset({"secagg", "plain"}), max_dim=100, bits=(8, 16), max_weight=4, max_rounds=9)
PARAMS = Params("secagg", 12, 100, bits=16, max_weight=4, threshold=8, corrupt=3)

# field of the policy -> parameters or a round that only this field refuses
REFUSED: dict[str, tuple[dict[str, Any], int, AbortCode]] = {
    "schemes": ({"scheme": "lattice"}, 1, AbortCode.PARAMS_BELOW_FLOOR),
    "max_dim": ({"dim": 101}, 1, AbortCode.PARAMS_BELOW_FLOOR),
    "bits": ({"bits": 7}, 1, AbortCode.PARAMS_BELOW_FLOOR),
    "bits (above)": ({"bits": 17}, 1, AbortCode.PARAMS_BELOW_FLOOR),
    "max_weight": ({"max_weight": 5}, 1, AbortCode.PARAMS_BELOW_FLOOR),
    "max_rounds": ({}, 10, AbortCode.PARAMS_BELOW_FLOOR),
    "max_rounds (zero)": ({}, 0, AbortCode.PARAMS_BELOW_FLOOR),
}


def test_parameters_within_the_policy_pass() -> None:
    for round_ in (1, 9):
        POLICY.check(PARAMS, round_)
    POLICY.check(replace(PARAMS, bits=8), 1)
    POLICY.check_honest(PARAMS)


@pytest.mark.parametrize("name", REFUSED)
def test_each_field_refuses_alone(name: str) -> None:
    change, round_, code = REFUSED[name]
    with pytest.raises(Aborted) as caught:
        POLICY.check(replace(PARAMS, **change), round_)
    assert caught.value.code is code and not caught.value.released
    wide = {"schemes": frozenset({"lattice", "secagg"}), "max_dim": 101, "bits": (7, 17), "max_weight": 5}
    lenient = replace(POLICY, **wide, max_rounds=10)
    if "zero" not in name:
        lenient.check(replace(PARAMS, **change), round_)


def test_the_tables_cover_every_field() -> None:
    """A new field of the policy needs a row here, or a test of its own below."""
    elsewhere = {"anchor", "min_honest", "allow_small_cohort", "corrupt", "gamma", "delta", "min_difference"}
    elsewhere |= {"max_verify_bytes", "allow_authority"}  # tests/protocols/ckks: there alone they apply
    elsewhere |= {"dp_epsilon", "dp_delta", "dp_norm_clip"}  # test_noise_against_own_figures, below
    assert {f.name for f in fields(Policy)} == {n.split()[0] for n in REFUSED} | elsewhere


@pytest.mark.parametrize(
    ("threshold", "corrupt", "code"),
    [
        (8, 3, None),
        (7, 3, AbortCode.PARAMS_BELOW_FLOOR),  # 2 * 7 <= 12 + 3
        (8, 4, AbortCode.PARAMS_BELOW_FLOOR),  # 2 * 8 <= 12 + 4
        (9, 4, None),
        (12, 10, AbortCode.COHORT_TOO_SMALL),  # two honest inputs
        (12, 11, AbortCode.COHORT_TOO_SMALL),
    ],
)
def test_no_split_view_and_enough_honest_inputs(threshold: int, corrupt: int, code: AbortCode | None) -> None:
    params = replace(PARAMS, threshold=threshold, corrupt=corrupt)
    if code is None:
        POLICY.check_honest(params)
        return
    with pytest.raises(Aborted) as caught:
        POLICY.check_honest(params)
    assert caught.value.code is code


def test_a_sparse_graph_is_held_to_its_neighbourhoods() -> None:
    params = replace(PARAMS, cohort=100, neighbours=32, threshold=22, corrupt=11)
    POLICY.check_honest(params)  # 44 > 32 + 11
    with pytest.raises(Aborted) as caught:
        POLICY.check_honest(replace(params, threshold=21))
    assert caught.value.code is AbortCode.PARAMS_BELOW_FLOOR


def test_a_small_cohort_has_to_be_allowed_by_name() -> None:
    params = replace(PARAMS, cohort=3, threshold=2, corrupt=0)
    with pytest.raises(Aborted) as caught:
        POLICY.check_honest(params)
    assert caught.value.code is AbortCode.COHORT_TOO_SMALL
    replace(POLICY, allow_small_cohort=True).check_honest(params)
    replace(POLICY, min_honest=2).check_honest(params)
    with pytest.raises(Aborted):  # the split view is never allowed
        replace(POLICY, allow_small_cohort=True).check_honest(replace(params, threshold=1))


@pytest.mark.parametrize("anchor", [b"", bytes(31), bytes(33)])
def test_a_policy_pins_a_key(anchor: bytes) -> None:
    with pytest.raises(LocalError, match="anchor"):
        Policy(anchor)


def test_defaults_accept_no_plain_sum_and_no_small_cohort() -> None:
    policy = Policy(ANCHOR)
    assert "plain" not in policy.schemes and policy.min_honest == 3
    assert not policy.allow_small_cohort and policy.min_difference == 0
    with pytest.raises(Aborted):
        policy.check(replace(PARAMS, scheme="plain"), 1)


@pytest.mark.parametrize("cohort", range(1, 200))
def test_the_default_threshold_is_the_least_without_a_split_view(cohort: int) -> None:
    c = default_corrupt(cohort)
    t = default_threshold(cohort, c)
    assert c == max(0, (cohort + 2) // 3 - 1)
    assert 2 * t > cohort + c >= 2 * (t - 1) and t <= cohort


def test_the_documented_defaults() -> None:
    assert [default_corrupt(n) for n in (5, 10, 12, 100)] == [1, 3, 3, 33]
    assert default_threshold(12, 3) == 8
    assert Policy(ANCHOR).corrupt_floor(100) == 33 and replace(POLICY, corrupt=7).corrupt_floor(100) == 7


# Differential privacy

NOISE = plan("skellam", 30, 12, 5, 1.0, 2.0)
ROUND = Params("secagg", 12, NOISE.size, bits=NOISE.bits, clip=NOISE.clip, threshold=8, corrupt=3)
FIGURES = Policy(ANCHOR, dp_epsilon=2.0, dp_delta=1e-3, dp_norm_clip=1.0)

# what only one rule of check_mechanism refuses: changes of the noise, of the parameters, of the policy
NOISE_REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], str]] = {
    "central": ({"central": True, "honest": 1}, {}, {}, "by itself"),
    "cohort of the noise": ({"cohort": 13}, {}, {}, "the roster has"),
    "cohort of the round": ({}, {"cohort": 11}, {}, "the roster has"),
    "norm clip": ({"norm_clip": 1.01}, {}, {}, "norm clip"),
    "delta": ({}, {}, {"dp_delta": 0.09}, "one over"),
    "honest": ({"honest": 6}, {}, {}, "honest noise shares"),
    "weights": ({}, {"max_weight": 2, "dim": NOISE.size - 1}, {}, "weight"),
    "size": ({}, {"dim": NOISE.size + 1}, {}, "not those of the mechanism"),
    "bits": ({}, {"bits": NOISE.bits - 1}, {}, "not those of the mechanism"),
    "no figures": ({}, {}, {"dp_epsilon": 0.0, "dp_delta": 0.0, "dp_norm_clip": 0.0}, "names no dp_epsilon"),
}


@pytest.mark.parametrize("name", NOISE_REFUSED)
def test_noise_against_own_figures(name: str) -> None:
    FIGURES.check_mechanism(ROUND, NOISE, 12)
    noise, params, policy, why = NOISE_REFUSED[name]
    with pytest.raises(Aborted, match=why) as caught:
        replace(FIGURES, **policy).check_mechanism(replace(ROUND, **params), replace(NOISE, **noise), 12)
    assert caught.value.code is AbortCode.PARAMS_BELOW_FLOOR and not caught.value.released


def test_figures_want_noise_and_no_figures_want_none() -> None:
    with pytest.raises(Aborted, match="has no noise"):
        FIGURES.check_mechanism(ROUND, None, 12)
    POLICY.check_mechanism(ROUND, None, 12)
    assert isinstance(NOISE, Mechanism)


@pytest.mark.parametrize(
    "figures",
    [
        (2.0, 0.0, 0.0),
        (2.0, 1e-3, 0.0),
        (0.0, 1e-3, 1.0),
        (-1.0, 1e-3, 1.0),
        (2.0, 1.0, 1.0),
        (float("inf"), 1e-3, 1.0),
        (2.0, float("nan"), 1.0),
        (2.0, 1e-3, float("inf")),
    ],
)
def test_figures_are_positive_and_go_together(figures: tuple[float, float, float]) -> None:
    with pytest.raises(LocalError):
        Policy(ANCHOR, dp_epsilon=figures[0], dp_delta=figures[1], dp_norm_clip=figures[2])
