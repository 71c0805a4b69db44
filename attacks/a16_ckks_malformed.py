"""A16: ciphertexts that are none: transparent, truncated, out of range, foreign, or a library's own bytes.

A client sends them under its own valid signature. Taken means: the server has added it to the sum.
Source: transparent ciphertexts in SEAL; flips and truncations of TenSEAL's serialised form.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from merveil.attacks import ckks_forge
from merveil.attacks.adversaries import BAD_INPUT
from merveil.attacks.base import Attack, Public, Rule
from merveil.attacks.plays import Guess, recovery

KINDS = tuple(ckks_forge.MALFORMED)


def infer(view: Any, public: Public, rng: np.random.Generator) -> Guess:
    """Right where the malformed ciphertext of this play is taken; each kind in turn."""
    what = KINDS[view.number % len(KINDS)]
    client = 1 + int(rng.integers(view.size))
    view.take_over({client})
    round_ = view.round()
    ckks_forge.uploads(round_, client, lambda f: ckks_forge.malformed_upload(round_, f, what))
    taken = ckks_forge.counted(round_, client)
    codes = [round_.server.excluded[client].name] if client in round_.server.excluded else []
    codes += [code for who, code in view.refused if who == 0]
    return Guess(right=taken, codes=tuple(codes), figures={f"taken: {what}": float(taken)})


ATTACKS = (
    Attack(
        id="A16",
        title="malformed, transparent and foreign ciphertexts",
        plain_words="Does the server take broken or unencrypted data for an encrypted update?",
        adversary=replace(BAD_INPUT, knows="its own keys, and the layout of every frame"),
        setting="protocol",
        infer=infer,
        score=recovery(
            ("BAD_CIPHERTEXT", "MALFORMED_FRAME", "BAD_SIGNATURE", "ROSTER_MISMATCH"),
            "share of malformed ciphertexts that are taken",
        ),
        rule=Rule(success=0.2, margin=0.1),
        source="SEAL's transparency check sits on evaluator outputs only.",
        tries=42,
        schemes=("ckks",),
    ),
)
