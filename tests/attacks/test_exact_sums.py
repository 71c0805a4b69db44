"""The sums of exact-ridge under attack: attacks win on plain and on the sum, and masks alone stop them."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("torch")

from merveil.attacks import registry
from merveil.attacks.a25_gram import score_upload
from merveil.attacks.a26_moments import _read
from merveil.attacks.runner import SETTINGS, run, try_attack
from merveil.attacks.scenario import Case, Setting, Task
from merveil.attacks.sums import record_sums
from merveil.attacks.verdict import Verdict, judge, succeeded
from merveil.mer.errors import InputError
from merveil.mer.exact import Settings
from merveil.mer.exact_loso import Clips
from merveil.protocols.primitives.packing import word_type
from merveil.protocols.secagg import client as secagg_client
from merveil.protocols.secagg import unmask

SMALL = {
    "gram-sum": replace(SETTINGS["gram-sum"], rounds=10),
    "gram": replace(SETTINGS["gram"], cohort=6, rounds=3),
    "moments-sum": replace(SETTINGS["moments-sum"], rounds=12),
    "moments": replace(SETTINGS["moments"], cohort=10, rounds=8),
}
ON_FRAMES = ["A25-gram-upload", "A26-moments-upload"]


def noise_in_place_of(case: Case, rng: np.random.Generator) -> Case:
    """The same sums with every client frame's vector replaced by uniform bytes: an ideal mask."""

    def masked(view):
        frames = [
            replace(f, body=f.body[:80] + rng.bytes(len(f.body) - 80)) if f.sender else f for f in view.frames
        ]
        return replace(view, frames=tuple(frames))

    return replace(case, view=tuple(masked(view) for view in case.view))


@pytest.mark.parametrize("name", ["A25-gram", "A26-moments", *ON_FRAMES])
def test_the_control_wins(name: str, task: Task) -> None:
    attack = registry.get(name)
    found = try_attack(attack, task, "plain", seed=1, setting=SMALL[attack.setting]).finding
    assert succeeded(found, attack.rule) and found.score == 1.0
    if name == "A25-gram":
        assert found.details == {"members_found": 1.0, "others_taken": 0.0, "rank": 10.0}


@pytest.mark.parametrize("name", ON_FRAMES)
def test_an_ideal_mask_brings_the_attack_to_chance(name: str, task: Task) -> None:
    attack, rng = registry.get(name), np.random.default_rng(3)
    cases = record_sums(task, "plain", SMALL[attack.setting], attack.adversary, seed=2)
    found = run(attack, [noise_in_place_of(case, rng) for case in cases], 2)[1]
    assert found.strict[0] <= found.chance and found.score < 0.4, found


def test_what_the_published_sums_tell_is_no_gain_at_a_client() -> None:
    """Whoever names one clip of the cohort for every client is right once a round, which is chance."""
    held = {client: np.array([client - 1]) for client in range(1, 7)}
    truth = SimpleNamespace(held=held, owners=np.array([1, 2, 3, 4, 5, 6, 0, 0, 0, 0]))
    found = score_upload([{"named": dict.fromkeys(held, 3)}], [truth], np.random.default_rng(0))
    assert found.score == found.chance == pytest.approx(1 / 6)
    none = score_upload([{"named": dict.fromkeys(held, 8)}], [truth], np.random.default_rng(0))
    assert none.score == none.chance == 0
    missing = score_upload([{"named": {}}], [truth], np.random.default_rng(0))
    assert missing.score == missing.chance == 0 and missing.n == 6


@pytest.mark.parametrize("name", ON_FRAMES)
def test_the_claim_is_broken_where_masks_are_left_out(
    name: str, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    attack = registry.get(name)
    setting = SMALL[attack.setting]
    control = try_attack(attack, task, "plain", seed=1, setting=setting).finding
    kept = try_attack(attack, task, "secagg", seed=2, setting=setting).finding
    assert judge(kept, control, attack.rule) is not Verdict.BROKEN
    # Neither put on nor taken off, so that the sums stay right.
    monkeypatch.setattr(secagg_client, "add_masks", lambda total, plus, minus: None)
    monkeypatch.setattr(unmask, "mask_range", lambda bits, at, count, *keys: np.zeros(count, word_type(bits)))
    bare = try_attack(attack, task, "secagg", seed=2, setting=setting).finding
    assert judge(bare, control, attack.rule) is Verdict.BROKEN and bare.score == 1.0


def test_a_case_holds_the_sums_that_a_training_publishes(task: Task) -> None:
    setting = Setting(clips=2, cohort=5, rounds=1, sums=3)
    attack = registry.get("A25-gram")
    case = record_sums(task, "secagg", setting, attack.adversary, seed=4)[0]
    rows = np.concatenate(list(case.truth.held.values()))
    archive = task.archive
    clips = Clips(archive, Settings(3, archive.x.shape[1:3]))
    assert [len(view.total) for view in case.view] == [785 * len(clips.names), 11_028, 231_534]
    assert np.array_equal(case.view[0].total, clips.first(rows))
    assert np.array_equal(case.view[1].total[-3:], np.bincount(archive.y[rows], minlength=3))
    assert all(view.corrupted == {0} and not view.states for view in case.view)


def test_a_draw_of_one_class_is_drawn_anew(task: Task) -> None:
    archive = task.archive
    rare = replace(archive, y=np.where(np.arange(archive.n) % 15 == 0, 1, 0).astype(np.int64))
    setting = Setting(clips=1, cohort=5, rounds=8, sums=2)
    adversary = registry.get("A26-moments").adversary
    cases = record_sums(Task(rare), "plain", setting, adversary, seed=0)
    assert all(np.count_nonzero(sum(c.truth.counts.values())) == 2 for c in cases)
    one = replace(archive, y=np.zeros(archive.n, np.int64))
    with pytest.raises(InputError, match="one class only"):
        record_sums(Task(one), "plain", setting, adversary, seed=0)


def test_residues_that_are_no_counts_give_the_blind_guess() -> None:
    blind = np.array([2, 0, 0])
    assert np.array_equal(_read(np.array([99, 0, 1, 1]), 2, blind), [0, 1, 1])
    for tail in ([0, 1, 2], [-1, 1, 2], [3, -1, 0]):
        assert np.array_equal(_read(np.array([99, *tail]), 2, blind), blind)
