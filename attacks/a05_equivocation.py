"""A05: two survivor lists, the victim alive on one and dead on the other, told to the same clients.

Plays rotate through three orders: both lists before any request; the second list after the answer to the
first; the false list with the signatures that were given for the true one. If both were answered, the two
sums would differ by the victim's vector.
Source: the malicious variant of Bonawitz et al. 2017; Bell et al., CCS 2020.
"""

from typing import Any

import numpy as np

from merveil.attacks import opening
from merveil.attacks.adversaries import EQUIVOCATOR
from merveil.attacks.base import Attack, Public, Rule
from merveil.attacks.plays import Guess, recovery, refusals
from merveil.protocols.ckks import messages as ckks
from merveil.protocols.secagg import messages as msg
from merveil.protocols.secagg.messages import Kind

ORDERS = (("list", "lie", "ask lie", "list", "ask"), ("list", "ask", "lie", "ask lie"))
THIRD = ("lie", "ask", "ask lie", "list", "ask")  # the true list's signatures for the false list


class Two:
    """The two lists of a round, who signed them, and the shares that came for each."""

    def __init__(self, view: Any, round_: Any, victim: int) -> None:
        self.view, self.round, self.victim = view, round_, victim
        self.batch = {f.to: f for f in round_.run(Kind.SURVIVORS)}
        round_.down = []
        _, self.lies = opening.lists_without(round_, [victim])
        self.signers: dict[bool, dict[int, bytes]] = {True: {}, False: {}}
        self.last: dict[int, bool] = {}
        self.shares: tuple[dict[int, bytes], dict[int, bytes]] = ({}, {})

    def tell(self, i: int, alive: bool) -> None:
        kind = Kind.SURVIVORS
        frame = self.batch[i] if alive else opening.frame_to(self.round, kind, i, self.lies[i])
        for answer in self.round.hand(frame):
            self.signers[alive][i], self.last[i] = answer.signature, alive

    def ask(self, i: int, alive: bool) -> None:
        holders, t = opening.graph(self.round).holders(i), self.view.params.threshold
        chosen = dict([(j, s) for j, s in sorted(self.signers[alive].items()) if j in holders][:t])
        self.round.heard.pop((Kind.ANSWER, i), None)
        self.round.hand(opening.frame_to(self.round, Kind.REQUEST, i, msg.encode_request(chosen)))
        says = self.last.get(i, True)
        found = opening.from_answers(self.round, self.victim, 0 if says else 1, self.last)
        if i in found:
            self.shares[0 if says else 1][i] = found[i]


def infer(view: Any, public: Public, rng: np.random.Generator) -> Guess:
    """The victim's vector, by the shares that two lists give."""
    round_ = view.round().begin()
    victim = 1 + int(rng.integers(view.size))
    if view.build.scheme == "ckks":
        return Guess(victim, None, two_ckks_lists(view, round_, victim))
    two = Two(view, round_, victim)
    clients = [i for i in view.honest if i != victim]
    order = (*ORDERS, THIRD)[view.number % 3]
    if order is THIRD:  # the true list is signed by a part, so that its signatures exist
        for i in clients[::2]:
            two.tell(i, True)
    for step in order:
        for i in clients:
            (two.ask if step.startswith("ask") else two.tell)(i, "lie" not in step)
    seeds = [opening.combine(round_, victim, found) for found in two.shares]
    vector = opening.open_vector(round_, victim, *seeds) if None not in seeds else None
    return Guess(victim, vector, refusals(view))


def two_ckks_lists(view: Any, round_: Any, victim: int) -> tuple[str, ...]:
    """The same with the lists of `ckks`: the refusals; a sum without the victim would be the second sum."""
    batch = list(round_.run(Kind.SURVIVORS))
    listed = ckks.decode_survivors(batch[0].body)
    lie = ckks.encode_survivors({i: d for i, d in listed.items() if i != victim})
    for frame in batch:
        first, second = (frame.body, lie) if frame.to != victim else (lie, frame.body)
        for body in (first, second):
            round_.hand(type(frame)(frame.suite, frame.kind, frame.session, 0, frame.to, body))
    return refusals(view)


ATTACKS = (
    Attack(
        id="A05",
        title="two survivor lists for the same clients",
        plain_words="Can the server get two results out of one round that differ by one participant?",
        adversary=EQUIVOCATOR,
        setting="protocol",
        infer=infer,
        score=recovery(
            ("ROSTER_MISMATCH", "BAD_SIGNATURE", "MALFORMED_FRAME", "BELOW_THRESHOLD"),
            "share of plays in which two lists are answered and differ by the victim's vector",
        ),
        rule=Rule(success=0.9, margin=0.1),
        source="Bonawitz et al., CCS 2017; Bell et al., CCS 2020.",
        tries=42,
        schemes=("secagg", "secagg+", "ckks"),
    ),
)
