"""A15: clients that hold keys read another client's upload.

The adversary is the network (or the server) with t - 1 clients; where the threshold is one, with one client.
They pool the key shares in their memory and open the victim's upload with what Lagrange gives.
Source: the usual arrangement, in which all clients hold one secret key.
"""

from typing import Any

import numpy as np

from merveil.attacks import ckks, ckks_forge
from merveil.attacks.adversaries import POOL
from merveil.attacks.base import Attack, Public, Rule
from merveil.attacks.plays import Guess, recovery


def infer(view: Any, public: Public, rng: np.random.Generator) -> Guess:
    """The victim's codes under the key that the pooled shares give, right or wrong."""
    victim, *others = (1 + rng.permutation(view.size)).tolist()
    pooled = others[: max(1, view.params.threshold - 1)]
    view.take_over(pooled)
    round_ = view.round().begin()
    round_.run(until=ckks_forge.REQUEST)  # key shares are destroyed with the answer
    key = ckks.joint_share({i: ckks.share_of(round_, i) for i in pooled})
    return Guess(victim, ckks.opened(view.params, ckks.upload(round_, victim), key))


ATTACKS = (
    Attack(
        id="A15",
        title="clients with keys read another's upload",
        plain_words="Can other participants' devices together read what one device sent?",
        adversary=POOL,
        setting="protocol",
        infer=infer,
        score=recovery((), "share of uploads that t - 1 clients read exactly"),
        rule=Rule(success=0.9, margin=0.1),
        source="TenSEAL issues 188 and 438; examples of federated frameworks.",
        tries=40,
        schemes=("ckks",),
    ),
)
