"""The learning-level attacks on their own arithmetic: exact where they claim to be, silent on noise."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")

from merveil.attacks import (
    a23_crafted,
    a24_inversion,
    a25_layer,
    inversion,
    reading,
    reconstruction,
    runner,
    scenario,
)  # fmt: skip
from merveil.attacks.base import CURIOUS_SERVER
from merveil.attacks.population import population
from merveil.attacks.probe import ConvFC, ReluMLP
from merveil.attacks.replay import Replay
from merveil.attacks.scenario import Setting, Task
from merveil.attacks.training import Course, candidates, halves, record_course, references


def test_a_single_clip_behind_a_wide_first_layer_is_a_division(task: Task) -> None:
    case = scenario.record(task, "plain", replace(runner.WIDE, cohort=6, rounds=1), CURIOUS_SERVER, 1)[0]
    guess = a24_inversion.infer_exact(case.view, case.public, np.random.default_rng(0))
    true = guess["read"](task.archive.x[[case.truth.held[c][0] for c in guess["clients"]]])
    assert np.abs(guess["images"] - true).max() < 1e-3
    assert (guess["labels"] == [task.archive.y[case.truth.held[c][0]] for c in guess["clients"]]).all()


def test_local_steps_are_replayed(task: Task) -> None:
    setting = replace(runner.WIDE, cohort=6, rounds=1, steps=5, lr=0.5)
    case = scenario.record(task, "plain", setting, CURIOUS_SERVER, 1)[0]
    np.random.default_rng(0)
    seen = reading.uploads(case.view, case.public)
    targets = np.stack([seen[c] for c in sorted(seen)])
    labels, ncc = np.array([[task.archive.y[case.truth.held[c][0]]] for c in sorted(seen)]), {}
    for steps in (1, 5):
        replay = Replay(replace(case.public, steps=steps))
        space = inversion.Space(replay)
        images, _ = inversion.by_direction(
            replay, targets, labels, np.random.default_rng(0), inversion.Budget(60), space
        )
        true = space.truth(replay, task.archive.x[[case.truth.held[c][0] for c in sorted(seen)]])
        ncc[steps] = float(reconstruction.ncc(images[:, 0], true).mean())
    assert ncc[5] > 0.9 and ncc[5] > ncc[1], ncc


def test_a_prior_without_a_gradient_is_a_null(task: Task) -> None:
    case = scenario.record(task, "plain", replace(runner.WIDE, cohort=6, rounds=1), CURIOUS_SERVER, 1)[0]
    replay, rng = Replay(case.public), np.random.default_rng(0)
    space, seen = inversion.Space(replay), reading.uploads(case.view, case.public)
    targets, labels = np.stack([seen[c] for c in sorted(seen)]), np.zeros((6, 1), np.int64)
    true = space.truth(replay, task.archive.x[[case.truth.held[c][0] for c in sorted(seen)]])
    blank, _ = inversion.by_direction(replay, targets, labels, rng, a24_inversion.QUICK, space, guided=False)
    flat = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(blank[:, 0], true)]
    assert abs(np.mean(flat)) < 0.3


def test_a_relu_batch_falls_apart_exactly_and_noise_does_not() -> None:
    rng = np.random.default_rng(0)
    last, x, y = rng.normal(size=(3, 48)), rng.normal(size=(6, 200)), rng.normal(size=(6, 3))
    mask = rng.random((6, 48)) < 0.5
    sent = mask * (y @ last)
    found = a25_layer.unmix(sent.T @ x, sent.sum(0), last, 6, rng)
    gap = np.abs(found[:, None] - x[None]).max(2).min(0)
    assert len(found) == 6 and gap.max() < 1e-2
    noise = a25_layer.unmix(rng.normal(size=(48, 200)), rng.normal(size=48), last, 6, rng)
    assert len(noise) == 0


def test_row_space_ignores_what_rounding_adds() -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(20, 5)) @ rng.normal(size=(5, 100)) + rng.uniform(-1, 1, (20, 100)) * 1e-4
    assert len(a25_layer.row_space(rows, 1e-4 / np.sqrt(3))) == 5


def test_a_crafted_model_shows_clips_and_an_honest_one_does_not(task: Task) -> None:
    setting = replace(runner.SETTINGS["crafted"], rounds=1)
    for crafted, least, most in (("bins", 0.3, 1.0), ("", 0.0, 0.25)):
        case = scenario.record(task, "plain", replace(setting, crafted=crafted), CURIOUS_SERVER, 3)[0]
        rng = np.random.default_rng(0)
        found = a23_crafted.score([a23_crafted.infer(case.view, case.public, rng)], [case.truth], rng)
        assert least <= found.score <= most


def test_trap_rows_show_more_clips_than_an_honest_model(task: Task) -> None:
    """An honest wide ReLU layer shows some: a unit that one clip alone wakes is nothing special."""
    setting, shares = replace(runner.SETTINGS["trapped"], rounds=1, cohort=20), []
    for crafted in ("trap", ""):
        case = scenario.record(task, "plain", replace(setting, crafted=crafted), CURIOUS_SERVER, 3)[0]
        rng = np.random.default_rng(0)
        guess = a23_crafted.infer_trap(case.view, case.public, rng)
        shares.append(a23_crafted.score([guess], [case.truth], rng).score)
    assert shares[0] >= 0.5 and shares[0] > shares[1], shares


@pytest.mark.parametrize("kind", [ConvFC, ReluMLP])
def test_probe_networks_stack(kind: type) -> None:
    """Two models at once give what each gives alone, and gradients are autograd's on a single loss."""
    import torch

    net, rng = kind((28, 28, 3), 3), np.random.default_rng(0)
    x = torch.from_numpy(net.prepare(rng.integers(0, 256, (4, 28, 28, 3)).astype(np.uint8)))
    params = torch.from_numpy(np.stack([net.init(1), net.init(2)]))
    both = net.logits(params, x, train=True)
    alone = torch.cat([net.logits(params[i : i + 1], x, train=True) for i in (0, 1)])
    assert both.shape == (2, 4, 3) and torch.allclose(both, alone, atol=1e-5)


