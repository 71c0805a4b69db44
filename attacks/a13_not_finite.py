"""A13: NaN, infinities, wrong lengths and wrong types as one client's update.

One client of the cohort hands in the broken update, through the aggregator and, as codes, into a session. A
mean that is announced all the same was poisoned without a word.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from merveil.attacks.adversaries import BAD_INPUT
from merveil.attacks.base import Attack, Public, Rule
from merveil.attacks.plays import Guess, recovery, refusals

_DIM = 8


def _put(value: float) -> Callable[[Any, Any], Any]:
    def change(update: Any, rng: np.random.Generator) -> Any:
        out = update.copy()
        out[int(rng.integers(len(out)))] = value
        return out

    return change


BROKEN: dict[str, Callable[[Any, Any], Any]] = {
    "NaN": _put(np.nan),
    "infinity": _put(np.inf),
    "minus infinity": _put(-np.inf),
    "signalling NaN": lambda u, rng: np.full(len(u), 0x7FF0000000000001, dtype=np.uint64).view(float),
    "NaN in half precision": lambda u, rng: _put(np.nan)(u.astype(np.float16), rng),
    "too short": lambda u, rng: u[:-1],
    "too long": lambda u, rng: np.append(u, 0.0),
    "two dimensions": lambda u, rng: u[None],
    "integers": lambda u, rng: u.astype(np.int64),
    "text": lambda u, rng: u.astype(str),
}
CODES: tuple[Callable[[Any], Any], ...] = (
    lambda c: c.astype(np.float64),
    lambda c: c[:-1],
    lambda c: c.astype(np.int32),
    lambda c: c[None],
)


def infer(view: Any, public: Public, rng: np.random.Generator) -> Guess:
    """right: a mean is announced, or the broken codes leave."""
    names = list(BROKEN)
    name = names[view.number % len(names)]
    updates: list[Any] = [rng.uniform(-1, 1, _DIM) for _ in range(view.size)]
    culprit = 1 + int(rng.integers(view.size - 1))
    updates[culprit] = BROKEN[name](updates[culprit], rng)
    tool = view.build.aggregator(view.build.scheme, clip=1.0, policy=view.lenient())
    given = view.attempt(1, lambda: tool.mean(updates))
    round_ = view.round(silent=range(2, view.size + 1)).begin(late=[1])
    good = np.zeros(view.params.size, dtype=np.int64)
    bad = CODES[view.number % len(CODES)](good)
    round_.hand_in(1, bad)
    figures = {f"took {name}": float(given is not None)}
    return Guess(0, None, refusals(view, among=[1]), right=given is not None, figures=figures)


ATTACKS = (
    Attack(
        id="A13",
        title="broken numbers and wrong shapes",
        plain_words="Can one device spoil everyone's result with values that are no numbers?",
        adversary=BAD_INPUT,
        setting="protocol",
        infer=infer,
        score=recovery(
            ("INPUT_NOT_FINITE", "SHAPE_MISMATCH"),
            "share of plays in which a mean is announced over a broken update",
        ),
        rule=Rule(success=0.7, margin=0.1),
        source="Quantisers that turn NaN into some integer.",
        tries=40,
    ),
)
