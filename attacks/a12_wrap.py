"""A12: inputs at the edge of the range, so that a sum without headroom wraps; and inputs beyond it.

Every client sends the largest value of the grid: the mean is known, so a wrapped one shows. A vector one step
beyond the range, and weights whose sum would not fit, must be refused before anything leaves.
Source: Kairouz et al., ICML 2021, on modular clipping.
"""

from typing import Any

import numpy as np

from merveil.attacks.adversaries import BAD_INPUT
from merveil.attacks.base import Attack, Public, Rule
from merveil.attacks.plays import Guess, recovery, refusals
from merveil.protocols.codec import Codec

_DIM = 8


def infer(view: Any, public: Public, rng: np.random.Generator) -> Guess:
    """right: a mean that is off by more than a step, without an error."""
    clip = float(rng.uniform(0.1, 10))
    signs = rng.choice([-1.0, 1.0], _DIM)
    tool = view.build.aggregator(view.build.scheme, clip=clip, policy=view.lenient())
    given = view.attempt(0, lambda: tool.mean([clip * signs] * view.size).value)
    step = clip / view.params.levels
    wrong = given is not None and bool(np.abs(given - clip * signs).max() > step)
    beyond = Codec(view.params).encode(np.zeros(view.dim))
    beyond[int(rng.integers(view.dim))] = (view.params.levels + 1) * int(rng.choice([-1, 1]))
    view.plant(1, 1, beyond)
    round_ = view.round(silent=range(2, view.size + 1)).begin()
    taken = any(i == 1 and kind != 1 for kind, i in round_.heard)
    heavy = {"max_weight": int(2 ** rng.integers(17, 40)), "bits": 4}
    view.attempt(1, lambda: type(view.params)(view.build.scheme, view.size, 4, **heavy))
    codes = refusals(view, among=[1])
    return Guess(0, None, codes, right=wrong or taken, figures={"announced": float(given is not None)})


ATTACKS = (
    Attack(
        id="A12",
        title="sums that wrap, inputs out of range",
        plain_words="Can very large numbers make the shared result wrong without an error?",
        adversary=BAD_INPUT,
        setting="protocol",
        infer=infer,
        score=recovery(
            ("INPUT_RANGE", "MODULUS_TOO_SMALL"),
            "share of plays with a wrapped mean, or an input out of range that leaves",
        ),
        rule=Rule(success=0.9, margin=0.1),
        source="Kairouz et al., ICML 2021.",
        tries=40,
    ),
)
