"""One step of DP-SGD on the grid: clip, sample, noise, public divisor; what of it the accountant assumes."""

import dataclasses
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import binom, chi2

from merveil.protocols.dp.clips import ClipStep, clip_step
from merveil.protocols.errors import LocalError
from merveil.protocols.rng import SeededRng, SystemRng

STEP = clip_step(60, 2.0, 1.5, 0.25, 8.0)
RANDOM = np.random.default_rng(8)


def test_the_noise_is_at_least_what_was_asked_for():
    for dim, multiplier in [(8, 0.3), (60, 1.5), (1683, 12.0), (38_000, 20.0)]:
        step = clip_step(dim, 1.0, multiplier, 0.5, 4.0)
        assert multiplier <= step.sigma / step.sensitivity < multiplier * 1.02
        assert step.multiplier < step.sigma / step.sensitivity
        assert step.step * (step.sensitivity - np.sqrt(dim) / 2) == pytest.approx(1.0, rel=1e-4)
        assert np.sqrt(dim) / 2 < 0.11 * step.sensitivity  # rounding takes a tenth of the clip at most


def test_no_gradient_is_longer_than_the_sensitivity_once_rounded():
    rows = np.concatenate(
        [
            RANDOM.normal(size=(200, 60)) * 10.0 ** RANDOM.integers(-6, 30, size=(200, 1)),
            np.eye(60)[:3] * 1e30,
            np.full((1, 60), 2.0 / np.sqrt(60)),  # at the clip, every coordinate rounds up
            np.zeros((1, 60)),
        ]
    )
    codes = STEP.codes(rows.astype(np.float32))
    norms = np.sqrt((codes**2).sum(1))
    assert norms.max() <= STEP.sensitivity and norms.max() > 0.98 * STEP.sensitivity
    assert not codes[-1].any()
    short = RANDOM.normal(size=(20, 60)) * 0.02
    assert np.abs(STEP.codes(short) * STEP.step - short).max() <= STEP.step / 2 * 1.0001


def test_a_code_over_the_sensitivity_is_refused():
    """Remove the norm of one layer, as a broken clip would: the check on the integers holds."""

    class Half(ClipStep):
        def _norms(self, rows):
            return np.linalg.norm(rows[:, :30], axis=1)

    broken = Half(**dataclasses.asdict(STEP))
    with pytest.raises(LocalError, match="longer than the sensitivity"):
        broken.codes(np.full((1, 60), 5.0))


def test_coins_are_one_a_clip_at_the_rate():
    drawn = STEP.sample((400, 50))
    assert drawn.shape == (400, 50)
    assert binom.cdf(drawn.sum(), drawn.size, 0.25) == pytest.approx(0.5, abs=0.4999995)
    spread = drawn.sum(1).var() / (50 * 0.25 * 0.75)  # sizes vary as a binomial's do: not fixed batches
    assert chi2.ppf(1e-6, 399) < spread * 399 < chi2.ppf(1 - 1e-6, 399)
    assert dataclasses.replace(STEP, rate=1.0).sample((3, 4)).all()


def test_coins_at_the_edge_are_rounded_down():
    class Word:
        def __init__(self, word: int) -> None:
            self.word = word

        def draw(self, size: int, label: str) -> bytes:
            return self.word.to_bytes(8, "little") * (size // 8)

    assert STEP.sample((1,), Word((1 << 62) - 1)).all() and not STEP.sample((1,), Word(1 << 62)).any()


def test_release_is_sum_plus_noise_over_the_public_batch():
    sums = RANDOM.integers(-500, 500, size=(300, 60))
    got = STEP.release(sums, SystemRng())
    noise = got / (STEP.step / STEP.batch) - sums
    assert np.abs(noise - np.rint(noise)).max() < 1e-6
    ratio = (noise**2).sum() / (STEP.sigma**2 + 1 / 12)
    assert chi2.ppf(1e-6, noise.size) < ratio < chi2.ppf(1 - 1e-6, noise.size)
    doubled = dataclasses.replace(STEP, batch=16.0)
    assert doubled.release(sums, SeededRng(1)) == pytest.approx(STEP.release(sums, SeededRng(1)) / 2)


def test_omega_is_of_all_coordinates():
    assert STEP.omega == 60 * STEP.table().omega > 0
    assert dataclasses.replace(STEP, tail=16).omega < STEP.omega * Fraction(1, 10**15)


@pytest.mark.parametrize(
    "changes, word",
    [
        ({"rate": 0.0}, "sampling rate"),
        ({"rate": 1.5}, "sampling rate"),
        ({"norm_clip": 0.0}, "positive"),
        ({"batch": 0.0}, "positive"),
        ({"sensitivity": 3}, "too coarse"),
        ({"sigma": 1 << 20}, "too fine"),
    ],
)
def test_refusals(changes, word):
    with pytest.raises(LocalError, match=word):
        dataclasses.replace(STEP, **changes)


def test_gradients_that_are_none_are_refused():
    with pytest.raises(LocalError, match="NaN"):
        STEP.codes(np.full((2, 60), np.nan))
    with pytest.raises(LocalError, match="expected"):
        STEP.codes(np.zeros((2, 59)))
    with pytest.raises(LocalError, match="expected"):
        STEP.codes(np.zeros((2, 60, 1)))
    with pytest.raises(LocalError, match="wider than the grid"):
        clip_step(1683, 1.0, 400.0, 0.5, 4.0)
