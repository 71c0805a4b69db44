"""SCAFFOLD through the driver against the published algorithm written down; EMA and prior through a run."""

import numpy as np
import pytest

from merveil.fl.clients import parse_clients, partition
from merveil.fl.driver import Federation, Run
from merveil.fl.options import resolve
from merveil.mer.errors import InputError
from merveil.mer.train import balanced_weights

pytest.importorskip("torch")
STEPS, RATE = 3, 0.05
OPTIONS = {
    "strategy": "scaffold", "local_epochs": STEPS, "lr": RATE, "update_clip": 8.0, "bits": 40,
    "clients": "subject", "rounds": 3,
}  # fmt: skip


def federation(archive, **options):
    chosen = resolve({**OPTIONS, **options})
    return Federation(archive, [Run("", partition(archive, parse_clients(chosen.clients)))], chosen)


def gradient(vector, x, y, weight):
    """Of softmax regression's weighted mean loss at one client, flat: weight [K,d] then bias [K]."""
    k = 3
    w, b = vector[: k * x.shape[1]].reshape(k, -1), vector[k * x.shape[1] :]
    scores = x @ w.T + b
    p = np.exp(scores - scores.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    share = weight[y] / weight[y].sum()
    error = (p - np.eye(k)[y]) * share[:, None]
    return np.concatenate([(error.T @ x).ravel(), error.sum(0)])


def test_it_is_the_published_algorithm(small, linear):
    """With c and c_i kept and sent as in the paper's algorithm 1 (option II), clients weighted."""
    made = federation(small)
    state = made.start()
    x = made.prepared.astype(np.float64)
    weight = balanced_weights(small.y, 3)
    model = state.params[0].copy()
    rows = [client.index for client in made.runs[0].clients]
    mass = np.array([weight[small.y[r]].sum() for r in rows]) / small.n
    control, own = np.zeros_like(model), [np.zeros_like(model) for _ in rows]
    for _ in range(3):
        state, _ = made.advance(state)
        step, change = np.zeros_like(model), np.zeros_like(model)
        for i, r in enumerate(rows):
            local = model.copy()
            for _ in range(STEPS):
                local -= RATE * (gradient(local, x[r], small.y[r], weight) - own[i] + control)
            new = own[i] - control + (model - local) / (STEPS * RATE)
            step += mass[i] * (local - model)
            change += mass[i] * (new - own[i])
            own[i] = new
        model, control = model + step, control + change
        assert np.abs(state.params[0] - model).max() < 2e-6
        assert np.abs(state.moments[0].first - control).max() < 2e-5
    assert np.abs(state.controls - np.array(own)).max() < 2e-4


def test_a_silent_client_keeps_its_control(small, linear):
    made = federation(small, drop_rate=0.5, seed=4)
    state, _ = made.advance(made.start())
    there = set(made.last[0].survivors)
    assert 0 < len(there) < len(made.jobs)
    for i, control in enumerate(state.controls):
        assert np.any(control) == (i in there)


@pytest.mark.parametrize("wrong", [{"optimiser": "adam"}, {"batch": 2}, {"weight_decay": 0.1}])
def test_steps_that_break_the_controls_are_refused(wrong):
    with pytest.raises(InputError, match="scaffold"):
        resolve({**OPTIONS, **wrong})


def test_prior_and_average_leave_only_the_final_model(small, linear):
    """Shifted biases train as if the scores had the log prior added; what predicts has it taken off again."""
    made = federation(small, strategy="fedadamw", optimiser="sgd", local_epochs=1, lr=1.0, server_lr=0.01,
                      logit_tau=1.0, server_ema=0.5, class_weights=False, rounds=2)  # fmt: skip
    state, seen = made.start(), []
    shares = np.bincount(small.y, minlength=3) / small.n
    assert np.array_equal(state.counts[0], np.bincount(small.y, minlength=3))
    first = made.net.init(0).shape[0] - 3
    for _ in range(2):
        state, _ = made.advance(state)
        seen.append(state.params[0])
    mean = (0.5 * seen[0] + seen[1]) / 1.5
    mean[first:] -= np.log(shares)
    assert np.allclose(made.final(state)[0], mean, atol=1e-6)


def test_models_that_do_not_fit_in_memory_are_refused(people):
    runs = [Run(str(k), partition(people, parse_clients("subject"))) for k in range(60)]
    with pytest.raises(InputError, match="head=gap"):
        Federation(people, runs, resolve({"model": "off-apexnet"}))
