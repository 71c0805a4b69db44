"""A09 on `lattice`: members of the committee put their shares of one key together; A33: with stolen keys.

`A09-lattice`: as many members as the parameters tolerate (t - l, fewer where the committee is small) open the
victim's boxes, and the adversary completes the polynomials at random points with zeros, the best guess there
is, and opens the upload. `A33-lattice`: the long-term keys of a quorum of members, stolen after the round has
closed, open the stored boxes: shares travel under static keys of their receivers, and nothing of a round
makes them stale. Source: Franklin and Yung 1992 (privacy t - l); forward secrecy as in A33.
"""

from typing import Any

import numpy as np

from merveil.attacks import lattice
from merveil.attacks.adversaries import POOL, THIEF
from merveil.attacks.base import Attack, Public, Rule
from merveil.attacks.plays import Guess, recovery


def _choose(view: Any, round_: Any, count: int, rng: np.random.Generator) -> tuple[int, list[int]]:
    """A victim, and members other than it."""
    victim = 1 + int(rng.integers(view.size))
    others = [m for m in lattice.members(round_) if m != victim]
    return victim, sorted(rng.choice(others, count, replace=False).tolist())


def infer(view: Any, public: Public, rng: np.random.Generator) -> Guess:
    """The victim's vector from the shares of t - l members."""
    round_, params = view.round(), view.params
    victim, pool = _choose(view, round_, max(params.privacy, 1), rng)
    view.take_over(pool)
    round_.begin()
    round_.run()
    shares = {m: lattice.unsealed(round_, victim, m, view.key(m)) for m in pool}
    held = {m: s for m, s in shares.items() if s is not None}
    others = [m for m in lattice.members(round_) if m not in held]
    for m in others[: params.quorum - len(held)]:
        held[m] = np.zeros(params.blocks, dtype=np.int64)
    return _open(view, round_, victim, held, len(shares))


def infer_stolen(view: Any, public: Public, rng: np.random.Generator) -> Guess:
    """The victim's vector of a closed round, with the long-term keys of a quorum."""
    round_ = view.round().begin()
    round_.run()
    victim, thieves = _choose(view, round_, view.params.quorum, rng)
    shares = {m: lattice.unsealed(round_, victim, m, view.steal(m)) for m in thieves}
    return _open(view, round_, victim, {m: s for m, s in shares.items() if s is not None}, len(thieves))


def _open(view: Any, round_: Any, victim: int, held: dict[int, Any], opened: int) -> Guess:
    key, found = lattice.key_sum(round_, held), lattice.upload(round_, victim)
    vector = None
    if key is not None and found is not None:
        vector = lattice.opened(view.params, round_.context.digest, found, key)
    return Guess(victim, vector, figures={"shares opened": float(opened)})


ATTACKS = (
    Attack(
        id="A09-lattice",
        title="shares of a lattice key pooled by the members that are tolerated",
        plain_words="Can the tolerated number of committee members, with the server, read an update?",
        adversary=POOL,
        setting="protocol",
        infer=infer,
        score=recovery((), "share of plays in which t - l members' shares give the victim's vector"),
        rule=Rule(success=0.9, margin=0.14),
        source="Franklin and Yung 1992.",
        tries=25,
        schemes=("lattice",),
    ),
    Attack(
        id="A33-lattice",
        title="stored rounds and the long-term keys of a quorum, stolen later",
        plain_words="Can a thief who later takes the keys of most committee members read old rounds?",
        adversary=THIEF,
        setting="protocol",
        infer=infer_stolen,
        score=recovery((), "share of plays in which stolen keys of a quorum open a closed round"),
        rule=Rule(success=0.9, margin=0.14),
        source="Forward secrecy; compare A33.",
        tries=25,
        schemes=("lattice",),
    ),
)
