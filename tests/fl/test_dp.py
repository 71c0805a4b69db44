"""Differential privacy through a federation: budget, ledger, what is refused and what is told."""

import json
import math
from fractions import Fraction

import numpy as np
import pytest

from merveil.fl.clients import parse_clients, partition
from merveil.fl.dp import (
    DROWNED,
    PrivateAggregator,
    drowned,
    federation_id,
    from_json,
    mechanism_for,
    noise_to_clip,
    report,
    stretched,
    to_json,
)
from merveil.fl.dp_ledger import Budget, BudgetSpent
from merveil.fl.driver import Federation, Run
from merveil.fl.evaluate import federated_predictions
from merveil.fl.options import resolve
from merveil.fl.privacy_sgd import sampled_gaussian
from merveil.fl.runs import RunLog
from merveil.fl.train import Target, retrained_sha256, train
from merveil.mer.data.splits import parse_protocol
from merveil.mer.errors import InputError
from merveil.protocols.dp.accountant import Release, epsilon
from merveil.protocols.dp.discrete import plan
from merveil.protocols.errors import LocalError

DP = {"dp": "distributed", "epsilon": 8.0, "delta": 1e-3, "norm_clip": 1.0, "rounds": 3}
QUIET = RunLog(verbosity=-1)
RELEASE = Release("skellam", 100, 16, 2, Fraction(300), Fraction(0))


def options(**changes):
    return resolve({**DP, **changes})


@pytest.mark.parametrize("scheme", ["plain", "secagg", "secagg+"])
def test_the_sum_of_a_scheme_decodes_to_the_mean_within_its_noise(scheme):
    n, dim = 9, 50
    updates = [np.random.default_rng(i).normal(size=dim) * 0.02 for i in range(n)]
    honest = 1 if scheme == "plain" else 4
    mechanism = plan("skellam", dim, n, honest, 1.0, 0.05)
    budget = Budget(None, "f", math.inf, 1e-5)
    sums = PrivateAggregator(scheme, mechanism, budget)
    got = sums.mean(updates, drop={2: sums._scheme.phases[0].value}, model_hash=bytes(32))
    assert got.survivors == (0, 1, 3, 4, 5, 6, 7, 8) and got.weight == 8 and got.cut == 0
    wanted = np.mean([u for i, u in enumerate(updates) if i != 2], axis=0)
    assert np.abs(got.value - wanted).max() < 6 * mechanism.noise_of_mean(8) + mechanism.step
    assert budget.uploads == 1
    with pytest.raises(LocalError, match="takes no weights"):
        sums.mean(updates, [1] * n, model_hash=bytes(32))
    with pytest.raises(LocalError, match="client 1: INPUT_NOT_FINITE"):
        sums.mean([updates[0], np.full(dim, np.nan), *updates[2:]], model_hash=bytes(32))
    assert budget.uploads == 1


def test_an_aborted_round_is_paid():
    mechanism = plan("skellam", 20, 9, 4, 1.0, 3.0)
    budget = Budget(None, "f", 100.0, 1e-5)
    sums = PrivateAggregator("secagg", mechanism, budget)
    updates = [np.zeros(20)] * 9
    with pytest.raises(Exception, match="BELOW_THRESHOLD"):
        sums.mean(updates, drop=dict.fromkeys(range(5), "UNMASK"), model_hash=bytes(32))
    assert budget.uploads == 1


def everywhere():
    """(scheme, phase) of every scheme that distributed noise composes with."""
    from merveil.fl.dp_options import SCHEMES
    from merveil.protocols.registry import get, names

    able = [name for name in names() if "distributed" in SCHEMES.get(name, ())]
    return [(name, phase.value) for name in able for phase in get(name).phases]


