"""A29: is a clip's DP-SGD as private as its accountant says? A canary in gradient space.

The strongest clip there can be (its gradient lies in one coordinate, far over the clip) is in the client's
data or not, 2 to 10 clips in all. The attacker simulates both worlds, chooses among statistics that planted
bugs move (the canary's coordinate, the scale of the noise, differences of steps, the other clips' direction)
and a threshold, then guesses the hidden bits. A game is lost where the guesses prove a larger epsilon than
the claim, at confidence 99.9 %.
Source: Nasr et al. 2021 and 2023; Opacus issues 571 and 819.
"""

from typing import Any

import numpy as np

from merveil.attacks.base import CURIOUS_SERVER, Attack, Finding, Public, Rule
from merveil.attacks.findings import proportion
from merveil.attacks.noise import Floats, choose, lower_bound

CONFIDENCE = 0.999
DELTA = 1e-2


def statistics(outputs: Floats) -> Floats:
    """[runs, times, dim] -> [runs, 8]: what a canary, or a bug with it, could move."""
    canary, others = outputs[:, :, -1], outputs[:, :, 0]
    rest = outputs[:, :, 1:-1]
    apart = np.abs(canary[:, 0] - canary[:, -1])
    steady = np.abs(rest[:, 0] - rest[:, -1]).max(1)
    columns = [
        canary.sum(1),
        np.abs(canary).max(1),
        np.log((rest**2).sum((1, 2))),
        -np.log((rest**2).sum((1, 2))),
        -np.log((rest**2).sum(2).min(1)),
        apart,
        np.where(steady == 0, apart, 0.0),  # the same noise twice: what differs is no noise
        others.sum(1),
    ]
    return np.stack(columns, axis=1)


def infer(view: Any, public: Public, rng: np.random.Generator) -> Any:
    """view: an `attacks.games.StepGame`. The guess of every observed run's bit, bool [runs]."""
    inside, outside = (statistics(view.simulate(world)) for world in (True, False))
    column, cut = choose(inside, outside, DELTA)
    return statistics(view.observed)[:, column] > cut


def score(guesses: Any, truths: Any, rng: np.random.Generator) -> Finding:
    """Share of games whose guesses prove more than the claim; the right mechanism loses one in a thousand."""
    shown = [lower_bound(g, bits, DELTA, CONFIDENCE) for g, (bits, _) in zip(guesses, truths)]
    ratios = [found / claim for found, (_, claim) in zip(shown, truths)]
    ceiling = lower_bound(truths[0][0], truths[0][0], DELTA, CONFIDENCE)
    details = {
        "claimed epsilon": float(truths[0][1]),
        "largest bound": max(shown),
        "least bound": min(shown),
        "least bound over claim": min(ratios),
        "bound of a perfect attack": ceiling,
    }
    return proportion(
        sum(ratio > 1 for ratio in ratios),
        len(ratios),
        "share of games that prove a larger epsilon than claimed",
        "games",
        details=details,
    )


ATTACKS = (
    Attack(
        id="A29",
        title="a clip against its DP-SGD claim",
        plain_words="Does the noise in a device's own training protect each clip as much as is said?",
        adversary=CURIOUS_SERVER,
        setting="noise",
        infer=infer,
        score=score,
        rule=Rule(success=0.9, margin=0.2),
        source="Nasr et al., 2021 and 2023; Opacus issues 571 and 819.",
        tries=21,
        schemes=("plain",),
    ),
)
