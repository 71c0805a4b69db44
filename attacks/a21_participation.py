"""A21: one client's vector out of sums whose survivors differ: what a server gets by who takes part.

A21: the same model twice, the second time without the victim; the difference of the two sums is its vector.
Clients whose policy asks for a minimum difference refuse the second sum. A21-default: the default policy has
no such rule. A21-rounds: many rounds with the same vectors and other survivors each; the announced survivor
lists are the participation matrix, and least squares gives every vector once its rank is full (--full: 50
clients and 200 rounds).
Source: Lam et al., ICML 2021 (gradient disaggregation); So et al., AAAI 2023 (batch partitioning).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from merveil.attacks.adversaries import DROPPER
from merveil.attacks.base import Attack, Finding, Public, Rule
from merveil.attacks.plays import Guess, recovery, refusals
from merveil.protocols.codec import to_signed

STATISTIC = "share of victims whose vector is recovered to the last bit"


def _sum(view: Any, number: int, without: tuple[int, ...] = ()) -> Any:
    """(survivors, signed sum) of a round over vector 1 of every client, or None where there is no sum."""
    play = view.round(silent=without, vectors=1, round=number).begin()
    play.run()
    found = view.attempt(0, play.server.result) if play.server.phase.name == "DONE" else None
    return None if found is None else (found.survivors, np.asarray(found.codes, dtype=np.int64))


def infer(view: Any, public: Public, rng: np.random.Generator) -> Guess:
    """The victim's vector as the difference of two sums, if both were given."""
    victim = 1 + int(rng.integers(view.size))
    first, second = _sum(view, 1), _sum(view, 2, (victim,))
    if first is None or second is None or victim in second[0]:
        return Guess(victim, codes=refusals(view))
    codes = to_signed(view.params, np.mod(first[1] - second[1], view.params.modulus))
    return Guess(victim, codes, refusals(view))


def infer_rounds(view: Any, public: Public, rng: np.random.Generator) -> Guess:
    """The victim's vector by least squares over as many rounds as the build says, or clients and six.

    sample: every client's solved vector [n, size], for the figure how many are exact.
    """
    victim = 1 + int(rng.integers(view.size))
    rows, sums = [], []
    for number in range(1, (view.build.rounds or view.size + 6) + 1):
        without = rng.permutation(view.size)[: rng.integers(1, 3)] + 1
        found = _sum(view, number, tuple(int(i) for i in without))
        if found is not None:
            rows.append(np.isin(np.arange(1, view.size + 1), found[0]))
            sums.append(found[1])
    matrix = np.array(rows, dtype=np.float64)
    if len(matrix) == 0 or np.linalg.matrix_rank(matrix) < view.size:
        return Guess(victim, codes=refusals(view))
    solved = np.rint(np.linalg.lstsq(matrix, np.array(sums, dtype=np.float64), rcond=None)[0]).astype(
        np.int64
    )
    figures = {"clients": float(view.size), "rounds": float(len(matrix))}
    return Guess(victim, solved[victim - 1], refusals(view), figures=figures, sample=solved)


def score_rounds(guesses: Sequence[Guess], truths: Any, rng: np.random.Generator) -> Finding:
    """As `recovery`, and the share of all clients' vectors that are exact, the victims' or not."""
    found = recovery((), STATISTIC)(guesses, truths, rng)
    exact = [
        np.array_equal(row, truth[i, 1])
        for guess, truth in zip(guesses, truths)
        if guess.sample is not None
        for i, row in enumerate(guess.sample, 1)
    ]
    return replace(found, details={**found.details, "vectors_exact": float(np.mean(exact)) if exact else 0.0})


def _attack(
    name: str,
    title: str,
    setting: str,
    how: Any,
    named: tuple[str, ...],
    tries: int,
    schemes: tuple[str, ...] = (),
) -> Attack:
    return Attack(
        id=name,
        title=title,
        plain_words="If participants come and go, can the server work out what one of them sent?",
        adversary=DROPPER,
        setting=setting,
        infer=how,
        score=score_rounds if how is infer_rounds else recovery(named, STATISTIC),
        rule=Rule(success=0.9, margin=0.15),
        source="Lam et al., ICML 2021.",
        on_sum=setting == "open",
        tries=tries,
        schemes=schemes,
    )


ATTACKS = (
    _attack(
        "A21", "two sums that differ by one client, under a policy that minds", "minding", infer,
        ("COHORT_TOO_SMALL",), 25,
    ),
    _attack("A21-default", "two sums that differ by one client", "open", infer, (), 12),
    _attack(
        "A21-rounds", "many sums of the same vectors, solved for each", "open", infer_rounds, (), 4,
        ("plain", "secagg", "ckks"),  # a sparse graph needs twenty clients, and the sums are the same
    ),
)  # fmt: skip
