"""What a play of a protocol attack gives, and how plays are counted.

Guarantees: a play wins only with the victim's vector to the last bit (or, where no vector is at stake, by the
attack's own stated criterion), and it counts as defended only if an honest party refused with a code that
the attack's file named beforehand.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from merveil.attacks.base import Finding, Score
from merveil.attacks.findings import proportion
from merveil.attacks.protocol import Field
from merveil.mer.extras import need

Codes = NDArray[np.int64]


@dataclass(frozen=True)
class Guess:
    """One play. vector: the victim's vector as recovered, or None. codes: what honest parties refused with.

    right: for attacks that recover no vector, whether the play went the adversary's way. sample: values whose
    distribution the score looks at.
    """

    victim: int = 0
    vector: Codes | None = field(default=None, repr=False)
    codes: tuple[str, ...] = ()
    right: bool = False
    which: int = 1  # number of the vector that was meant
    figures: Mapping[str, float] = field(default_factory=dict)
    sample: NDArray[Any] | None = field(default=None, repr=False)


def refusals(view: Field, *, among: Iterable[int] | None = None) -> tuple[str, ...]:
    """Codes that honest clients (or `among`) refused with, in order."""
    who = set(view.honest if among is None else among)
    return tuple(code for i, code in view.refused if i in who)


def won(guess: Guess, truth: Mapping[tuple[int, int], Codes]) -> bool:
    """Whether the play got the victim's vector to the last bit, or was right in its own terms."""
    if guess.vector is None:
        return guess.right
    return bool(np.array_equal(guess.vector, truth[guess.victim, guess.which]))


def recovery(named: Iterable[str], statistic: str, unit: str = "plays") -> Score:
    """A score for plays that recover a vector exactly; chance is nil.

    named: codes of which at least one must be seen in every play that was not won, and no other; with no
    code named, a play needs none. The share of plays in which that held is `Finding.held`.
    """
    allowed = frozenset(named)

    def score(guesses: Sequence[Guess], truths: Any, rng: np.random.Generator) -> Finding:
        hits = [won(g, t) for g, t in zip(guesses, truths)]
        held = [not allowed or (bool(g.codes) and set(g.codes) <= allowed) for g in guesses]
        return proportion(sum(hits), len(hits), statistic, unit, float(np.mean(held)), figures(guesses))

    return score


def figures(guesses: Sequence[Guess]) -> dict[str, float]:
    """How often each code came, as a share of the plays, and the mean of each play's own figures."""
    codes = sorted({c for g in guesses for c in g.codes})
    found = {f"refused {c}": float(np.mean([c in g.codes for g in guesses])) for c in codes}
    for name in sorted({n for g in guesses for n in g.figures}):
        found[name] = float(np.mean([g.figures[name] for g in guesses if name in g.figures]))
    return found


def uniform_p(values: NDArray[Any], bins: int) -> float:
    """p of a chi-square test that integers in [0, bins) are uniform."""
    counts = np.bincount(np.asarray(values, dtype=np.int64), minlength=bins)
    expected = len(values) / bins
    statistic = float(((counts - expected) ** 2).sum() / expected)
    return float(need("scipy.stats", "attacks").chi2.sf(statistic, bins - 1))


UNIFORM_ALPHA = 1e-6  # secrets are fresh in every run, and a bench of many tests must not cry wolf