def test_a_coalition_knows_its_own_and_is_not_scored_on_it(task: Task) -> None:
    setting = Setting(clips=2, cohort=8, rounds=1, colluders=3)
    case = scenario.record(task, "plain", setting, CURIOUS_SERVER, 0)[0]
    assert set(case.truth.held) == {4, 5, 6, 7, 8} == set(reading.uploads(case.view, case.public))
    assert case.view.corrupted == {0, 1, 2, 3} and case.truth.members.sum() == 10
    rest = np.mean(list(reading.uploads(case.view, case.public).values()), axis=0)
    assert np.allclose(reading.honest_sum(case.view, case.public), rest)
    assert not np.allclose(reading.published_sum(case.view, case.public), rest)


def test_drawn_people_are_reproducible_and_differ() -> None:
    a, b = population(4, 3, 1), population.__wrapped__(4, 3, 1)
    assert (a.x == b.x).all() and a.x.shape == (12, 28, 28, 3) and len(a.persons()) == 4
    assert not np.allclose(a.x[0], population(4, 3, 2).x[0])


def test_a_training_is_the_plain_mean_of_its_clients_and_holds_fresh_clips_back(task: Task) -> None:
    course = Course(people=20, outside=2, cohort=5, rounds=3, references=4, hidden=4)
    found = candidates(task.archive, course)
    assert found.drawn and not set(found.records) & set(found.fresh)
    assert not set(found.archive.person[found.outside]) & set(found.archive.person[found.records])
    made = references(found, course, 0)
    first, again = (record_course(found, course, s, made, 1) for s in ("plain", "secagg"))
    sums = [[reading.published_sum(v, c.public) for v in c.view] for c in (first, again)]
    assert np.array_equal(sums[0], sums[1]) and (first.truth.inside == again.truth.inside).all()
    assert (
        first.truth.inside.sum() == 10 and halves(5, 8, np.random.default_rng(0)).sum(1).tolist() == [4] * 5
    )
