"""The mechanism: norm bound on the integers, rotation, headroom, noise at the floor, decoding."""

import dataclasses
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import chi2

from merveil.protocols.dp.accountant import epsilon
from merveil.protocols.dp.discrete import Mechanism, clip_norm, norm_bound, plan, solve
from merveil.protocols.dp.rotation import hadamard, padded, rotate, signs, unrotate
from merveil.protocols.errors import LocalError
from merveil.protocols.params import Params
from merveil.protocols.rng import SeededRng, SystemRng

PUBLIC = bytes(range(32))
RANDOM = np.random.default_rng(5)


def test_rotation_is_an_isometry_with_an_inverse():
    for dim in (1, 2, 5, 64, 100):
        x = RANDOM.normal(size=dim)
        y = rotate(x, PUBLIC)
        assert y.shape == (padded(dim),)
        assert np.linalg.norm(y) == pytest.approx(np.linalg.norm(x))
        assert unrotate(y, PUBLIC, dim) == pytest.approx(x)
    matrix = np.array([hadamard(row) for row in np.eye(8)])
    assert matrix @ matrix.T == pytest.approx(np.eye(8))
    assert set(signs(PUBLIC, 50)) == {1.0, -1.0}
    assert (signs(PUBLIC, 64) != signs(bytes(32), 64)).any()


def test_clip_norm_is_safe_at_the_edges():
    assert np.linalg.norm(clip_norm(np.array([3.0, 4.0]), 1.0)) == pytest.approx(1.0)
    assert clip_norm(np.array([0.3, 0.4]), 1.0).tolist() == [0.3, 0.4]
    assert clip_norm(np.zeros(3), 1.0).tolist() == [0, 0, 0]
    assert np.linalg.norm(clip_norm(np.full(4, 1e308), 2.0)) == pytest.approx(2.0)
    assert np.linalg.norm(clip_norm(np.full(4, 5e-324), 2.0)) < 1e-300


@pytest.mark.parametrize("steps", [2, 4, 80])
def test_rounded_codes_keep_the_integer_norm_bound(steps):
    m = Mechanism("skellam", 64, 5, 3, 1.0, steps, Fraction(40))
    halfway = unrotate(np.full(64, 0.5 / steps), PUBLIC, 64)  # every coordinate is a fair coin
    for x in [halfway, *np.random.default_rng(1).normal(size=(40, 64))]:
        codes = m.quantise(x, PUBLIC, SystemRng())
        assert codes.dtype == np.int64 and int(codes @ codes) <= m.l2_squared == norm_bound(steps, 64)


def test_rounding_without_the_condition_breaks_the_bound():
    """Control: the case above in which a single try would not do."""
    coins = np.random.default_rng(2).integers(0, 2, size=(2000, 64))
    assert 5 < ((coins**2).sum(1) > norm_bound(4, 64)).sum() < 100
    m = Mechanism("skellam", 64, 5, 3, 1.0, 4, Fraction(40))
    halfway = unrotate(np.full(64, 0.125), PUBLIC, 64)
    norms = [int((c := m.quantise(halfway, PUBLIC, SeededRng(seed))) @ c) for seed in range(400)]
    assert max(norms) <= 40


def test_zero_stays_zero_and_noise_alone_is_added():
    m = plan("skellam", 60, 9, 4, 1.0, 2.0)
    assert not m.quantise(np.zeros(60), PUBLIC, SystemRng()).any()
    codes = np.concatenate([m.encode(np.zeros(60), PUBLIC, SystemRng()) for _ in range(300)])
    ratio = (codes.astype(float) ** 2).sum() / float(m.variance)
    assert chi2.ppf(1e-6, len(codes)) < ratio < chi2.ppf(1 - 1e-6, len(codes))


