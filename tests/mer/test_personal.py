"""Personalisation: no clip adjusts the model it is asked of, few clips are reported, heads are right."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")

from merveil.mer.baselines import kernel_ridge_predictions
from merveil.mer.data.splits import parse_protocol
from merveil.mer.data.synthetic import synthetic_archive
from merveil.mer.errors import InputError
from merveil.mer.exact import ExactModel, coefficients, gram_sums
from merveil.mer.exact_features import block_means
from merveil.mer.exact_loso import exact_ridge_predictions, fold_models
from merveil.mer.loso import central_predictions
from merveil.mer.models.registry import MODELS
from merveil.mer.models.stacked import build
from merveil.mer.personal import OWN, Personal, own_clips, personalised, sentence, summary
from merveil.mer.personal_head import fitted, head, personalised_network, scores_and_slopes
from merveil.mer.train import predict_stack

K = 2


@pytest.fixture(scope="module")
def people():
    archive = synthetic_archive(5, 6, 0)
    return archive, parse_protocol("loso").folds(archive, 0)


@pytest.fixture(scope="module")
def trained(people):
    archive, folds = people
    return central_predictions(
        archive, folds, model="flow-mlp", options={"epochs": 6, "hidden": 8}, keep_models=True
    )


def way(name, archive, folds, trained, k=K):
    return (
        personalised(archive, folds, k)
        if name == "exact-ridge"
        else personalised_network(archive, folds, *trained.models, k)
    )


WAYS = pytest.mark.parametrize("name", ["exact-ridge", "flow-mlp"])


def test_the_own_clips_are_others_of_the_person_whatever_the_order_of_rows(people):
    archive, folds = people
    rows = folds[0].test
    order, own = own_clips(archive, rows, K)
    assert sorted(order) == sorted(rows) and own.shape == (len(rows), K)
    for row, mine in zip(order, own):
        assert row not in mine and len(set(mine)) == K and set(mine) <= set(rows)
    again = own_clips(archive, rows[::-1], K)
    assert np.array_equal(order, again[0]) and np.array_equal(own, again[1])
    assert not np.array_equal(order, sorted(rows, key=archive.key))  # names of some sets tell the class


@WAYS
def test_every_clip_is_asked_once_and_without_is_the_honest_model(name, people, trained):
    archive, folds = people
    found = way(name, archive, folds, trained)
    assert sorted(found.rows) == list(range(archive.n)) and not found.left_out
    honest = trained.probabilities if name == "flow-mlp" else exact_ridge_predictions(archive, folds)
    assert np.allclose(found.before, honest[found.rows], rtol=0, atol=1e-6)
    assert not np.allclose(found.before, found.after, atol=1e-3)
    assert all(row not in mine for row, mine in zip(found.rows, found.seen))
    assert (archive.person[found.seen] == archive.person[found.rows][:, None]).all()


@WAYS
def test_the_label_of_an_asked_clip_has_no_part_in_its_answer_and_that_of_an_own_one_has(
    name, people, trained
):
    archive, folds = people
    found = way(name, archive, folds, trained)
    at = 3
    clip, own = int(found.rows[at]), int(found.seen[at, 0])
    answers = []
    for changed in (clip, own):
        labels = archive.y.copy()
        labels[changed] = (labels[changed] + 1) % 3
        fold = [f for f in folds if clip in f.test]
        models = None if name == "exact-ridge" else trained.models
        other = replace(archive, y=labels)
        if models is None:
            again = personalised(other, fold, K)
        else:
            again = personalised_network(other, fold, models[0], models[1][[folds.index(fold[0])]], K)
        answers.append(again.after[again.rows == clip][0])
    assert np.array_equal(found.after[at], answers[0])
    assert not np.allclose(found.after[at], answers[1], atol=1e-6)


@WAYS
def test_people_with_too_few_clips_are_named_and_not_dropped_in_silence(name, people, trained):
    archive, _ = people
    first = archive.persons()[0]
    keep = np.flatnonzero((archive.person != first) | (np.cumsum(archive.person == first) <= K))
    less = archive.select(keep)
    folds = parse_protocol("loso").folds(less, 0)
    net, params = trained.models
    found = (
        personalised(less, folds, K)
        if name == "exact-ridge"
        else personalised_network(less, folds, net, params, K)
    )
    assert found.left_out == {str(first): K}
    assert first not in set(less.person[found.rows].tolist())
    figures = summary(less, found)
    assert figures["people"] == 4 and figures["clips"] == less.n - K
    said = sentence(figures)
    assert f"1 with fewer are not in it: {first} ({K})" in said
    assert "this is not a LOSO score" in said and "returning users who label 2 clips" in said


def test_nobody_with_clips_enough_and_settings_without_meaning_are_refused(people, trained):
    archive, folds = people
    with pytest.raises(InputError, match="at least once"):
        personalised(archive, folds, K, own=0)
    with pytest.raises(InputError, match="nobody has the 7 clips"):
        personalised(archive, folds, 6)
    for k, lam, word in ((0, 1.0, "one own clip"), (K, 0.0, "lam"), (K, float("nan"), "lam")):
        with pytest.raises(InputError, match=word):
            personalised_network(archive, folds, *trained.models, k, lam=lam)


def test_the_ridge_with_own_clips_is_the_ridge_of_all_these_rows(people):
    """Own clips OWN times in the sum equal a training set in which they stand OWN times, in the same axes."""
    archive, folds = people
    found = personalised(archive, folds[:1], K)
    _, model, clips = next(iter(fold_models(archive, folds[:1], {})))
    phi = model.basis.features(block_means(clips.normal, clips.sites.tolist(), model.warps))
    rows = np.concatenate([folds[0].train, *[found.seen[0]] * OWN])
    solved = coefficients(gram_sums(phi[rows], clips.y[rows], model.basis), model.basis, model.settings.lam)
    person = ExactModel(model.settings, model.warps, model.basis, solved)
    asked = found.rows[:1]
    wanted = person.probabilities(clips.normal[asked], clips.sites[asked].tolist())
    assert np.allclose(found.after[:1], wanted, rtol=0, atol=1e-12)


def test_the_head_of_a_toy_by_hand():
    """One clip with slope s for class 0 and -s for class 1: a scalar equation, solved here by bisection."""
    s, lam = 1.5, 0.2
    slopes = np.array([[[s], [-s]]])
    mu = lam * s * s  # mean squared length
    move = fitted(np.zeros((1, 2)), slopes, np.array([0]), lam)
    low, high = 0.0, 10.0
    for _ in range(200):  # d/dw of log(1 + exp(-2 s w)) + mu w^2 / 2
        middle = (low + high) / 2
        if -2 * s / (1 + np.exp(2 * s * middle)) + mu * middle < 0:
            low = middle
        else:
            high = middle
    assert move.shape == (1,) and abs(move[0] - low) < 1e-9


def test_the_head_minimises_the_objective_on_the_networks_own_scores(people, trained):
    """Against torch's LBFGS on the last layer's numbers themselves, and the moved network's answer."""
    import torch

    archive, folds = people
    net, params = trained.models
    where, lam = head(net), 0.05
    found = personalised_network(archive, folds[:1], net, params[:1], K, lam=lam)
    own, asked = found.seen[0], found.rows[:1]
    x = torch.from_numpy(net.prepare(archive.x[own])).double()
    start = torch.from_numpy(params[:1].astype(np.float64))
    place, y = torch.from_numpy(where), torch.from_numpy(archive.y[own])
    _, slopes = scores_and_slopes(net, params[0], net.prepare(archive.x[own]), where)
    mu = lam * float((slopes**2).sum()) / (K * net.classes)
    leaf = start[:, place].clone().requires_grad_()
    solver = torch.optim.LBFGS(
        [leaf], max_iter=500, tolerance_grad=1e-10, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def loss():
        solver.zero_grad()
        scores = net.logits(start.index_copy(1, place, leaf), x, train=False)[0]
        value = torch.nn.functional.cross_entropy(scores, y)
        value = value + mu / 2 * ((leaf - start[:, place]) ** 2).sum()
        value.backward()
        return value

    solver.step(loss)
    moved = params[:1].copy()
    moved[:, where] = leaf.detach().numpy()
    wanted = predict_stack(net, moved, net.prepare(archive.x[asked]))[0]
    assert np.allclose(found.after[:1], wanted, atol=1e-5)
    assert np.abs(found.after[0] - found.before[0]).max() > 1e-3


def test_a_strong_pull_leaves_the_shared_model_as_it_is(people, trained):
    archive, folds = people
    found = personalised_network(archive, folds, *trained.models, K, lam=1e9)
    assert np.allclose(found.before, found.after, atol=1e-6)


def test_a_class_without_training_clips_is_answered_only_where_an_own_clip_shows_it(people, trained):
    archive, folds = people
    labels = np.where(archive.y == 2, 0, archive.y)
    mine = folds[0].test
    labels[mine[0]] = 2  # one clip of the held-out person alone
    found = personalised_network(
        replace(archive, y=labels), folds[:1], trained.models[0], trained.models[1][:1], K
    )
    shown = (found.seen == mine[0]).any(1)
    assert shown.sum() == K and (found.before[:, 2] == 0).all()
    assert (found.after[shown, 2] > 0).all() and (found.after[~shown, 2] == 0).all()


@pytest.mark.parametrize("name", [n for n, info in MODELS.items() if info.kind == "network"])
def test_every_network_ends_in_a_head(name):
    net = build(name, 3, 28, 28, 3)
    where = head(net)
    assert np.array_equal(where, np.arange(where[0], net.trainable)) and (len(where) - 3) % 3 == 0
    if name == "flow-mlp":
        two = build(name, 3, 28, 28, 3, members=2)
        assert np.array_equal(head(two), np.concatenate([where, where + net.trainable]))


def test_the_figures_are_those_of_the_same_clips(people):
    archive, folds = people
    before = kernel_ridge_predictions(archive, folds)
    rows = np.arange(archive.n)
    after = np.eye(3)[archive.y]
    figures = summary(archive, Personal(rows, rows[:, None], before, after, {}, {"method": "none"}))
    right = (before.argmax(1) == archive.y).mean()
    assert figures["before"]["accuracy"] == pytest.approx(right)
    assert figures["after"] == {"uf1": 1.0, "uar": 1.0, "accuracy": 1.0} and figures["loso"] is False
    gain = figures["difference"]["accuracy"]
    assert gain["value"] == pytest.approx(1 - right) and gain["ci95"][0] <= gain["value"] <= gain["ci95"][1]
