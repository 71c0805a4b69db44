"""The engine against naive arithmetic, and what does and does not cross."""

import ast
from pathlib import Path

import numpy as np
import pytest

from merveil.fl.clients import ClientRule, partition
from merveil.fl.driver import Federation, Run, check_cohort, guarantee
from merveil.fl.options import resolve
from merveil.mer.errors import InputError
from merveil.protocols.errors import AbortCode, LocalError
from merveil.protocols.registry import names

torch = pytest.importorskip("torch")
ROOT = Path(__file__).parents[2]
EXACT = [name for name in names() if name != "ckks"]


def federation(archive, record=False, train=None, label="", **options):
    defaults = {
        "rounds": 4,
        "server_lr": 0.05,
        "update_clip": 4.0,
        "bits": 30,
        "local_epochs": 1,
        "optimiser": "sgd",
    }
    chosen = resolve(defaults, options)
    rule = ClientRule(chosen.clients)
    return Federation(archive, [Run(label, partition(archive, rule, train))], chosen, record=record)


def run(fed):
    state = fed.start()
    while state.rounds < fed.options.rounds:
        state, reports = fed.advance(state)
    return state, reports


def pooled_gradient(archive, params, rows, weights):
    """Gradient of sum(w l) / sum(w) over rows, by torch on its own; float64 [P]."""
    x = torch.tensor(archive.x[rows].reshape(len(rows), -1) / 255.0 - 0.5, dtype=torch.float64)
    y = torch.tensor(archive.y[rows])
    leaf = torch.tensor(params, dtype=torch.float64, requires_grad=True)
    pixels = x.shape[1]
    weight, bias = leaf[: 3 * pixels].view(3, pixels), leaf[3 * pixels :]
    loss = torch.nn.functional.cross_entropy(x @ weight.T + bias, y, torch.tensor(weights))
    return torch.autograd.grad(loss, leaf)[0].numpy()


def balanced(archive, rows):
    counts = np.bincount(archive.y[rows], minlength=3)
    return np.where(counts > 0, len(rows) / ((counts > 0).sum() * np.maximum(counts, 1)), 0.0)


@pytest.mark.parametrize("clients", ["subject", "site"])
@pytest.mark.parametrize("bits", [16, 30])
def test_fedavg_of_one_full_batch_step_is_the_central_step(small, linear, clients, bits):
    fed = federation(small, clients=clients, strategy="fedavg", lr=0.5, server_lr=1.0, rounds=1, bits=bits)
    state, _ = run(fed)
    start = fed.start().params[0]
    rows = np.arange(small.n)
    wanted = start - 0.5 * pooled_gradient(small, start, rows, balanced(small, rows))
    total = sum(client.clips for client in fed.runs[0].clients)
    largest = max(client.clips for client in fed.runs[0].clients)
    step = 4.0 / ((1 << (bits - 1)) - 1)
    bound = len(fed.runs[0].clients) * (1 << (largest - 1).bit_length()) / total * step
    error = np.abs(state.params[0] - wanted).max()
    assert error <= bound + 3e-7  # float32 of the local step
    assert bits > 16 or error > 1e-7  # the bound is met, not avoided: the grid is really there


def test_fedavg_of_local_epochs_against_a_loop_over_clients(small, linear):
    fed = federation(small, strategy="fedavg", lr=0.3, server_lr=0.7, rounds=2, local_epochs=3)
    state, _ = run(fed)
    weights = balanced(small, np.arange(small.n))
    params = fed.start().params[0]
    for _ in range(2):
        total, mass = np.zeros_like(params), 0
        for client in fed.runs[0].clients:
            local = params.copy()
            for _ in range(3):
                local -= 0.3 * pooled_gradient(small, local, client.index, weights)
            importance = weights[small.y[client.index]].mean()
            total += client.clips * importance * (local - params)
            mass += client.clips
        params = params + 0.7 * total / mass
    assert np.allclose(state.params[0], params, rtol=0, atol=2e-6)


def test_fedprox_pulls_towards_the_global_model(small, linear):
    mu, lr = 0.8, 0.3
    fed = federation(small, strategy="fedprox", prox_mu=mu, lr=lr, server_lr=1.0, rounds=1, local_epochs=4)
    state, _ = run(fed)
    weights = balanced(small, np.arange(small.n))
    params = fed.start().params[0]
    total, mass = np.zeros_like(params), 0
    for client in fed.runs[0].clients:
        local = params.copy()
        for _ in range(4):
            local -= lr * (pooled_gradient(small, local, client.index, weights) + mu * (local - params))
        total += client.clips * weights[small.y[client.index]].mean() * (local - params)
        mass += client.clips
    assert np.allclose(state.params[0], params + total / mass, rtol=0, atol=2e-6)


