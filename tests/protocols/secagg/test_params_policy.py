"""A client refuses parameters below its own floor before anything leaves it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from merveil.protocols.errors import AbortCode, Aborted


def refuse(kit: Any, code: AbortCode, **changes: Any) -> None:
    params = replace(kit.params, **changes)
    with pytest.raises(Aborted) as error:
        kit.client(1, params=params)
    assert error.value.code is code and not error.value.released
    assert kit.ledger(1).state(kit.roster.federation, 1) is None


@pytest.mark.parametrize("scheme", ["small", "sparse"])
def test_thresholds_that_admit_a_split_view_are_refused(scheme: str, request: Any) -> None:
    kit = request.getfixturevalue(scheme)()
    refuse(kit, AbortCode.PARAMS_BELOW_FLOOR, threshold=kit.params.threshold - 1)


def test_too_little_collusion_tolerated(small: Callable[..., Any], sparse: Callable[..., Any]) -> None:
    refuse(small(cohort=8), AbortCode.PARAMS_BELOW_FLOOR, corrupt=1, threshold=8)
    refuse(sparse(), AbortCode.PARAMS_BELOW_FLOOR, corrupt=1, threshold=8)


@pytest.mark.parametrize("k", [7, 22, 2, 4])
def test_degrees_that_are_no_sparse_graph_or_may_fall_apart(sparse: Callable[..., Any], k: int) -> None:
    """Odd; as many as in the complete graph; too few to stay connected at the policy's shares."""
    kit = sparse()
    kit.policy = replace(kit.policy, gamma=0.3, delta=0.3)
    refuse(kit, AbortCode.PARAMS_BELOW_FLOOR, neighbours=k, threshold=min(k, 20), corrupt=0)


def test_a_ring_that_may_fall_apart(sparse: Callable[..., Any]) -> None:
    """All else is fulfilled: every neighbour may be corrupt, and t is above all of them."""
    kit = sparse()
    kit.policy = replace(kit.policy, gamma=0.3, delta=0.3)
    refuse(kit, AbortCode.PARAMS_BELOW_FLOOR, neighbours=4, threshold=5, corrupt=4)
    kit.client(1, params=replace(kit.params, neighbours=16, threshold=17, corrupt=16))


def test_secagg_itself_is_never_sparse(small: Callable[..., Any]) -> None:
    refuse(small(cohort=24), AbortCode.PARAMS_BELOW_FLOOR, neighbours=8, threshold=6, corrupt=2)


def test_too_few_honest_inputs(small: Callable[..., Any]) -> None:
    kit = small()
    kit.policy = replace(kit.policy, allow_small_cohort=False, min_honest=4)
    refuse(kit, AbortCode.COHORT_TOO_SMALL)
    kit.policy = replace(kit.policy, min_honest=3)
    kit.client(1)


def test_parameters_of_a_scheme_are_accepted_by_the_default_policy(kit: Any) -> None:
    for scheme, cohort in (("secagg", 5), ("secagg", 30), ("secagg+", 12), ("secagg+", 24), ("secagg+", 100)):
        one = kit(scheme, cohort=cohort)
        one.policy = replace(one.policy, allow_small_cohort=False)
        one.client(1)