@pytest.mark.parametrize("kind", ["skellam", "gaussian"])
def test_the_floor_of_shares_has_the_noise_that_was_asked_for(kind):
    m = plan(kind, 100, 12, 5, 0.5, 3.0)
    assert m.honest * m.variance >= Fraction(9) * m.l2_squared
    assert m.honest * m.variance <= Fraction(9) * m.l2_squared * Fraction(1001, 1000) + 1
    assert m.release().multiplier == pytest.approx(3.0, rel=1e-3)
    assert m.release().omega == m.size * 12 * m.table().omega


def test_no_sum_can_wrap():
    m = plan("skellam", 100, 12, 5, 0.5, 30.0)
    params = Params("x", 12, m.size, bits=m.bits, clip=m.clip, threshold=8, corrupt=3)
    m.check(params)
    assert m.levels <= params.levels and 12 * params.levels * 2 < params.modulus
    for seed in range(50):
        assert np.abs(m.encode(RANDOM.normal(size=100), PUBLIC, SeededRng(seed))).max() <= m.levels


def test_the_mean_comes_back_within_its_noise():
    m = plan("skellam", 100, 12, 12, 1.0, 0.05)
    updates = [RANDOM.normal(size=100) * 0.05 for _ in range(12)]
    total = np.sum([m.encode(u, PUBLIC, SystemRng()) for u in updates], axis=0)
    got = m.decode(total, 12, PUBLIC)
    wanted = np.mean([clip_norm(u, 1.0) for u in updates], axis=0)
    spread = m.noise_of_mean(12)
    assert np.abs(got - wanted).max() < 6 * (spread + m.step)
    assert (got - wanted).std() < 1.3 * (spread + m.step / np.sqrt(12))


def test_central_adds_one_share_at_the_server():
    m = plan("gaussian", 100, 12, 5, 1.0, 4.0, central=True)
    assert m.honest == 1 and m.levels == m.steps + 1
    sum_ = np.sum([m.encode(np.zeros(100), PUBLIC, SystemRng()) for _ in range(12)], axis=0)
    assert not sum_.any()
    noise = np.concatenate([m.noisy(sum_, SystemRng()) for _ in range(200)]).astype(float)
    ratio = (noise**2).sum() / float(m.variance)
    assert chi2.ppf(1e-6, len(noise)) < ratio < chi2.ppf(1 - 1e-6, len(noise))
    with pytest.raises(LocalError, match="added the noise already"):
        plan("skellam", 8, 5, 3, 1.0, 1.0).noisy(sum_, SystemRng())


@pytest.mark.parametrize("kind, central", [("skellam", False), ("gaussian", False), ("gaussian", True)])
def test_solve_meets_the_target_closely_and_counts_what_was_spent(kind, central):
    m = solve(kind, 200, 20, 8, 1.0, target=4.0, delta=1e-5, rounds=30, central=central)
    assert 3.9 < epsilon([(m.release(), 30)], 1e-5) <= 4.0
    more = solve(
        kind, 200, 20, 8, 1.0, target=4.0, delta=1e-5, rounds=30, central=central, spent=[(m.release(), 15)]
    )
    assert more.release().multiplier > m.release().multiplier
    assert epsilon([(m.release(), 15), (more.release(), 30)], 1e-5) <= 4.0
    with pytest.raises(LocalError, match="budget is spent"):
        solve(kind, 200, 20, 8, 1.0, target=4.0, delta=1e-5, rounds=1, spent=[(m.release(), 40)])


def test_grid_is_fine_where_bits_allow_and_refused_where_they_do_not():
    m = plan("skellam", 2000, 30, 12, 1.0, 5.0)
    plain = m.steps**2
    assert plain < m.l2_squared < 1.008 * plain
    assert plan("skellam", 2000, 30, 12, 1.0, 5.0, bits=12).steps < m.steps
    with pytest.raises(LocalError, match="raise bits"):
        plan("skellam", 2000, 30, 12, 1.0, 500.0, bits=10)