def test_fedadamw_of_gradients_is_central_adamw(small, linear):
    options = {"lr": 1.0, "server_lr": 0.02, "server_weight_decay": 0.1, "tau": 1e-6}
    fed = federation(small, rounds=15, bits=38, **options)
    state, _ = run(fed)
    leaf = torch.nn.Parameter(torch.tensor(fed.start().params[0]))
    optimiser = torch.optim.AdamW([leaf], lr=0.02, weight_decay=0.1, eps=1e-6)
    rows = np.arange(small.n)
    for _ in range(15):
        gradient = pooled_gradient(small, leaf.detach().numpy(), rows, balanced(small, rows))
        leaf.grad = torch.tensor(gradient)
        optimiser.step()
    assert np.allclose(state.params[0], leaf.detach().numpy(), rtol=0, atol=1e-4)


def test_a_capped_weight_counts_less(small, linear):
    fed = federation(small, strategy="fedavg", lr=0.5, server_lr=1.0, rounds=1, max_weight=2)
    state, _ = run(fed)
    start, weights = fed.start().params[0], balanced(small, np.arange(small.n))
    total, mass = np.zeros_like(start), 0
    for client in fed.runs[0].clients:
        weight = min(client.clips, 2)
        importance = weights[small.y[client.index]].mean()
        total -= 0.5 * weight * importance * pooled_gradient(small, start, client.index, weights)
        mass += weight
    assert np.allclose(state.params[0], start + total / mass, rtol=0, atol=1e-6)


@pytest.mark.parametrize("scheme", EXACT)
def test_class_counts_come_from_the_secure_sum(small, linear, scheme):
    state = federation(small, scheme=scheme).start()
    assert state.counts[0].tolist() == np.bincount(small.y, minlength=3).tolist()


def test_an_absent_class_weighs_nothing_and_the_others_balance(small, linear):
    rows = np.flatnonzero(small.y != 2)
    fed = federation(small, train=rows)
    weights = fed.class_weights(fed.start())[0]
    assert weights[2] == 0
    assert np.isclose(weights[small.y[rows]].mean(), 1)


def test_a_client_with_one_clip_or_one_class_trains(people):
    fed = federation(people, update_clip=64.0, rounds=1)
    state = fed.start()
    updates = fed._trainer.updates(state.params.astype(np.float32), fed.class_weights(state), 0)
    single = [job.client.clips == 1 for job in fed.jobs].index(True)
    one_class = [len(set(people.y[job.client.index])) == 1 for job in fed.jobs].index(True)
    assert np.abs(updates[single]).max() > 0 and np.abs(updates[one_class]).max() > 0


def test_all_exact_schemes_and_repeats_give_the_same_bits(people):
    models = [run(federation(people, scheme=scheme, update_clip=64.0))[0] for scheme in [*EXACT, "plain"]]
    assert all(np.array_equal(models[0].params, other.params) for other in models)


def test_another_seed_is_another_model(people):
    first, second = (run(federation(people, seed=seed, update_clip=64.0))[0] for seed in (0, 1))
    assert not np.array_equal(first.params, second.params)


def test_a_run_does_not_depend_on_the_runs_beside_it(people):
    parts = [np.flatnonzero(people.person != person) for person in people.persons()[:3]]
    options = resolve({"rounds": 2, "server_lr": 0.01, "update_clip": 64.0})
    runs = [Run(str(k), partition(people, ClientRule("subject"), part)) for k, part in enumerate(parts)]
    together, _ = run(Federation(people, runs, options))
    alone, _ = run(Federation(people, runs[1:2], options))
    assert np.allclose(together.params[1], alone.params[0], rtol=0, atol=1e-5)


