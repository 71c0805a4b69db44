"""A14: the key of a CKKS sum from its decryption (IND-CPA-D).

A decrypted sum is message plus noise, m + e. Who holds the ciphertext and these to the last bit solves
c0 + c1*s = m + e for the key s. The attacker takes every form in which a sum is released (published values,
and what the server sees before it rounds), encodes it again and divides. A key found has small coefficients
only; by chance one in 2^68 is small.
Source: Li and Micciancio, EUROCRYPT 2021.
"""

from typing import Any

import numpy as np

from merveil.attacks import ckks
from merveil.attacks.base import CURIOUS_SERVER, Attack, Public, Rule
from merveil.attacks.plays import Guess, recovery


def infer(view: Any, public: Public, rng: np.random.Generator) -> Guess:
    """Right where one of the released plaintexts gives a key of small coefficients only."""
    seen = ckks.released(view, rng)
    shares = [ckks.small(ckks.solve(seen.c0, seen.c1, p), seen.clients) for p in seen.plaintexts]
    figures = {"coefficients of the key": max(shares)}
    return Guess(right=max(shares) == 1.0, figures=figures)


ATTACKS = (
    Attack(
        id="A14",
        title="the key from a decrypted sum",
        plain_words="Can anyone compute the decryption key from the published result?",
        adversary=CURIOUS_SERVER,
        setting="protocol",
        infer=infer,
        score=recovery((), "share of sums whose decryption gives the whole key"),
        rule=Rule(success=0.9, margin=0.1),
        source="Li and Micciancio, EUROCRYPT 2021; SEAL issue 720.",
        tries=40,
        schemes=("ckks",),
    ),
)
