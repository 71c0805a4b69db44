"""A03: the same round again: two vectors under one mask, and their difference in clear.

The server lets a round finish, then asks for it again, as the same attempt or as the next one. The second
time the victim's vector is known (the model it was sent gives no update), so the difference of the two
uploads would be the first vector. The masks of two honest rounds are compared as well.
Source: replay rules of draft-ietf-ppm-dap, issue 582.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from merveil.attacks import reading
from merveil.attacks.adversaries import REPLAYER
from merveil.attacks.base import Attack, Finding, Public, Rule
from merveil.attacks.plays import Guess, recovery, refusals

_SIZE = 512


def upload(round_: Any, client: int) -> NDArray[np.int64] | None:
    """The vector in a client's frame, decoded as if it were in clear; None where none was sent."""
    kind = reading.VECTOR_KIND.get(round_.field.build.scheme, 5)
    frame = round_.heard.get((kind, client))
    return None if frame is None else reading.packed_tail(round_.field.params, frame.body)


def difference(view: Any, one: NDArray[np.int64], two: NDArray[np.int64]) -> NDArray[np.int64]:
    """one - two modulo the modulus, as signed codes."""
    m = view.params.modulus
    return (one - two + m // 2) % m - m // 2


def infer(view: Any, public: Public, rng: np.random.Generator) -> Guess:
    """The victim's first vector as the difference of two uploads; masks of another client in two rounds."""
    view.dim = _SIZE
    victim, other = rng.choice(np.arange(1, view.size + 1), 2, replace=False).tolist()
    for which in (1, 2):  # the other client's values are frozen: its frames are its masks
        view.plant(other, which, np.zeros(view.params.size, dtype=np.int64))
    first, second = view.round(round=1).begin(), view.round(round=2).begin()
    first.run()
    second.run()
    masks = np.stack([upload(first, other), upload(second, other)])
    one = upload(first, victim)
    view.refused.clear()
    view.plant(victim, 3, np.zeros(view.params.size, dtype=np.int64))
    again = view.round(round=1, attempt=1 + view.number % 2, vectors=3).begin()
    again.run()
    two = upload(again, victim)
    codes = refusals(view)
    vector = None if one is None or two is None else difference(view, one, two)
    return Guess(victim, vector, codes, sample=masks)


def score(guesses: Sequence[Guess], truths: Any, rng: np.random.Generator) -> Finding:
    """Share of first vectors recovered; masks of two rounds must not be correlated where there are masks."""
    statistic = "share of plays in which a repeated round gives a second upload and the first vector"
    found = recovery(("ROUND_REUSED",), statistic)(guesses, truths, rng)
    masks = np.concatenate([np.asarray(g.sample, dtype=np.float64) for g in guesses], axis=1)
    if not masks.any():  # plain: nothing is masked
        return found
    r, n = float(np.corrcoef(masks)[0, 1]), masks.shape[1]
    independent = abs(r) * np.sqrt(n) < 5.0
    return replace(
        found,
        held=found.held * independent,
        details={**found.details, "mask_correlation": r, "mask_words": float(n)},
    )


ATTACKS = (
    Attack(
        id="A03",
        title="a round asked for twice",
        plain_words="Can the server ask a device for the same round again and compare the two messages?",
        adversary=REPLAYER,
        setting="protocol",
        infer=infer,
        score=score,
        rule=Rule(success=0.9, margin=0.1),
        source="draft-ietf-ppm-dap, issue 582.",
        tries=40,
    ),
)
