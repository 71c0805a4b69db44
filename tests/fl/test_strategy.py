"""Server rules against naive loops, and AdamW against torch's."""

import math

import numpy as np
import pytest

from merveil.fl.strategy import Strategy
from merveil.mer.errors import InputError

RNG = np.random.default_rng(3)
START, DELTAS = RNG.normal(size=7), RNG.normal(size=(5, 7))


def run(strategy):
    params, state = START, strategy.start(len(START))
    for round_, delta in enumerate(DELTAS):
        params, state = strategy.step(params, delta, state, round_)
    return params


@pytest.mark.parametrize("name", ["fedavg", "fedprox"])
def test_fedavg_adds_the_mean_update(name):
    assert np.allclose(run(Strategy(name, server_lr=0.5)), START + 0.5 * DELTAS.sum(0), rtol=0, atol=1e-12)


def test_fedadam_is_algorithm_2_of_reddi_et_al():
    b1, b2, tau, rate = 0.9, 0.99, 1e-3, 0.1
    wanted = START.copy()
    for i in range(len(START)):
        m, v = 0.0, tau * tau
        for delta in DELTAS[:, i]:
            m = b1 * m + (1 - b1) * delta
            v = b2 * v + (1 - b2) * delta * delta
            wanted[i] += rate * m / (math.sqrt(v) + tau)
    found = run(Strategy("fedadam", server_lr=rate, beta1=b1, beta2=b2, tau=tau))
    assert np.allclose(found, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_fedadamw_is_torch_adamw_on_minus_the_update(schedule):
    torch = pytest.importorskip("torch")
    param = torch.nn.Parameter(torch.tensor(START, dtype=torch.float64))
    optimiser = torch.optim.AdamW([param], lr=0.05, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1)
    if schedule == "cosine":
        plan = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=len(DELTAS))
    for delta in DELTAS:
        param.grad = -torch.tensor(delta)
        optimiser.step()
        if schedule == "cosine":
            plan.step()
    strategy = Strategy(
        "fedadamw", server_lr=0.05, tau=1e-8, weight_decay=0.1, schedule=schedule, rounds=len(DELTAS)
    )
    assert np.allclose(run(strategy), param.detach().numpy(), rtol=0, atol=1e-12)


def test_a_step_leaves_its_arguments_alone():
    strategy = Strategy("fedadamw", server_lr=0.1)
    params, state = START.copy(), strategy.start(len(START))
    strategy.step(params, DELTAS[0], state, 0)
    assert np.array_equal(params, START) and not state.first.any() and not state.second.any()


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "fedsgd"},
        {"server_lr": 0.0},
        {"server_lr": math.nan},
        {"tau": -1.0},
        {"beta1": 1.0},
        {"beta2": -0.1},
        {"weight_decay": -1.0},
        {"schedule": "step"},
    ],
)
def test_impossible_constants_are_refused(wrong):
    with pytest.raises(InputError):
        Strategy(**wrong)


def test_ema_is_the_debiased_average_of_the_models():
    strategy = Strategy("fedavg", ema=0.9)
    params, state, seen = np.zeros(3), strategy.start(3), []
    for round_ in range(4):
        params, state = strategy.step(params, np.array([1.0, -2.0, round_]), state, round_)
        seen.append(params)
    share = 0.9 ** np.arange(3, -1, -1)
    assert np.allclose(strategy.final(params, state, 4), share @ np.array(seen) / share.sum())
    assert np.array_equal(Strategy("fedavg").final(params, state, 4), params)


def test_scaffold_moves_its_control_by_the_share_of_survivors():
    strategy = Strategy("scaffold", reach=0.5, server_lr=2.0)
    params, state = strategy.step(np.zeros(2), np.array([1.0, -1.0]), strategy.start(2), 0, share=0.5)
    assert np.allclose(params, [2, -2]) and np.allclose(state.first, [-1, 1])
    _, state = strategy.step(params, np.array([1.0, -1.0]), state, 1)
    assert np.allclose(state.first, [-2, 2])  # all of them: the mean gradient along the way
