"""Games against noise: every planted bug is found, each by itself, and the right mechanism is not accused."""

import numpy as np
import pytest

pytest.importorskip("torch")

from merveil.attacks import a29_dp_sgd, a30_shares
from merveil.attacks.games import Steps, share_game, step_game
from merveil.audits.broken.dp_noise import SHARES, STEPS, control_game

RNG = np.random.default_rng(0)


def found(module, played):
    guesses = [module.infer(view, None, RNG) for view, _ in played]
    return module.score(guesses, [truth for _, truth in played], RNG)


@pytest.mark.parametrize("kind", STEPS, ids=lambda kind: kind.label)
def test_every_planted_bug_of_dp_sgd_is_found(kind):
    make = control_game("A29")[1]
    number = STEPS.index(kind)
    assert found(a29_dp_sgd, [make(number)]).score == 1.0


@pytest.mark.parametrize("number", range(0, 7, 3))
def test_dp_sgd_as_it_is_stays_below_its_claim(number):
    finding = found(a29_dp_sgd, [step_game(Steps(), number)])
    assert finding.score == 0.0 and 0.2 < finding.details["least bound over claim"] <= 1.0


@pytest.mark.parametrize("name", [*SHARES, ""])
def test_every_planted_bug_of_the_shares_is_found(name):
    change = SHARES.get(name, lambda mechanism: mechanism)
    finding = found(a30_shares, [share_game("secagg", change) for _ in range(2)])
    assert finding.score == float(bool(name))


def test_chance_alone_loses_no_game_of_shares():
    """The least of 200,000 rounds with the right variance is no deficit, and three quarters of it are one."""
    games, size, target = 200_000, 1024, 264_256.0
    drawn = np.sort(RNG.chisquare(size, games)) * target / size

    def lost(variance):
        guess = {"variance": variance, "tries": 10, "sample": np.zeros((1, size)), "size": size}
        return a30_shares.score([guess], [target], RNG).score == 1.0

    assert not lost(drawn[0]) and lost(0.75 * np.median(drawn))


def test_noise_at_the_server_is_in_what_it_releases_and_not_in_what_it_sees():
    from scipy.stats import chi2

    from merveil.fl.dp import PrivateAggregator
    from merveil.fl.dp_ledger import Budget
    from merveil.protocols.dp.discrete import plan

    mechanism = plan("gaussian", 500, 6, 1, 1.0, 2.0, central=True)
    sums = PrivateAggregator("plain", mechanism, Budget(None, "f", np.inf, 1e-5))
    released = [sums.mean([np.zeros(500)] * 6, model_hash=bytes(32)).value for _ in range(4)]
    noise = np.concatenate(released) * 6 / mechanism.step
    ratio = (noise**2).sum() / float(mechanism.variance)  # a rotation of it, cut to 500 of 512 values
    assert chi2.ppf(1e-6, noise.size) < ratio < chi2.ppf(1 - 1e-6, noise.size)
    assert found(a30_shares, [share_game("plain", central=True)]).score == 1.0