@pytest.mark.parametrize("scheme, phase", everywhere())
def test_a_dropout_at_any_phase_leaves_the_exact_noisy_sum_of_the_survivors(scheme, phase):
    """And a round that a phase's dropouts abort is charged all the same: masked uploads had left."""
    from merveil.protocols.dp.rotation import unrotate
    from merveil.protocols.primitives.kdf import hash_fields
    from merveil.protocols.registry import get

    n, dim = 9, 40
    params = get(scheme).params(n, dim)
    mechanism = plan("skellam", dim, n, params.honest, 1.0, 1.0)
    budget = Budget(None, "f", math.inf, 1e-5)
    sums = PrivateAggregator(scheme, mechanism, budget, record=True)
    updates = [np.random.default_rng(i).normal(size=dim) * 0.05 for i in range(n)]
    got = sums.mean(updates, drop={0: phase, 8: phase}, model_hash=bytes(32))
    codes = {i - 1: state["codes"] for i, state in got.transcript.states.items()}
    total = np.sum([codes[i] for i in got.survivors], axis=0)
    public = hash_fields("dp/1/rotation", bytes(32))
    wanted = unrotate(total * (mechanism.step / len(got.survivors)), public, dim)
    assert len(got.survivors) >= 7 and got.value == pytest.approx(wanted, abs=1e-12)
    assert set(range(1, 8)) <= set(got.survivors) and budget.uploads == 1
    assert all(np.abs(c).max() <= mechanism.levels for c in codes.values())
    if scheme == "plain":
        return
    with pytest.raises(Exception, match="BELOW_THRESHOLD"):
        sums.mean(updates, drop=dict.fromkeys(range(n - params.threshold + 1), phase), model_hash=bytes(32))
    assert budget.uploads == 2


@pytest.mark.parametrize("scheme", ["ckks", "lattice"])
def test_central_noise_composes_with_every_exact_sum(scheme):
    if scheme == "ckks":
        pytest.importorskip("tenseal")
    else:
        pytest.importorskip("numba")
    mechanism = plan("gaussian", 30, 9, 1, 1.0, 0.05, central=True)
    got = PrivateAggregator(scheme, mechanism, Budget(None, "f", math.inf, 1e-5)).mean(
        [np.full(30, 0.05)] * 9, model_hash=bytes(32)
    )
    assert got.value == pytest.approx(np.full(30, 0.05), abs=6 * mechanism.noise_of_mean(9) + mechanism.step)


def test_the_noise_counts_on_no_more_shares_than_the_scheme_keeps():
    budget = Budget(None, "f", 8.0, 1e-3)
    alone = mechanism_for(options(scheme="plain"), 100, 9, budget)
    many = mechanism_for(options(scheme="secagg"), 100, 9, budget)
    assert (alone.honest, many.honest) == (1, 4)
    assert float(alone.variance) == pytest.approx(4 * float(many.variance), rel=0.01)
    too_few = plan("skellam", 100, 9, 5, 1.0, 1.0)
    with pytest.raises(LocalError, match="honest noise shares"):
        PrivateAggregator("secagg", too_few, budget).mean([np.zeros(100)] * 9, model_hash=bytes(32))


def test_ledger_survives_and_adds_up(tmp_path):
    path = tmp_path / "deep" / "ledger.json"
    with Budget(path, "f", 5.0, 1e-5) as budget:
        budget.charge(RELEASE)
        budget.charge(RELEASE)
    with Budget(path, "f", 5.0, 1e-5) as budget:
        assert budget.spent == ((RELEASE, 2),)
        assert budget.epsilon() == epsilon([(RELEASE, 2)], 1e-5)
        with pytest.raises(LocalError, match="in use"):
            Budget(path, "f", 5.0, 1e-5)
        before = path.read_bytes()
        with pytest.raises(BudgetSpent, match="over the budget"):
            for _ in range(100):
                budget.charge(RELEASE)
                before = path.read_bytes()
        assert budget.epsilon() <= 5.0 and path.read_bytes() == before
    assert (path.stat().st_mode & 0o777) == 0o600


