"""A10: a client's older snapshot is given back to it, or keys of an earlier round are offered again.

Snapshots lie in the engine's store, so the server can return any of them. The snapshot is one that was
taken after the masks were agreed and before the vector went in: resumed twice, two vectors leave under one
mask. The second vector is known, so the first is the difference. In a later round the client is told the key
list of the earlier one. Source: state that must not be restored, as in any scheme with single-use keys.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from merveil.attacks.a03_replay import difference, upload
from merveil.attacks.adversaries import ROLLBACK
from merveil.attacks.base import Attack, Public, Rule
from merveil.attacks.plays import Guess, recovery, refusals
from merveil.protocols.secagg.messages import Kind


def infer(view: Any, public: Public, rng: np.random.Generator) -> Guess:
    """The victim's vector as the difference of what it sent from one snapshot, twice."""
    victim = 1 + int(rng.integers(view.size))
    round_ = view.round(round=1).begin(late=[victim])
    relays = {f.to: f for f in round_.run(Kind.RELAY)}
    if victim in relays:
        round_.hand(relays[victim])
    blob = round_.suspend(victim)
    round_.resume(victim, blob)
    round_.submit(victim)
    one = upload(round_, victim)
    view.plant(victim, 3, np.zeros(view.params.size, dtype=np.int64))
    two = None
    if round_.resume(victim, blob):
        round_.heard.pop((Kind.MASKED, victim), None)
        round_.vectors = 3
        round_.submit(victim)
        two = upload(round_, victim)
    codes = refusals(view, among=[victim])
    if (Kind.KEYS, victim) in round_.told:  # keys of round 1, offered in round 2
        view.refused.clear()
        later = view.round(round=2).begin()
        later.hand(replace(round_.told[Kind.KEYS, victim]))
        codes = codes + refusals(view, among=[victim]) if refusals(view, among=[victim]) else ()
    vector = None if one is None or two is None else difference(view, one, two)
    return Guess(victim, vector, codes)


ATTACKS = (
    Attack(
        id="A10",
        title="an old snapshot, or keys of an earlier round",
        plain_words="Can the server put a device back to an earlier moment and make it send twice?",
        adversary=ROLLBACK,
        setting="protocol",
        infer=infer,
        score=recovery(
            ("STATE_ROLLBACK", "STALE_KEY"),
            "share of plays in which a restored client masks a second vector and the first comes out",
        ),
        rule=Rule(success=0.9, margin=0.1),
        source="Single-use keys and restored state; compare fedbiomed issue 1198.",
        tries=40,
    ),
)
