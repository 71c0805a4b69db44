"""DP-SGD at the clients: Opacus as oracle of clipping, accountants as oracles of each other, the budget."""

import json
import math

import numpy as np
import pytest

from merveil.fl import dp_sgd
from merveil.fl.clients import parse_clients, partition
from merveil.fl.dp_ledger import BudgetSpent
from merveil.fl.dp_sgd_ledger import ClipBudget
from merveil.fl.driver import Federation, Run
from merveil.fl.evaluate import federated_predictions
from merveil.fl.options import resolve
from merveil.fl.privacy_sgd import cost, epsilon, sampled_gaussian, solve
from merveil.fl.runs import RunLog
from merveil.fl.train import Target, train
from merveil.mer.data.splits import parse_protocol
from merveil.mer.errors import InputError
from merveil.mer.models.stacked import build
from merveil.protocols.dp.clips import clip_step
from merveil.protocols.errors import LocalError

torch = pytest.importorskip("torch")

# The Renyi accountant needs no extra and is fast; Opacus's is tried where it says so.
SGD = {
    "dp": "sgd",
    "epsilon": 8.0,
    "delta": 1e-3,
    "norm_clip": 0.5,
    "batch": 4,
    "rounds": 3,
    "sgd_accountant": "rdp",
    "max_cut": 1.0,
}
BOTH = {**SGD, "dp": "distributed+sgd", "sgd_clip": 0.5, "sgd_epsilon": 6.0, "sgd_delta": 1e-4, "bits": 24}
QUIET = RunLog(verbosity=-1)


def options(**changes):
    return resolve({**SGD, **changes})


def federation(archive, **changes):
    return Federation(archive, [Run("", partition(archive, parse_clients("subject")))], options(**changes))