def test_simulated_dropouts_leave_the_mean_of_the_survivors(small, linear):
    fed = federation(
        small, strategy="fedavg", lr=0.5, server_lr=1.0, rounds=1, drop_rate=0.5, class_weights=False
    )
    state, reports = run(fed)
    kept = fed.last[0].survivors
    assert 0 < len(kept) < 7 and reports[0].survivors == len(kept)
    rows = np.concatenate([fed.runs[0].clients[i].index for i in kept])
    start = fed.start().params[0]
    wanted = start - 0.5 * pooled_gradient(small, start, rows, np.ones(3))
    assert np.allclose(state.params[0], wanted, rtol=0, atol=1e-6)
    again, _ = run(
        federation(
            small, strategy="fedavg", lr=0.5, server_lr=1.0, rounds=1, drop_rate=0.5, class_weights=False
        )
    )
    assert np.array_equal(again.params, state.params)


def test_no_count_crosses_outside_the_summed_vector(small, linear):
    """Two federations that differ in clip counts only send frames of equal kinds, routes and lengths."""
    fed = federation(small, record=True, rounds=1, max_weight=16)
    run(fed)
    fewer = [Run("", tuple(type(c)(c.name, c.index[:1]) for c in fed.runs[0].clients))]
    other = Federation(small, fewer, fed.options, record=True)
    run(other)
    shapes = [
        [(frame.kind, frame.sender, frame.to, len(frame.body)) for frame in f.last[0].transcript.frames]
        for f in (fed, other)
    ]
    assert shapes[0] == shapes[1] and len(shapes[0]) >= 7


@pytest.mark.parametrize("scheme", [name for name in EXACT if name != "plain"])
def test_a_hidden_count_is_not_in_a_secure_frame(small, linear, scheme):
    """What plain shows as its last coordinate is masked: over sessions it takes other values."""
    bodies = []
    for _ in range(2):
        fed = federation(small, record=True, rounds=1, scheme=scheme)
        run(fed)
        transcript = fed.last[0].transcript
        bodies.append([f.body for f in transcript.frames if len(f.body) > transcript.params.dim])
    assert bodies[0] and all(a != b for a, b in zip(*bodies, strict=True))


def test_the_seed_never_reaches_the_protocols_randomness(small, linear):
    """One seed, two runs: the models are equal and not one frame with a nonce or key is."""
    feds = [federation(small, record=True, rounds=1) for _ in range(2)]
    states = [run(fed)[0] for fed in feds]
    assert np.array_equal(states[0].params, states[1].params)
    contexts = [fed.last[0].transcript.context for fed in feds]
    assert contexts[0] != contexts[1]
    bodies = [{frame.body for frame in fed.last[0].transcript.frames} for fed in feds]
    assert not bodies[0] & bodies[1]


def test_federation_code_names_no_seeded_generator_of_the_protocols():
    for path in (ROOT / "fl").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names_here = [alias.name for alias in getattr(node, "names", [])]
            assert "SeededRng" not in names_here, path
            if isinstance(node, ast.ImportFrom):
                assert node.module != "merveil.protocols.rng", path


def test_too_large_updates_are_an_error_that_names_round_and_way_out(people):
    with pytest.raises(LocalError, match=r"round 1: .*client \d+.*raise clip"):
        run(federation(people, update_clip=1e-4))


def test_batch_statistics_cannot_be_federated(people):
    with pytest.raises(InputError, match="use norm=group"):
        federation(people, model_options={"norm": "batch"})


def test_no_client_is_an_input_error():
    with pytest.raises(InputError, match="no client with a clip"):
        check_cohort("plain", "subject", 0)


def test_plain_takes_two_sites_and_says_that_it_hides_nothing():
    check_cohort("plain", "site", 2)
    assert guarantee("plain", 2).startswith("none: the server reads every client's update")


@pytest.mark.parametrize("scheme", [name for name in names() if name != "plain"])
def test_secure_schemes_refuse_too_few_clients_with_a_way_out(scheme):
    with pytest.raises(InputError, match=r"--clients site gives 2 clients.*site:K"):
        check_cohort(scheme, "site", 2)
    check_cohort(scheme, "subject", 24)
    assert "honest" in guarantee(scheme, 24)


def test_unknown_schemes_are_named():
    with pytest.raises(LocalError, match="unknown scheme"):
        check_cohort("rot13", "subject", 9)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_no_client_trains_on_a_model_without_numbers(small, linear, monkeypatch, value):
    fed = federation(small)
    state = fed.start()
    state.params[0, 0] = value

    def trained(*_):
        raise AssertionError("a client trained on it")

    monkeypatch.setattr(fed._trainer, "updates", trained)
    with pytest.raises(LocalError, match="round 1: the model holds values that are no numbers") as error:
        fed.advance(state)
    assert error.value.code is AbortCode.INPUT_NOT_FINITE
