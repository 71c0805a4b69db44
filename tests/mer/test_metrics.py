"""Scores against golden values and against a slow, separately written reference."""

import itertools
from typing import Any

import numpy as np
import pytest

from merveil.mer.errors import InputError
from merveil.mer.metrics import (
    accuracy,
    bootstrap_ci95,
    confusion,
    mcnemar,
    paired,
    per_person,
    scores,
    uar,
    uf1,
    undefined,
)


def slow_scores(truth: list[int], predicted: list[int], k: int) -> dict[str, float]:
    """The definitions of MER.md section 6 in loops over clips, sharing nothing with the code under test."""
    f1, recalls = [], []
    for c in range(k):
        tp = sum(1 for t, p in zip(truth, predicted) if t == c and p == c)
        fp = sum(1 for t, p in zip(truth, predicted) if t != c and p == c)
        fn = sum(1 for t, p in zip(truth, predicted) if t == c and p != c)
        if tp + fp + fn:
            f1.append(2 * tp / (2 * tp + fp + fn))
        if tp + fn:
            recalls.append(tp / (tp + fn))
    right = sum(t == p for t, p in zip(truth, predicted))
    return {"uf1": sum(f1) / len(f1), "uar": sum(recalls) / len(recalls), "accuracy": right / len(truth)}


GOLDEN = [
    # truth, predicted, uf1, uar, undefined
    ([0, 0], [0, 0], 1.0, 1.0, [1, 2]),
    ([0, 1, 2], [0, 1, 2], 1.0, 1.0, []),
    ([0, 0], [0, 1], (2 / 3 + 0) / 2, 0.5, [2]),  # class 1 only predicted: F1 0, no recall
    ([1, 1], [0, 0], 0.0, 0.0, [2]),
    ([0, 0, 1, 2], [0, 1, 1, 0], (2 / 4 + 2 / 3 + 0) / 3, (1 / 2 + 1 + 0) / 3, []),
]


@pytest.mark.parametrize("truth, predicted, f1, recall, left_out", GOLDEN)
def test_golden(truth: Any, predicted: Any, f1: float, recall: float, left_out: list[int]) -> None:
    conf = confusion(truth, predicted, 3)
    assert uf1(conf) == pytest.approx(f1, abs=1e-15) and uar(conf) == pytest.approx(recall, abs=1e-15)
    assert undefined(conf) == left_out


def test_confusion_has_truth_in_rows() -> None:
    assert confusion([0, 0, 1], [1, 1, 0], 2).tolist() == [[0, 2], [1, 0]]


def test_empty_and_wrong_labels_are_errors() -> None:
    with pytest.raises(InputError, match="no clip"):
        confusion([], [], 3)
    with pytest.raises(InputError, match="no clip"):
        uf1(np.zeros((3, 3)))
    for truth, predicted in (([0, 3], [0, 0]), ([0, 0], [0, -1]), ([0.0, 1.0], [0, 1])):
        with pytest.raises(InputError, match=r"integers in 0\.\.2"):
            confusion(truth, predicted, 3)
    with pytest.raises(InputError, match="belong together"):
        confusion([0, 1], [0], 3)


@pytest.mark.parametrize("k", [2, 3, 7])
def test_matches_the_reference(k: int) -> None:
    rng = np.random.default_rng(k)
    for n in (1, 2, 5, 40):
        for _ in range(20):
            truth, predicted = rng.integers(0, k, n), rng.integers(0, k, n)
            expected = slow_scores(truth.tolist(), predicted.tolist(), k)
            assert scores(confusion(truth, predicted, k)) == pytest.approx(expected, abs=1e-14)


def test_scores_take_stacks(toy_archive: Any) -> None:
    stack = np.random.default_rng(0).integers(0, 9, (4, 5, 3, 3))
    for measure in (uf1, uar, accuracy):
        values = measure(stack)
        assert values.shape == (4, 5)
        assert values[2, 3] == pytest.approx(measure(stack[2, 3]))


def sample(seed: int, persons: int = 12, each: int = 5) -> tuple[Any, ...]:
    rng = np.random.default_rng(seed)
    person = np.repeat([f"p{i:02}" for i in range(persons)], each)
    truth = rng.integers(0, 3, len(person))
    a = np.where(rng.random(len(person)) < 0.6, truth, rng.integers(0, 3, len(person)))
    b = np.where(rng.random(len(person)) < 0.7, truth, rng.integers(0, 3, len(person)))
    return truth, a, b, person


