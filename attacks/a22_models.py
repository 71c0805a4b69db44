"""A22: the server sends the victim the real model and everybody else one that yields nothing.

With a dead model the others' updates are zero, so a perfect sum is the victim's update. Clients bind the hash
of the model they train to every key and signature: the victim meets peers of another model and refuses, also
where the server rewrites the fingerprint that names it. Control: clients that bind a constant instead.
Source: Pasquini et al., CCS 2022 (Eluding secure aggregation).
"""

from dataclasses import replace
from typing import Any

import numpy as np

from merveil.attacks.adversaries import FORKER
from merveil.attacks.base import Attack, Public, Rule
from merveil.attacks.plays import Guess, recovery, refusals
from merveil.protocols.codec import to_signed

REAL, DEAD = b"\x01" * 32, b"\x02" * 32


def infer(view: Any, public: Public, rng: np.random.Generator) -> Guess:
    """The victim's vector as the announced sum, if a sum with it came about."""
    victim = 1 + int(rng.integers(view.size))
    others = [i for i in range(1, view.size + 1) if i != victim]
    for i in others:
        view.plant(i, 1, np.zeros(view.params.size, dtype=np.int64))
    forked = view.round(silent=others, model_hash=REAL).begin()
    play = view.round(silent=(victim,), model_hash=DEAD).begin()
    play.silent = frozenset()  # its frames count from here on, where the server's session takes them
    play.up([frame for (_, sender), frame in forked.heard.items() if sender == victim])
    play.down = play.down or list(view.attempt(0, play.server.close_phase) or ())
    _show(view, play, forked, victim)
    while play.server.phase.name not in ("DONE", "ABORTED"):
        batch, play.down = play.down or list(view.attempt(0, play.server.close_phase) or ()), []
        for frame in batch:
            play.up((forked if frame.to == victim else play).hand(frame))
    done = view.attempt(0, play.server.result) if play.server.phase.name == "DONE" else None
    if done is None or victim not in done.survivors:
        return Guess(victim, codes=refusals(view, among=[victim]))
    codes = to_signed(view.params, np.mod(np.asarray(done.codes), view.params.modulus))
    return Guess(victim, codes, refusals(view, among=[victim]))


def _show(view: Any, play: Any, forked: Any, victim: int) -> None:
    """Hand the victim what its peers got, as it is or with the fingerprint of its own model."""
    if not any(who == 0 for who, _ in view.refused) or not play.down:
        return  # the server's session took the victim's key, so it is in the list as it is
    frame = play.down[0]
    own, peers = forked.context.fingerprint, play.context.fingerprint
    body = frame.body if view.number % 2 else frame.body.replace(peers, own)
    forked.hand(replace(frame, to=victim, session=forked.context.digest[:16], body=body))


ATTACKS = (
    Attack(
        id="A22",
        title="another model for everybody but the victim",
        plain_words="If the server gives different participants different models, can it single one out?",
        adversary=FORKER,
        setting="protocol",
        infer=infer,
        score=recovery(
            ("MODEL_MISMATCH", "BAD_SIGNATURE", "BAD_KEY", "ROSTER_MISMATCH"),
            "share of victims whose vector is the sum",
        ),
        rule=Rule(success=0.9, margin=0.15),
        source="Pasquini et al., CCS 2022.",
        tries=25,
    ),
)