def test_check_holds_a_round_against_the_guarantee():
    m = plan("skellam", 100, 12, 5, 1.0, 2.0)

    def params(**changes):
        base = {"scheme": "x", "cohort": 12, "dim": m.size, "bits": m.bits, "clip": m.clip, "threshold": 8}
        return Params(**{**base, "corrupt": 3, **changes})

    m.check(params())
    with pytest.raises(LocalError, match="weights of 1"):
        m.check(params(max_weight=4, dim=m.size - 1))
    with pytest.raises(LocalError, match="honest noise shares"):
        m.check(params(threshold=7))
    for wrong in ({"dim": 100}, {"bits": m.bits - 1}, {"cohort": 13}):
        with pytest.raises(LocalError, match="not those of the mechanism"):
            m.check(params(**wrong))


@pytest.mark.parametrize("target", [40.0, 80.0, 300.0, 1000.0])
def test_a_large_epsilon_keeps_more_of_the_tail(target):
    m = solve("skellam", 200, 20, 8, 1.0, target=target, delta=1e-5, rounds=30)
    reached = epsilon([(m.release(), 30)], 1e-5)
    assert 0.97 * target < reached <= target
    assert (m.tail > 12) == (target >= 80)
    assert np.abs(m.encode(np.ones(200), PUBLIC, SystemRng())).max() <= m.levels


def test_a_tail_cut_too_early_is_charged_and_shows():
    """Control: epsilon 80 with noise cut at 12 standard deviations is not epsilon 80."""
    m = solve("skellam", 200, 20, 8, 1.0, target=80.0, delta=1e-5, rounds=30)
    short = dataclasses.replace(m, tail=12)
    assert epsilon([(m.release(), 30)], 1e-5) <= 80 < epsilon([(short.release(), 30)], 1e-5)
    with pytest.raises(LocalError, match="standard deviations, not 11"):
        dataclasses.replace(m, tail=11)


def test_refusals():
    m = plan("skellam", 10, 5, 3, 1.0, 1.0)
    with pytest.raises(LocalError, match="coordinate 3"):
        m.encode(np.array([0, 0, 0, np.nan, 0, 0, 0, 0, 0, 0]), PUBLIC, SystemRng())
    with pytest.raises(LocalError, match="expected"):
        m.encode(np.zeros(9), PUBLIC, SystemRng())
    with pytest.raises(LocalError, match="norm clip"):
        Mechanism("skellam", 10, 5, 3, 0.0, 8, Fraction(4))
    with pytest.raises(LocalError, match="do not go together"):
        Mechanism("skellam", 10, 5, 6, 1.0, 8, Fraction(4))
    with pytest.raises(LocalError, match="do not go together"):
        Mechanism("gaussian", 10, 5, 3, 1.0, 8, Fraction(4), central=True)  # the server adds one share
    with pytest.raises(LocalError, match="update int64"):
        m.encode(np.zeros(10, dtype=np.int64), PUBLIC, SystemRng())


def test_a_target_that_no_noise_reaches_is_said():
    with pytest.raises(LocalError, match="no noise reaches epsilon 1e-09"):
        solve("gaussian", 64, 20, 8, 1.0, target=1e-9, delta=1e-12, rounds=1000, bits=36)


class Stuck:
    """A broken source: every coin says round up."""

    def draw(self, size: int, label: str) -> bytes:
        return b"\xff" * size


def test_a_broken_source_is_no_endless_loop():
    m = Mechanism("skellam", 64, 5, 3, 1.0, 2, Fraction(4))
    with pytest.raises(LocalError, match="random source is broken"):
        m.quantise(np.full(64, 1e-3), PUBLIC, Stuck())


@pytest.mark.parametrize("changes", [{"target": 0.0}, {"target": -1.0}, {"rounds": 0}])
def test_a_plan_needs_a_positive_epsilon_and_a_round(changes):
    asked = {"target": 4.0, "delta": 1e-5, "rounds": 30, **changes}
    with pytest.raises(LocalError, match="epsilon is positive, and so are the rounds"):
        solve("skellam", 64, 20, 8, 1.0, **asked)