@pytest.mark.parametrize("name", ["ststnet", "flow-mlp"])
def test_gradients_of_single_clips_are_those_of_autograd_and_the_same_alone(name, people):
    net = build(name, 3, 28, 28, 3)
    x, y = torch.from_numpy(net.prepare(people.x)), people.y
    params = torch.from_numpy(net.init(1)[None])
    clips = np.array([0, 3, 11, 20])
    found = [dp_sgd.clip_gradients(net, params, x, y, clips[i : i + 1], 0.1)[0] for i in range(4)]
    for at, clip in enumerate(clips):
        leaf = params.clone().requires_grad_()
        scores = net.logits(leaf, x[clip][None, None], train=True)[0]
        loss = torch.nn.functional.cross_entropy(
            scores, torch.tensor([y[clip]]), label_smoothing=0.1, reduction="sum"
        )
        loss.backward()
        assert found[at] == pytest.approx(leaf.grad[0].numpy(), rel=1e-4, abs=1e-5)
    together = dp_sgd.TOGETHER.get(name, 1)
    for size in {min(together, n) for n in (1, 2, 21, 63, 64)}:
        for place in {0, 1, size // 2, size - 1} & set(range(size)):
            rows = np.arange(size) % people.n
            rows[place] = 20
            again = dp_sgd.clip_gradients(net, params.repeat(size, 1), x, y, rows, 0.1)
            assert (again[place] == found[3]).all()  # other clips do not change its last bit either


def test_sums_are_those_of_opacus():
    """Per-sample gradients and flat clipping of GradSampleModule and DPOptimizer, against ours."""
    opacus = pytest.importorskip("opacus")
    torch.manual_seed(0)
    n, d, k, clip = 6, 10, 3, 0.4
    x, y = torch.randn(n, d), torch.tensor([0, 1, 2, 0, 1, 2])
    model = opacus.GradSampleModule(torch.nn.Linear(d, k))
    optimiser = opacus.optimizers.DPOptimizer(
        torch.optim.SGD(model.parameters(), lr=1.0),
        noise_multiplier=0.0,
        max_grad_norm=clip,
        expected_batch_size=4,
    )
    torch.nn.functional.cross_entropy(model(x), y, reduction="sum").backward()
    optimiser.pre_step()
    theirs = np.concatenate([p.grad.detach().numpy().ravel() for p in model.parameters()])
    samples = torch.cat([p.grad_sample.flatten(1) for p in model.parameters()], 1).numpy()
    assert (np.linalg.norm(samples, axis=1) > clip).any()
    step = clip_step(samples.shape[1], clip, 1.0, 1.0, 4.0)
    ours = step.codes(samples).sum(0) * step.step / step.batch
    assert ours == pytest.approx(theirs / 1.0, abs=n * step.step)


@pytest.mark.parametrize("multiplier, rate, steps", [(1.0, 0.5, 60), (2.0, 0.2, 50), (8.0, 1.0, 60)])
def test_the_accountants_agree_within_a_percent(multiplier, rate, steps):
    pytest.importorskip("opacus")
    pytest.importorskip("dp_accounting")
    prv, pld = (sampled_gaussian(multiplier, rate, steps, 1e-5, tool) for tool in ("prv", "pld"))
    assert prv == pytest.approx(pld, rel=0.01)


@pytest.mark.parametrize("multiplier, rate, steps", [(1.0, 0.1, 60), (2.0, 0.2, 50), (8.0, 0.5, 600)])
def test_the_renyi_figure_is_that_of_others_at_the_same_orders(multiplier, rate, steps):
    rdp = pytest.importorskip("dp_accounting.rdp")
    accounting = pytest.importorskip("dp_accounting")
    from merveil.fl.privacy_sgd import _ORDERS

    event = accounting.PoissonSampledDpEvent(rate, accounting.GaussianDpEvent(multiplier))
    theirs = rdp.RdpAccountant(orders=_ORDERS.tolist()).compose(event, steps).get_epsilon(1e-5)
    ours = sampled_gaussian(multiplier, rate, steps, 1e-5, "rdp")
    assert ours == pytest.approx(theirs, rel=0.01)
    pytest.importorskip("opacus")
    from opacus.accountants import RDPAccountant

    opacus = RDPAccountant()
    opacus.history = [(multiplier, rate, steps)]
    assert ours == pytest.approx(opacus.get_epsilon(1e-5, alphas=_ORDERS.tolist()), rel=0.01)


@pytest.mark.parametrize("accountant", ["rdp", "prv"])
def test_solve_meets_its_target_and_counts_what_was_spent(accountant):
    pytest.importorskip("opacus")
    args = (100, 1.0, 0.5, 4.0)
    step = solve(*args, target=6.0, delta=1e-5, steps=20, accountant=accountant)
    assert 5.7 < epsilon([(cost(step), 20)], 1e-5, accountant) <= 6.0
    if accountant == "prv":
        return
    spent = ((cost(step), 10),)
    more = solve(*args, target=6.0, delta=1e-5, steps=20, accountant=accountant, spent=spent)
    assert more.multiplier > step.multiplier
    assert epsilon([*spent, (cost(more), 20)], 1e-5, accountant) <= 6.0
    with pytest.raises(LocalError, match="budget is spent"):
        solve(*args, target=6.0, delta=1e-5, steps=1, accountant=accountant, spent=((cost(step), 25),))
    assert math.isinf(epsilon([((1.0, 0.5, cost(step)[2] * 10**30), 5)], 1e-5, accountant))


def test_each_client_pays_for_the_steps_it_takes_and_no_more(linear, people):
    fed = federation(people, drop_rate=0.3, local_epochs=2, epsilon=20.0)
    state, seen = fed.start(), dict.fromkeys((c.name for c in fed.runs[0].clients), 0)
    for round_ in range(3):
        silent = fed._dropped(fed.runs[0], round_)
        for i, client in enumerate(fed.runs[0].clients):
            seen[client.name] += 0 if i in silent else 2
        state, _ = fed.advance(state)
    budget = fed.clip_budgets[0]
    assert {name: budget.steps(name) for name in seen} == seen and len(set(seen.values())) > 1
    assert budget.epsilon() == max(budget.epsilon(name) for name in seen) <= 20.0
    assert min(budget.epsilon(name) for name in seen) < budget.epsilon()


def test_no_count_of_a_client_shapes_what_it_sends(linear, people, monkeypatch):
    """Weights of 1, and the noise alone where a client's clips have no gradient: n = 1 looks like n = 9."""
    fed = federation(people, epsilon=30.0)
    assert fed.step.batch == 4.0 and fed.step.rate == 0.5
    monkeypatch.setattr(dp_sgd, "clip_gradients", lambda net, v, x, y, clips, s: np.zeros((len(clips), 147)))
    fed.step = clip_step(147, 1.0, 0.05, 0.5, 4.0)
    spread = {}
    rows = np.full((2, 9), -1)
    rows[0, 0], rows[1] = 0, np.arange(9)
    sums = dp_sgd.private_sums(fed.net, torch.zeros(2, 147), None, people.y, rows, fed.step, 0.0)
    assert not sums.any()
    got = fed.step.release(np.repeat(sums[None], 200, 0))
    spread = got.std(axis=(0, 2))
    assert spread[0] == pytest.approx(spread[1], rel=0.05)


def test_sums_are_of_the_clips_that_the_coins_drew(people, monkeypatch):
    """What A29 audits is what training runs: each client's sum of codes over its drawn clips, over passes."""
    net = build("ststnet", 3, 28, 28, 3)
    x, y = torch.from_numpy(net.prepare(people.x)), people.y
    clients = partition(people, parse_clients("subject"))
    rows = np.full((len(clients), 9), -1)
    for i, client in enumerate(clients):
        rows[i, : client.clips] = client.index
    drawn = np.random.default_rng(4).random(rows.shape) < 0.6
    monkeypatch.setattr("merveil.protocols.dp.clips.ClipStep.sample", lambda self, shape: drawn)
    monkeypatch.setitem(dp_sgd.TOGETHER, "ststnet", 4)  # several passes, cut within a client
    values = torch.from_numpy(np.stack([net.init(i) for i in range(len(clients))]))
    step = clip_step(net.size, 0.5, 1.0, 0.6, 4.0)
    got = dp_sgd.private_sums(net, values, x, y, rows, step, 0.1)
    for i in range(len(clients)):
        mine = rows[i][drawn[i] & (rows[i] >= 0)]
        single = [
            dp_sgd.clip_gradients(net, values[i : i + 1], x, y, mine[j : j + 1], 0.1)
            for j in range(len(mine))
        ]
        wanted = sum((step.codes(g)[0] for g in single), np.zeros(net.size, np.int64))
        assert np.array_equal(got[i], wanted)


def test_clip_counts_do_not_cross(linear, people):
    """Weights of 1 on the wire: a client of nine clips and one of a single clip count alike."""
    runs = [Run("", partition(people, parse_clients("subject")))]
    fed = Federation(people, runs, options(epsilon=30.0), record=True)
    fed.advance(fed.start())
    assert not fed.last[0].transcript.params.weighted and fed.last[0].weight == len(runs[0].clients)


def test_training_learns_where_noise_is_small(linear, make):
    archive = make([[0, 1, 2]] * 6, side=4)
    fed = federation(
        archive, epsilon=300.0, rounds=25, strategy="fedavg", lr=8.0, sgd_rate=1.0, optimiser="sgd"
    )
    state = fed.start()
    from merveil.mer.train import predict_stack

    for _ in range(25):
        state, _ = fed.advance(state)
    found = predict_stack(fed.net, state.params.astype(np.float32), fed.prepared)[0].argmax(1)
    assert (found == archive.y).mean() > 0.8


def test_ledger_of_clients_survives_adds_up_and_refuses_before_it_is_too_much(tmp_path):
    path, one = tmp_path / "clips.json", (2.0, 0.5, cost(clip_step(10, 1.0, 2.0, 0.5, 4.0))[2])
    with ClipBudget(path, "f", 6.0, 1e-5, "rdp") as budget:
        budget.charge(one, ["a", "b"], 2)
        budget.charge(one, ["a"], 1)
    with ClipBudget(path, "f", 6.0, 1e-5, "rdp") as budget:
        assert (budget.steps("a"), budget.steps("b"), budget.steps("c")) == (3, 2, 0)
        assert budget.epsilon("b") < budget.epsilon("a") == budget.epsilon()
        before = path.read_bytes()
        with pytest.raises(BudgetSpent, match="client a to epsilon"):
            budget.charge(one, ["a", "b"], 50)
        assert path.read_bytes() == before and budget.steps("b") == 2
    value = json.loads(before)
    for change in ({"unit": "client"}, {"charges": [{"multiplier": 1.0}]}, {"format": 3}):
        path.write_text(json.dumps({**value, **change}))
        with pytest.raises(LocalError, match=r"damaged|another format or unit"):
            ClipBudget(path, "f", 6.0, 1e-5, "rdp")
    path.write_text(json.dumps({**value, "federation": "g"}))
    with pytest.raises(LocalError, match="other data"):
        ClipBudget(path, "f", 6.0, 1e-5, "rdp")


def test_a_nearly_spent_budget_of_the_clips_is_refused_above_twice_the_noise():
    """The limit is looked for between two budgets: on one side a step, on the other a word that helps."""
    chosen, dim, clips = options(rounds=10), 100, 30
    whole = dp_sgd.step_for(chosen, dim, clips, ClipBudget(None, "f", 8.0, 1e-3, "rdp"))
    small = cost(clip_step(dim, 0.5, 8 * whole.multiplier, 0.5, 4.0))

    def used(steps):
        found = ClipBudget(None, "f", 8.0, 1e-3, "rdp")
        found._steps = {small: {"a": steps, "b": 1}}
        return found

    low, high = 1, 1
    while used(2 * high).epsilon() < 7.9:
        high *= 2
    high = int(high * 1.9)
    while used(high).epsilon() > 7.9:
        high = int(0.97 * high)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            dp_sgd.step_for(chosen, dim, clips, used(middle))
            low = middle
        except BudgetSpent:
            high = middle
    found = dp_sgd.step_for(chosen, dim, clips, used(low))
    assert 1.9 < found.multiplier / whole.multiplier <= 2
    with pytest.raises(BudgetSpent, match="more than 2 times is refused") as caught:
        dp_sgd.step_for(chosen, dim, clips, used(high))
    needed = epsilon([(small, high), (cost(whole), 10)], 1e-3, "rdp")
    assert f"bring it to {needed:.4g}" in str(caught.value)
    assert f"paid epsilon {used(high).epsilon():.4g} of 8 at delta 0.001" in str(caught.value)
    more = options(rounds=10, epsilon=math.ceil(100 * needed) / 100)
    assert dp_sgd.step_for(more, dim, clips, used(high)).multiplier <= 2 * whole.multiplier


def test_a_killed_run_pays_twice_and_stops_before_epsilon_is_exceeded(tmp_path, linear, small, monkeypatch):
    chosen = options(scheme="secagg", rounds=4, checkpoint_every=2)
    real, calls = Federation.advance, []

    def killed(self, state):
        if len(calls) == 3:
            raise MemoryError("killed")
        calls.append(state.rounds)
        return real(self, state)

    monkeypatch.setattr(Federation, "advance", killed)
    with pytest.raises(MemoryError):
        train(small, "s", chosen, Target(tmp_path / "a"), QUIET)
    monkeypatch.setattr(Federation, "advance", real)
    before = json.loads((tmp_path / "a" / "manifest.json").read_text())
    done = train(small, "s", chosen, Target(tmp_path / "a", resume=True), QUIET)
    assert done["rounds"] == 3 and done["privacy"]["steps"] == 4 and done["privacy"]["epsilon"] <= 8.0
    assert done["privacy"]["step"] == before["privacy"]["step"]
    with pytest.raises(BudgetSpent, match="budget is spent"):
        train(small, "s", options(epsilon=7.5), Target(tmp_path / "b"), QUIET)
    more = train(small, "s", options(epsilon=20.0), Target(tmp_path / "c"), QUIET)
    assert more["privacy"]["steps"] == 7 and 8 < more["privacy"]["epsilon"] <= 20
    (ledger,) = tmp_path.glob("dp-ledger-*-clips.json")
    ledger.unlink()
    with pytest.raises(LocalError, match="is gone"):
        train(small, "s", chosen, Target(tmp_path / "a", resume=True), QUIET)


def test_both_levels_have_budgets_of_their_own(tmp_path, linear, small):
    chosen = resolve({**BOTH, "scheme": "secagg"})
    done = train(small, "s", chosen, Target(tmp_path / "a"), QUIET)
    outer, inner = done["privacy"], done["privacy"]["clips"]
    assert (outer["unit"], outer["dp"], inner["unit"]) == ("client", "distributed", "clip")
    assert 7.5 < outer["epsilon"] <= 8 and 5 < inner["epsilon"] <= 6 and inner["delta"] == 1e-4
    assert "client-level" in done["guarantee"] and "clip-level" in done["guarantee"]
    assert len(list(tmp_path.glob("dp-ledger-*.json"))) == 2
    assert train(small, "s", chosen, Target(tmp_path / "a", resume=True), QUIET)["privacy"] == outer


@pytest.mark.parametrize("accountant", ["rdp", "prv"])
def test_evaluation_names_accountant_unit_and_scope(linear, make, accountant):
    if accountant == "prv":
        pytest.importorskip("opacus")
    archive = make([[0, 1, 2]] * 12, side=4)
    folds = parse_protocol("kfold:2").folds(archive, 0)
    chosen = {name: value for name, value in SGD.items() if name != "rounds"}
    run = federated_predictions(
        archive, folds, scheme="secagg", rounds=2, options={**chosen, "sgd_accountant": accountant}
    )
    told = run.info["privacy"]
    assert told["epsilon"] <= 8.0 and told["steps"] == 2 and told["unit"] == "clip"
    assert accountant.upper() in told["accountant"] and "Poisson" in told["participation"]
    assert "added to or removed" in told["relation"] and "the scores, have no guarantee" in told["scope"]
    assert "clip-level" in run.info["guarantee"]


@pytest.mark.parametrize(
    "base, changes, word",
    [
        (SGD, {"batch": 0}, "--batch"),
        (SGD, {"sgd_rate": 0.0}, "sgd_rate"),
        (SGD, {"sgd_accountant": "guess"}, "sgd_accountant"),
        (SGD, {"sgd_clip": 1.0}, "takes --norm-clip"),
        (SGD, {"sgd_epsilon": 1.0}, "takes --epsilon"),
        (SGD, {"dp_unit": "client"}, "--dp-unit clip"),
        (SGD, {"class_weights": True}, "--no-class-weights"),
        (BOTH, {"sgd_clip": 0.0}, "needs sgd_clip"),
        (BOTH, {"dp_unit": "clip"}, "--dp-unit client"),
        (BOTH, {"scheme": "ckks"}, "not with ckks"),
        (SGD, {"dp": "sgd+central"}, "not known"),
        ({"rounds": 3}, {"sgd_clip": 1.0}, "no effect"),
    ],
)
def test_options_that_would_break_the_guarantee_are_refused(base, changes, word):
    with pytest.raises(InputError, match=word):
        resolve({**base, **changes})


def test_delta_at_one_over_the_clips_is_refused(linear, people):
    with pytest.raises(InputError, match="publishes one clip whole"):
        federation(people, delta=0.04)


def test_idle_options_change_no_hash():
    base = {"rounds": 3, "dp": "central", "epsilon": 1.0, "delta": 1e-3, "norm_clip": 1.0}
    assert resolve(base).sha256 == resolve({**base, "sgd_rate": 0.1}).sha256
    assert options().sha256 != options(sgd_rate=0.1).sha256