@pytest.mark.parametrize(
    "change, word",
    [
        ({"federation": "other"}, "other data"),
        ({"format": 9}, "another format"),
        ({"charges": [{"kind": "skellam"}]}, "damaged"),
        ({"charges": 3}, "damaged"),
    ],
)
def test_a_damaged_or_foreign_ledger_is_refused(tmp_path, change, word):
    path = tmp_path / "ledger.json"
    with Budget(path, "f", 5.0, 1e-5) as budget:
        budget.charge(RELEASE)
    value = json.loads(path.read_bytes())
    path.write_text(json.dumps({**value, **change}))
    for _ in range(2):  # the first refusal has given up the lock
        with pytest.raises(LocalError, match=word):
            Budget(path, "f", 5.0, 1e-5)


def test_runs_of_one_federation_share_the_budget(tmp_path, linear, small):
    first = train(small, "s", options(scheme="plain"), Target(tmp_path / "a"), QUIET)
    assert first["rounds"] == 3 and 7.8 < first["privacy"]["epsilon"] <= 8.0
    assert first["privacy"]["unit"] == "client" and "client-level" in first["guarantee"]
    with pytest.raises(LocalError, match="budget is spent"):
        train(
            small,
            "s",
            options(scheme="plain", epsilon=7.9),
            Target(tmp_path / "b"),
            QUIET,
        )
    with pytest.raises(BudgetSpent, match=r"nearly spent.*3 uploads cost epsilon .*as --epsilon"):
        train(small, "s", options(scheme="plain"), Target(tmp_path / "d"), QUIET)
    over = train(small, "s", options(scheme="plain", epsilon=20.0), Target(tmp_path / "c"), QUIET)
    assert over["privacy"]["uploads"] == 6 and 8 < over["privacy"]["epsilon"] <= 20
    again = train(
        small,
        "s",
        options(scheme="plain"),
        Target(tmp_path / "a", force=True, ledger=tmp_path / "new"),
        QUIET,
    )
    assert again["privacy"]["uploads"] == 3


def test_a_nearly_spent_budget_is_refused_above_twice_the_noise_and_told_of_below():
    """The limit is looked for between two budgets: on one side the mechanism, on the other a word."""
    chosen, n, dim = options(scheme="secagg"), 9, 100
    whole = mechanism_for(chosen, dim, n, Budget(None, "f", 8.0, 1e-3))
    small = plan("skellam", dim, n, whole.honest, 1.0, 20 * whole.release().multiplier).release()

    def used(uploads):
        """A budget of which many small uploads were paid."""
        found = Budget(None, "f", 8.0, 1e-3)
        found._counts = {small: uploads}
        return found

    low, high = 1, 1200
    assert used(high).epsilon() < 8
    while high - low > 1:
        middle = (low + high) // 2
        try:
            mechanism_for(chosen, dim, n, used(middle))
            low = middle
        except BudgetSpent:
            high = middle
    found = mechanism_for(chosen, dim, n, used(low))
    factor = found.release().multiplier / whole.release().multiplier
    assert 1.98 < factor <= 2
    assert epsilon([(small, low), (found.release(), 3)], 1e-3) <= 8
    assert f"the noise is {factor:.3g} times that of a first training" in stretched(chosen, found, used(low))
    assert stretched(chosen, whole, Budget(None, "f", 8.0, 1e-3)) == ""
    with pytest.raises(BudgetSpent) as caught:
        mechanism_for(chosen, dim, n, used(high))
    said, cost = str(caught.value), used(high).epsilon()
    needed = epsilon([(small, high), (whole.release(), 3)], 1e-3)
    assert f"{high} uploads cost epsilon {cost:.4g} of 8 at delta 0.001" in said
    assert f"would bring it to {needed:.4g}. Use that as --epsilon" in said and "fewer rounds" in said
    more = resolve({**chosen.as_dict(), "epsilon": needed})
    assert mechanism_for(more, dim, n, used(high)).variance  # what the word advises works
    fewer = resolve({**chosen.as_dict(), "rounds": 1})
    with pytest.raises(BudgetSpent):  # and what it says of fewer rounds is so
        mechanism_for(fewer, dim, n, used(high + 5))


