"""Risk over coverage, temperatures and thresholds: against counts made here, and from sums of parts."""

import numpy as np
import pytest

from merveil.mer.calibration import (
    BINS,
    TEMPERATURES,
    Answering,
    answering_from,
    bound,
    calibration_sums,
    selective,
    tempered,
)
from merveil.mer.errors import InputError


def sample(n: int = 400, heat: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(probabilities at a heat, truth drawn from those at heat 1)."""
    rng = np.random.default_rng(seed)
    scores = 1.5 * rng.normal(size=(n, 3))
    p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    truth = (rng.random(n)[:, None] > p.cumsum(1)).sum(1)
    return tempered(p, 1 / heat), truth


def test_the_curve_counts_the_surest_clips() -> None:
    p = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.45, 0.55]])
    found = selective([0, 0, 0, 1], p, ["a", "a", "b", "b"])
    assert [(c["coverage"], c["clips"]) for c in found["curve"]] == [
        (1, 4),
        (0.9, 4),
        (0.75, 3),
        (0.5, 2),
        (0.25, 1),
    ]
    assert [c["risk"] for c in found["curve"]] == pytest.approx([0.25, 0.25, 1 / 3, 0.5, 0])
    assert found["curve"][4]["uf1"] == 1
    assert found["aurc"] == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    low, high = found["aurc_ci95"]
    assert low <= found["aurc"] <= high


def test_sure_models_have_less_risk_than_random_confidence() -> None:
    p, truth = sample()
    person = np.arange(400) // 10
    shuffled = p[:, [0, 1, 2]].copy()
    heat = np.random.default_rng(1).uniform(0.3, 3, 400)
    shuffled = np.stack([tempered(row, t) for row, t in zip(p, heat)])
    assert selective(truth, p, person)["aurc"] < selective(truth, shuffled, person)["aurc"]


def test_temperature_is_undone_and_nothing_but_confidence_moves() -> None:
    p, _ = sample()
    hot = tempered(p, 2.0)
    assert np.allclose(tempered(hot, 0.5), p) and np.array_equal(hot.argmax(1), p.argmax(1))
    assert (hot.max(1) <= p.max(1)).all() and tempered([0.0, 0.5, 0.5], 2)[0] == 0


@pytest.mark.parametrize("heat", [0.5, 1.0, 3.0])
def test_the_rule_finds_the_heat_and_answers_the_coverage(heat: float) -> None:
    p, truth = sample(20_000, heat)
    rule = answering_from(calibration_sums(p, truth), 0.75)
    assert rule.temperature == pytest.approx(heat, rel=0.2) and rule.clips == 20_000
    calibrated, sure = rule.judge(p)
    assert 0.75 <= sure.mean() < 0.75 + 0.02
    right = (p.argmax(1) == truth)[sure].mean()
    assert right > (p.argmax(1) == truth)[~sure].mean() + 0.2
    assert calibrated.max(1)[sure].mean() == pytest.approx(right, abs=0.03)


def test_sums_of_parts_are_the_sum_and_stay_within_the_bound() -> None:
    p, truth = sample(90)
    whole = calibration_sums(p, truth)
    parts = [calibration_sums(p[i : i + 7], truth[i : i + 7]) for i in range(0, 90, 7)]
    loose = np.abs(sum(parts) - whole)
    assert loose[len(TEMPERATURES) :].max() == 0 and loose.max() <= len(parts)  # losses are rounded by party
    assert len(whole) == len(TEMPERATURES) * (BINS + 1) + 1 and whole.max() <= bound(90)
    sure_and_wrong = calibration_sums(np.array([[1.0, 0.0]]), [1])
    assert np.isfinite(sure_and_wrong).all() and sure_and_wrong.max() <= bound(1)


def test_rules_travel_as_json_and_damage_is_named() -> None:
    rule = Answering(1.5, 0.6, 0.75, 300)
    assert Answering.from_json(rule.to_json()) == rule
    for wrong in ({}, {**rule.to_json(), "threshold": 2}, {**rule.to_json(), "temperature": 0}):
        with pytest.raises(InputError, match="damaged"):
            Answering.from_json(wrong)
    with pytest.raises(InputError, match="no clip"):
        answering_from(np.zeros(len(TEMPERATURES) * (BINS + 1) + 1, np.int64), 0.5)
