"""Membership scores: right on a model of memory, silent on nulls, and honest about people."""

import numpy as np
import pytest

pytest.importorskip("scipy")

from merveil.attacks import membership

MODELS, PEOPLE, EACH = 32, 30, 4
PERSON = np.repeat(np.arange(PEOPLE), EACH)
SCORES = {
    "loss": lambda phi, had, z: phi[0],
    "lira": lambda phi, had, z: membership.lira(phi[0], phi[1:], had[1:]),
    "bavaria": lambda phi, had, z: membership.bavaria(phi[0], phi[1:], had[1:]),
    "rmia": lambda phi, had, z: membership.rmia(phi[0], phi[1:], had[1:], z[0], z[1:]),
}


def world(rng: np.random.Generator, memory: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """phi [models, n], had [models, n] and phi of outsiders: each record has its own difficulty, each model
    its own fortune with each person, and a model that had a record is surer of it by `memory`."""
    had = np.zeros((MODELS, PEOPLE), bool)
    for row in had:
        row[rng.permutation(PEOPLE)[: PEOPLE // 2]] = True
    had = had[:, PERSON]
    hard, fortune = rng.normal(0, 2, PERSON.size), rng.normal(0, 1, (MODELS, PEOPLE))[:, PERSON]
    phi = hard + fortune + rng.normal(0, 1, had.shape) + memory * had
    return phi, had, rng.normal(0, 2, 20) + rng.normal(0, 1, (MODELS, 20))


@pytest.mark.parametrize("name", SCORES)
def test_memory_is_seen(name: str) -> None:
    rng = np.random.default_rng(0)
    areas = []
    for _ in range(20):
        phi, had, z = world(rng, 2.5)
        areas.append(membership.Game(SCORES[name](phi, had, z), had[0], PERSON).area())
    low = {"loss": 0.75, "rmia": 0.8}.get(name, 0.85)
    assert np.mean(areas) > low


def test_references_beat_the_bare_loss_and_a_prior_helps_few_of_them() -> None:
    rng = np.random.default_rng(1)
    found: dict[str, list[float]] = {name: [] for name in SCORES}
    for _ in range(30):
        phi, had, z = world(rng, 1.5)
        for name, score in SCORES.items():
            found[name].append(membership.Game(score(phi, had, z), had[0], PERSON).area())
    mean = {k: np.mean(v) for k, v in found.items()}
    assert mean["lira"] > mean["loss"] + 0.05 and abs(mean["bavaria"] - mean["lira"]) < 0.03


@pytest.mark.parametrize("name", SCORES)
def test_nulls_give_no_alarm_beyond_the_stated_rate(name: str) -> None:
    """400 worlds without memory: the 95 % interval by people leaves out one half in about one of twenty."""
    rng, out, above = np.random.default_rng(2), 0, 0
    for _ in range(400):
        phi, had, z = world(rng, 0.0)
        game = membership.Game(SCORES[name](phi, had, z), had[0], PERSON)
        low, high = membership.interval([game], rng, resamples=60)
        out, above = out + (not low <= 0.5 <= high), above + (low > 0.5)
    assert out <= 42  # 10 %: the percentile interval of 30 people is a little too short
    assert above <= 26


def test_resampling_records_instead_of_people_would_raise_false_alarms() -> None:
    rng, by_record, by_person = np.random.default_rng(3), 0, 0
    for _ in range(60):
        phi, had, _ = world(rng, 0.0)
        scores = phi[0] - phi[1:].mean(0)
        for kind, persons in (("record", np.arange(PERSON.size)), ("person", PERSON)):
            low, high = membership.interval([membership.Game(scores, had[0], persons)], rng, resamples=60)
            missed = not low <= 0.5 <= high
            by_record, by_person = (
                by_record + missed * (kind == "record"),
                by_person + missed * (kind == "person"),
            )
    assert by_record > 2 * by_person


def test_hits_and_alarms_are_counted_with_exact_limits() -> None:
    scores = np.concatenate([np.arange(100) + 50.0, np.arange(100)])
    members = np.repeat([True, False], 100)
    found = membership.hits_at([membership.Game(scores, members, np.arange(200))], 0.1)
    assert found["fpr"] == 0.1 and found["tpr"] == 0.6  # the cut is 89; 60 members lie above
    assert found["tpr_low"] < 0.6 < found["tpr_high"] and 0.1 < found["fpr_high"] < 0.2


def test_the_blind_guesser_sees_a_confounded_split_and_not_a_fair_one() -> None:
    rng, areas = np.random.default_rng(4), []
    for shift in (0.0, 1.0):
        found = []
        for _ in range(20):
            inside = rng.permutation(np.arange(PEOPLE) % 2 == 0)
            x = rng.normal(size=(PERSON.size, 5, 5, 1)) + shift * inside[PERSON][:, None, None, None]
            scores = membership.blind(x, inside[PERSON], PERSON)
            found.append(membership.Game(scores, inside[PERSON], PERSON).area())
        areas.append(np.mean(found))
    assert abs(areas[0] - 0.5) < 0.06 and areas[1] > 0.8


def test_too_few_references_are_said() -> None:
    with pytest.raises(ValueError, match="at least two references"):
        membership.lira(np.zeros(3), np.zeros((2, 3)), np.array([[True] * 3, [False] * 3]))
