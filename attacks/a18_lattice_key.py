"""A18: a lattice key used for two vectors.

Under one key and one set of public polynomials the difference of two uploads is free of a*s: what is left is
small noise and the difference of the messages, digit by digit. The second vector is known, because the server
chose the model for it. The victim is made to send in two rounds, then asked for a second vector in the same
attempt, in the same session and after a restart. The residues of the difference are tested for uniformity.
Source: Bell et al. (LERNA), ASIACRYPT 2023; Karthikeyan and Polychroniadou (OPA), 2024.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from merveil.attacks import lattice
from merveil.attacks.adversaries import REPLAYER
from merveil.attacks.base import Attack, Finding, Public, Rule
from merveil.attacks.plays import UNIFORM_ALPHA, Guess, recovery, refusals, uniform_p

BINS = 64


def infer(view: Any, public: Public, rng: np.random.Generator) -> Guess:
    """The victim's first vector as the difference of two uploads; the second is zero."""
    view.dim = 600  # enough residues for a test of their distribution
    victim = 1 + int(rng.integers(view.size))
    first = view.round(round=1).begin()
    first.run()
    view.plant(victim, 2, np.zeros(view.params.size, dtype=np.int64))
    second = view.round(round=2).begin()
    one, two = lattice.upload(first, victim), lattice.upload(second, victim)
    first.hand_in(victim, view.vector(victim, 2).copy())
    view.attempt(victim, lambda: view.session(victim).start())  # after a restart, the same attempt
    if one is None or two is None:
        return Guess(victim, None, refusals(view, among=[victim]))
    params = view.params
    primes = np.array(params.layout.primes, dtype=np.int64)[:, None]
    rows = (lattice.residues(params, one).astype(np.int64) - lattice.residues(params, two)) % primes
    sample = (rows * BINS // primes).reshape(-1)
    return Guess(victim, lattice.difference(params, one, two), refusals(view, among=[victim]), sample=sample)


def score(guesses: Sequence[Guess], truths: Any, rng: np.random.Generator) -> Finding:
    """Share of vectors recovered; the differences must pass for uniform."""
    statistic = "share of plays in which the difference of two uploads is the victim's vector"
    found = recovery(("ROUND_REUSED", "SessionSpent", "LocalError", "KEY_REUSE"), statistic)(
        guesses, truths, rng
    )
    values = np.concatenate([g.sample for g in guesses if g.sample is not None])
    p = uniform_p(values, BINS)
    details = {**found.details, "uniform_p": p, "uniform_n": float(len(values))}
    return replace(found, held=found.held * float(p > UNIFORM_ALPHA), details=details)


ATTACKS = (
    Attack(
        id="A18",
        title="a lattice key used for two vectors",
        plain_words="Can the server make a device hide two updates under the same key and subtract them?",
        adversary=REPLAYER,
        setting="protocol",
        infer=infer,
        score=score,
        rule=Rule(success=0.9, margin=0.1),
        source="LERNA, ASIACRYPT 2023; OPA, 2024.",
        tries=40,
        schemes=("lattice",),
    ),
)