def test_a_budget_that_leaves_no_noise_that_fits_is_nearly_spent():
    """So little is left that the grid cannot hold the noise: the same word, not one about bits."""
    chosen = options(scheme="secagg", bits=12)
    whole = mechanism_for(chosen, 100, 9, Budget(None, "f", 8.0, 1e-3))
    budget = Budget(None, "f", 8.0, 1e-3)
    for _ in range(3):
        budget.charge(whole.release())
    with pytest.raises(BudgetSpent, match=r"nearly spent.*fit 12 bits.*3 uploads cost .*as --epsilon"):
        mechanism_for(chosen, 100, 9, budget)


def test_a_training_on_a_used_budget_says_the_factor(tmp_path, linear, small):
    train(small, "s", options(scheme="plain", rounds=1, epsilon=2.0), Target(tmp_path / "a"), QUIET)
    train(small, "s", options(scheme="plain"), Target(tmp_path / "b"), QUIET)
    log = (tmp_path / "b" / "log.txt").read_text()
    assert "the budget was used before: 1 uploads cost epsilon" in log
    assert "times that of a first training" in log
    assert "used before" not in (tmp_path / "a" / "log.txt").read_text()


def test_a_training_says_when_its_noise_drowns_the_updates(tmp_path, linear, small):
    """The figure is that of the noise itself, once, and only from DROWNED on."""
    loud = options(scheme="plain", rounds=1, epsilon=0.5)
    budget = Budget(None, "f", 0.5, 1e-3)
    mechanism = mechanism_for(loud, 75, 40, budget)
    drawn = [
        PrivateAggregator("plain", mechanism, Budget(None, "f", math.inf, 1e-3)).mean(
            [np.zeros(75)] * 40, model_hash=bytes([i]) * 32
        )
        for i in range(4)
    ]
    seen = np.mean([np.linalg.norm(one.value) for one in drawn])
    assert noise_to_clip(mechanism) == pytest.approx(seen, rel=0.25)
    assert report(loud, mechanism, budget)["noise_to_clip"] == noise_to_clip(mechanism) > DROWNED
    assert "a smaller network (flow-softmax)" in drowned(loud, mechanism)
    small_model = resolve({**loud.as_dict(), "model": "flow-softmax"})
    assert "flow-softmax" not in drowned(small_model, mechanism) and "epsilon" in drowned(
        small_model, mechanism
    )
    quiet = plan("gaussian", 75, 4000, 1, 1.0, 2.0, central=True)
    assert drowned(loud, quiet) == "" and noise_to_clip(quiet) < DROWNED
    train(small, "s", loud, Target(tmp_path / "a"), QUIET)
    log = (tmp_path / "a" / "log.txt").read_text()
    assert log.count("times as long as the longest mean update") == 1


def test_training_stops_before_epsilon_is_exceeded_and_resumes_on_its_own_mechanism(
    tmp_path, linear, small, monkeypatch
):
    """Killed after round 3 with a checkpoint at 2: round 3 is paid twice, so the last round is not run."""
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
    assert done["rounds"] == 3 and done["privacy"]["uploads"] == 4
    assert done["privacy"]["epsilon"] <= 8.0
    assert done["privacy"]["mechanism"] == before["privacy"]["mechanism"]
    assert to_json(from_json(done["privacy"]["mechanism"])) == done["privacy"]["mechanism"]
    assert train(small, "s", chosen, Target(tmp_path / "a", resume=True), QUIET)["rounds"] == 3


def test_a_lost_ledger_stops_a_resume_and_a_private_run_is_not_repeated(tmp_path, linear, small):
    chosen = options(scheme="plain")
    train(small, "s", chosen, Target(tmp_path / "a"), QUIET)
    (tmp_path / f"dp-ledger-{federation_id(small.sha256, 'subject')}.json").unlink()
    with pytest.raises(LocalError, match="is gone"):
        train(small, "s", chosen, Target(tmp_path / "a", resume=True), QUIET)
    with pytest.raises(InputError, match="cannot be repeated"):
        retrained_sha256(small, chosen, QUIET)


