"""A04: one group is told that the victim survived, the other that it dropped out; both kinds of shares come.

The first group gives shares of the self-mask seed, the second of the mask key's. The clients that the
adversary holds sign both lists and give both kinds. Each honest client answers once, and only for a list that
t holders signed; with 2t > n + c two lists cannot both have t signers.
Source: Bonawitz et al., CCS 2017.
"""

from typing import Any

import numpy as np

from merveil.attacks import opening
from merveil.attacks.adversaries import EQUIVOCATOR
from merveil.attacks.base import Attack, Public, Rule
from merveil.attacks.plays import Guess, recovery, refusals
from merveil.protocols.secagg import messages as msg
from merveil.protocols.secagg.messages import Kind


def sides(view: Any, round_: Any, victim: int) -> dict[int, bool]:
    """Client -> whether it is told that the victim survived: half the holders each, the rest by nearness."""
    graph, told = opening.graph(round_), {victim: True}
    around = [i for i in graph.holders(victim) if i not in view.corrupt and i != victim]
    left = set(around[: (len(around) + 1) // 2])
    for i in view.honest:
        near = sum(1 if h in left else -1 for h in graph.holders(i) if h in around)
        told.setdefault(i, i not in left if i in around else near < 0)
    return told


def request(round_: Any, client: int, root: bytes, signers: dict[int, bytes]) -> Any:
    """As many signatures on one root as the client counts and asks for."""
    holders = opening.graph(round_).holders(client)
    chosen = {i: s for i, s in sorted(signers.items()) if i in holders}
    t = round_.field.params.threshold
    body = msg.encode_request(dict(list(chosen.items())[:t]))
    return opening.frame_to(round_, Kind.REQUEST, client, body)


def split(view: Any, round_: Any, victim: int) -> dict[int, bool]:
    """Tell both stories and ask everyone for answers; who was told what."""
    batch = {f.to: f for f in round_.run(Kind.SURVIVORS)}
    round_.down = []
    root, bodies = opening.lists_without(round_, [victim])
    told = sides(view, round_, victim)
    roots = {True: round_.server._book.root, False: root}
    signers: dict[bool, dict[int, bytes]] = {True: {}, False: {}}
    for i, alive in told.items():
        frame = batch[i] if alive else opening.frame_to(round_, Kind.SURVIVORS, i, bodies[i])
        for answer in round_.hand(frame):
            signers[alive][i] = answer.signature
    for i in view.corrupt:
        for alive in (True, False):
            signers[alive][i] = opening.sign_list(round_, i, roots[alive])
    for i, alive in told.items():
        round_.hand(request(round_, i, roots[alive], signers[alive]))
    return told


def infer(view: Any, public: Public, rng: np.random.Generator) -> Guess:
    """The victim's vector from both its seeds."""
    round_ = view.round()
    victim = 1 + int(rng.integers(view.size))
    holders = [i for i in opening.graph(round_).holders(victim) if i != victim]
    view.take_over(rng.choice(holders, view.params.corrupt, replace=False).tolist())
    round_.begin()
    told = split(view, round_, victim)
    seeds = []
    for kind in (0, 1):
        shares = opening.from_answers(round_, victim, kind, told)
        for i in view.corrupt:
            kept = opening.share_kept(round_, i, victim)
            if kept is not None:
                shares[i] = kept.key_share if kind else kept.seed_share
        seeds.append(opening.combine(round_, victim, shares))
    vector = opening.open_vector(round_, victim, *seeds) if None not in seeds else None
    return Guess(victim, vector, refusals(view), figures={"colluders": float(len(view.corrupt))})


ATTACKS = (
    Attack(
        id="A04",
        title="one client claimed both alive and dead",
        plain_words="Can the server tell two stories about one device and combine what it gets for each?",
        adversary=EQUIVOCATOR,
        setting="protocol",
        infer=infer,
        score=recovery(
            ("BELOW_THRESHOLD", "BAD_SIGNATURE", "ROSTER_MISMATCH"),
            "share of plays in which both kinds of shares come together and open the vector",
        ),
        rule=Rule(success=0.9, margin=0.1),
        source="Bonawitz et al., CCS 2017.",
        tries=40,
        schemes=("secagg", "secagg+"),
    ),
)
