"""Each attack wins where it must, loses on noise, and rests on arithmetic that is checked on its own."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")

from merveil.attacks import a24_inversion, a25_span, a26_labels, reading, registry, scenario
from merveil.attacks.base import CURIOUS_SERVER
from merveil.attacks.replay import Replay
from merveil.attacks.runner import cohort_curve, try_attack
from merveil.attacks.scenario import Case, Setting, Task
from merveil.attacks.verdict import succeeded
from merveil.audits.controls import control_of
from merveil.mer.errors import InputError

SMALL = {
    "one-clip": Setting(clips=1, cohort=10, rounds=1),
    "few-clips": Setting(clips=2, cohort=10, rounds=8),
    "small-sum": Setting(clips=2, cohort=5, rounds=16),
    "weighted": Setting(clips=1, cohort=10, rounds=2, weighted=True),
}
ON_FRAMES = ["A20", "A24", "A25", "A26"]


def noise_in_place_of(case: Case, rng: np.random.Generator) -> Case:
    """The same round with every client frame's vector replaced by uniform bytes: an ideal mask."""
    frames = [
        replace(f, body=f.body[:80] + rng.bytes(len(f.body) - 80)) if f.sender else f
        for f in case.view.frames
    ]
    return replace(case, view=replace(case.view, frames=tuple(frames)))


@pytest.mark.parametrize("name", ["A17", *ON_FRAMES, "A25-sum", "A26-sum"])
def test_the_control_wins(name: str, task: Task) -> None:
    attack = registry.get(name)
    if name == "A17":
        trial = control_of(attack, task)
    else:
        trial = try_attack(attack, task, "plain", seed=1, setting=SMALL[attack.setting])
    assert succeeded(trial.finding, attack.rule), trial.finding


@pytest.mark.parametrize("name", ON_FRAMES)
def test_an_ideal_mask_brings_the_attack_to_chance(name: str, task: Task) -> None:
    attack, rng = registry.get(name), np.random.default_rng(3)
    cases = scenario.record(task, "plain", SMALL[attack.setting], CURIOUS_SERVER, seed=2)
    masked = [noise_in_place_of(case, rng) for case in cases]
    guesses = [attack.infer(case.view, case.public, rng) for case in masked]
    found = attack.score(guesses, [case.truth for case in masked], rng)
    assert found.strict[0] <= found.chance, found
    assert found.score < attack.rule.success / 2 + found.chance / 2


def test_replayed_update_is_the_clients_own(task: Task) -> None:
    task = replace(task, clip=64.0)  # nothing is cut
    case = scenario.record(task, "plain", Setting(clips=3, cohort=5, rounds=1, steps=2), CURIOUS_SERVER, 0)[0]
    replay, rows = Replay(case.public), np.stack(list(case.truth.held.values()))
    torch = replay.torch
    images = torch.from_numpy(task.archive.x[rows].astype(np.float32))
    update = replay.update(images, torch.from_numpy(task.archive.y[rows])).detach().numpy()
    seen = reading.uploads(case.view, case.public)
    step = task.clip / (2 ** (task.bits - 1) - 1)
    assert np.abs(update - np.stack([seen[c] for c in sorted(seen)])).max() < step


def test_published_sum_is_the_mean_of_the_uploads(task: Task) -> None:
    case = scenario.record(task, "plain", SMALL["small-sum"], CURIOUS_SERVER, 0)[0]
    seen = reading.uploads(case.view, case.public)
    mean = np.mean(list(seen.values()), axis=0)
    assert np.allclose(reading.published_sum(case.view, case.public), mean)


def test_bias_gradient_formula_against_torch(task: Task) -> None:
    case = scenario.record(task, "plain", Setting(clips=4, cohort=5, rounds=1), CURIOUS_SERVER, 0)[0]
    public, replay = case.public, Replay(case.public)
    rows = case.truth.held[1]
    p, y = replay.probabilities(task.archive.x[rows]), task.archive.y[rows]
    # With the clips' own predictions in place of class means, the formula is exact.
    weight = public.class_weight[y]
    want = (weight[:, None] * (p - np.eye(3)[y])).sum(0) / weight.sum()
    seen = reading.uploads(case.view, public)[1][replay.slice_of("bias")] / -public.lr
    assert np.allclose(seen, want, atol=1e-3)
    means = np.stack([p[y == c].mean(0) if (y == c).any() else np.zeros(3) for c in range(3)])
    counts = np.bincount(y, minlength=3)[None]
    assert np.allclose(a26_labels.expected_bias_gradient(counts, means, public.class_weight)[0], want)


def test_compositions_are_all_there() -> None:
    found = a26_labels.compositions(7, 3)
    assert len(found) == 36 == len({tuple(r) for r in found}) and (found.sum(axis=1) == 7).all()


def test_filter_ignores_what_all_clips_share() -> None:
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(3, 300)) * 30

    def draw(n: int) -> np.ndarray:
        return rng.normal(size=(n, 3)) @ shared + rng.normal(size=(n, 300))

    found, members, others = a25_span.Filter(draw(60)), draw(10), draw(10)
    seen = members.mean(axis=0)[None]
    scores = found.scores(np.concatenate([members, others]), seen)[0]
    assert scores[:10].min() > scores[10:].max()
    plain = np.concatenate([members, others]) @ seen[0]
    assert plain[:10].min() < plain[10:].max()  # without whitening the shared part hides it


def test_inversion_finds_the_label_and_beats_the_nulls(task: Task) -> None:
    case = scenario.record(task, "plain", SMALL["one-clip"], CURIOUS_SERVER, seed=4)[0]
    guess = a24_inversion.infer(case.view, case.public, np.random.default_rng(0))
    truth = [task.archive.y[case.truth.held[c][0]] for c in guess["clients"]]
    assert (guess["labels"] == truth).all()
    found = a24_inversion.score([guess], [case.truth], np.random.default_rng(0))
    assert found.details["ncc_gain_low"] > 0.2


def test_a_sum_of_more_clients_tells_less(task: Task) -> None:
    curve = cohort_curve(registry.get("A25-sum"), task, "plain", rounds=6)
    assert list(curve) == [2, 5, 10, 20]  # 84 inside clips leave no room for 60 clients
    assert curve[2].score > 0.95 > curve[20].score > 0.5


def test_too_little_data_is_said(task: Task) -> None:
    tiny = Task(task.archive.select(np.arange(20)))
    with pytest.raises(InputError, match="at least 3 persons"):
        try_attack(registry.get("A24"), tiny, "plain")
    few = Task(task.archive.select(np.arange(0, 120, 10)))
    with pytest.raises(InputError, match="room for 2"):
        try_attack(registry.get("A26"), few, "plain")