def test_central_noise_is_the_servers(linear, small):
    runs = [Run("", partition(small, parse_clients("subject")))]
    federation = Federation(small, runs, options(dp="central", scheme="plain"), record=True)
    federation.advance(federation.start())
    sent = [c["codes"] for c in federation.last[0].transcript.states.values()]
    mechanism = federation.private[0].mechanism
    assert all(int(c @ c) <= mechanism.l2_squared for c in sent)
    got = federation.last[0].value
    clear = mechanism.decode(np.sum(sent, axis=0), len(sent), bytes(32))
    assert np.linalg.norm(got) > 3 * np.linalg.norm(clear)  # 7 clients: noise dwarfs the update


def test_no_count_leaves_a_private_run(linear, small):
    runs = [Run("", partition(small, parse_clients("subject")))]
    federation = Federation(small, runs, options(scheme="plain"), record=True)
    state, reports = federation.advance(federation.start())
    assert not state.counts.any() and reports[0].cut == 0
    assert federation.last[0].transcript.params.max_weight == 1


def test_evaluation_says_what_its_guarantee_covers(linear, make):
    archive = make([[0, 1, 2]] * 8, side=4)
    folds = parse_protocol("kfold:2").folds(archive, 0)
    chosen = {name: value for name, value in DP.items() if name != "rounds"}
    run = federated_predictions(archive, folds, scheme="plain", rounds=2, options={**chosen, "delta": 1e-2})
    assert run.info["privacy"]["epsilon"] <= 8.0 and run.info["privacy"]["uploads"] == 2
    assert "the scores, have no guarantee" in run.info["privacy"]["scope"]
    assert "for each fold's model by itself" in run.info["guarantee"]


@pytest.mark.parametrize(
    "changes, word",
    [
        ({"dp": "sgd"}, "--batch"),
        ({"dp": "magic"}, "not known"),
        ({"epsilon": 0.0}, "--epsilon"),
        ({"delta": 0.0}, "--delta"),
        ({"norm_clip": 0.0}, "--norm-clip"),
        ({"dp": "none"}, "no effect"),
        ({"class_weights": True}, "--no-class-weights"),
        ({"dp_unit": "clip"}, "--dp-unit client"),
        ({"dp_unit": "person", "clients": "site:3"}, "--clients subject"),
        ({"dp_noise": "laplace"}, "dp_noise"),
        ({"scheme": "ckks"}, "not with ckks"),
    ],
)
def test_options_that_would_break_the_guarantee_are_refused(changes, word):
    with pytest.raises(InputError, match=word):
        options(**changes)


def test_delta_at_one_over_the_clients_is_refused(linear, small):
    runs = [Run("", partition(small, parse_clients("subject")))]
    with pytest.raises(InputError, match="publishes one client whole"):
        Federation(small, runs, options(scheme="plain", delta=1 / 7))


def test_options_without_privacy_hash_as_before():
    assert resolve({"rounds": 3}).sha256 == resolve({"rounds": 3, "dp_noise": "gaussian"}).sha256
    assert options().sha256 != options(dp_noise="gaussian").sha256
    assert options(dp_unit="person").private


def test_sampled_gaussian_of_both_accountants():
    pytest.importorskip("dp_accounting")
    pld, rdp = (sampled_gaussian(2.0, 0.2, 50, 1e-5, tool) for tool in ("pld", "rdp"))
    assert pld < rdp < 1.3 * pld
    assert sampled_gaussian(2.0, 1.0, 5, 1e-5) > sampled_gaussian(2.0, 0.5, 5, 1e-5)


def test_sampled_gaussian_equals_opacus():
    prv = pytest.importorskip("opacus.accountants").PRVAccountant()
    prv.history = [(2.0, 0.2, 50)]
    assert sampled_gaussian(2.0, 0.2, 50, 1e-5) == pytest.approx(prv.get_epsilon(1e-5), rel=0.01)


def test_sampled_gaussian_refuses_what_it_cannot_account():
    with pytest.raises(InputError, match="DP-SGD needs"):
        sampled_gaussian(0.0, 0.1, 1, 1e-5)
    pytest.importorskip("dp_accounting")
    with pytest.raises(InputError, match="not known"):
        sampled_gaussian(1.0, 0.1, 1, 1e-5, "guess")