def test_pooled_is_the_sum_over_persons() -> None:
    truth, a, _, person = sample(0)
    assert np.array_equal(per_person(truth, a, person, 3).sum(axis=0), confusion(truth, a, 3))


def test_bootstrap_matches_a_slow_one_that_copies_clips() -> None:
    truth, a, _, person = sample(1)
    fast = bootstrap_ci95(truth, a, person, 3, seed=5)
    rng, names = np.random.default_rng(99), np.unique(person)
    slow = []
    for _ in range(1500):
        rows = np.concatenate([np.flatnonzero(person == name) for name in rng.choice(names, len(names))])
        slow.append(slow_scores(truth[rows].tolist(), a[rows].tolist(), 3))
    for key in ("uf1", "uar"):
        low, high = np.quantile([value[key] for value in slow], (0.025, 0.975))
        assert fast[key] == pytest.approx([low, high], abs=0.025)
        assert fast[key][0] < slow_scores(truth.tolist(), a.tolist(), 3)[key] < fast[key][1]


def test_bootstrap_is_seeded_and_resamples_persons_not_clips() -> None:
    truth, a, _, person = sample(2)
    assert bootstrap_ci95(truth, a, person, 3, seed=1) == bootstrap_ci95(truth, a, person, 3, seed=1)
    assert bootstrap_ci95(truth, a, person, 3, seed=1) != bootstrap_ci95(truth, a, person, 3, seed=2)
    # One person right throughout, one wrong throughout: only persons can give resamples of all or nothing.
    truth, person = np.array([0, 1] * 20), np.repeat(["a", "b"], 20)
    predicted = np.where(person == "a", truth, 1 - truth)
    assert bootstrap_ci95(truth, predicted, person, 2)["uar"] == [0.0, 1.0]


def test_paired_difference_is_narrower_than_two_intervals_and_antisymmetric() -> None:
    truth, a, _, person = sample(3, persons=20)
    b = a.copy()
    b[[3, 17, 44]] = truth[[3, 17, 44]]
    forth, back = paired(truth, a, b, person, 3)["uf1"], paired(truth, b, a, person, 3)["uf1"]
    assert forth.difference == pytest.approx(uf1(confusion(truth, b, 3)) - uf1(confusion(truth, a, 3)))
    assert forth.ci95 == pytest.approx([-back.ci95[1], -back.ci95[0]]) and forth.p == back.p
    low, high = bootstrap_ci95(truth, a, person, 3)["uf1"]
    assert forth.ci95[1] - forth.ci95[0] < (high - low) / 2
    same = paired(truth, a, a, person, 3)["accuracy"]
    assert same.difference == 0 and same.ci95 == [0, 0] and same.p == 1


def test_exact_permutation_matches_enumeration() -> None:
    truth, a, b, person = sample(4, persons=6, each=4)
    names = np.unique(person)
    observed = (
        slow_scores(truth.tolist(), b.tolist(), 3)["uf1"] - slow_scores(truth.tolist(), a.tolist(), 3)["uf1"]
    )
    as_far = 0
    for signs in itertools.product((False, True), repeat=6):
        flip = np.isin(person, names[list(signs)])
        one, two = np.where(flip, b, a).tolist(), np.where(flip, a, b).tolist()
        gain = slow_scores(truth.tolist(), two, 3)["uf1"] - slow_scores(truth.tolist(), one, 3)["uf1"]
        as_far += abs(gain) >= abs(observed) - 1e-12
    assert paired(truth, a, b, person, 3)["uf1"].p == pytest.approx(as_far / 64)


def test_permutation_p_is_uniform_enough_under_the_null() -> None:
    p = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        person = np.repeat(np.arange(16), 4).astype(str)
        truth = rng.integers(0, 3, 64)
        a, b = (np.where(rng.random(64) < 0.6, truth, rng.integers(0, 3, 64)) for _ in range(2))
        p.append(paired(truth, a, b, person, 3, resamples=10)["uf1"].p)
    assert np.mean(np.array(p) <= 0.1) < 0.2  # a right level is .10; 100 draws have sd .03
    assert np.mean(np.array(p) <= 0.5) > 0.34


def test_mcnemar_values() -> None:
    truth = np.zeros(20, dtype=int)
    first, second = truth.copy(), truth.copy()
    first[:9], second[9:10] = 1, 1
    got = mcnemar(truth, first, second)
    assert (got["only_first"], got["only_second"]) == (1, 9)
    assert got["p"] == pytest.approx(2 * (1 + 10) / 1024)
    assert mcnemar(truth, first, first)["p"] == 1.0
