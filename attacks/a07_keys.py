"""A07: the server shows the victim keys of its own under the names of its neighbours, and reads its shares.

It deals for every neighbour itself, so each advert fits its commitments, and seals the boxes with what it
knows: the ephemeral agreement, and zeros where the pair's chain belongs. If the victim masks, the server
opens the boxes that the victim sealed, rebuilds the self-mask seed and takes every mask off. Another client
is shown a key of low order, which makes any agreement zero.
Source: the reason for the PKI in Bonawitz et al., CCS 2017.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from merveil.attacks import opening
from merveil.attacks.adversaries import MAN_IN_THE_MIDDLE
from merveil.attacks.base import Attack, Public, Rule
from merveil.attacks.plays import Guess, recovery, refusals
from merveil.protocols.ckks import messages as ckks
from merveil.protocols.ckks.sealing import box_keys
from merveil.protocols.primitives import merkle
from merveil.protocols.primitives.aead import OVERHEAD, open_once, seal_once
from merveil.protocols.primitives.agreement import agree, private_key, public_bytes
from merveil.protocols.primitives.shamir import SHARE
from merveil.protocols.rng import SystemRng
from merveil.protocols.secagg import messages as msg
from merveil.protocols.secagg.client import box_aad
from merveil.protocols.secagg.dealing import Dealing, deal
from merveil.protocols.secagg.keys import PairKeys, mask_scalar, pair_keys
from merveil.protocols.secagg.messages import Kind

LOW_ORDER = bytes(32)
CHAIN = bytes(32)  # the server does not have the pair's chain


class Puppets:
    """Dealings in the neighbours' names, and the keys that the server then shares with the victim."""

    def __init__(self, round_: Any, victim: int, low_order: bool) -> None:
        self.round, self.victim = round_, victim
        self.context, self.graph = round_.context.digest, opening.graph(round_)
        self.peers = list(self.graph.neighbours(victim))
        t, rng = round_.field.params.threshold, SystemRng()
        self.dealt: dict[int, Dealing] = {
            i: deal(self.context, i, self.graph.holders(i), t, rng) for i in self.peers
        }
        self.adverts = {i: d.advert for i, d in self.dealt.items()}
        if low_order:
            self.adverts[self.peers[0]] = self.adverts[self.peers[0]]._replace(mask_key=LOW_ORDER)
        self.own = opening.adverts(round_)[victim]

    def key_list(self) -> bytes:
        """KEYS for the victim: its own advert under a root of the server's making."""
        everyone = {**self.adverts, self.victim: self.own}
        cohort = self.round.context.cohort
        leaves = [everyone[i].digest(self.context, i) if i in everyone else merkle.ZERO for i in cohort]
        tree = merkle.flat_tree(leaves)
        path = merkle.path(tree, cohort.index(self.victim))
        fingerprint = self.round.context.fingerprint
        return msg.KeyList(fingerprint, merkle.root(tree), len(everyone), path, self.adverts).encode()

    def keys(self, sid: bytes, peer: int) -> PairKeys:
        secret = mask_scalar(self.context, self.dealt[peer].key_seed)
        return pair_keys(sid, CHAIN, agree(secret, self.own.mask_key, 0), peer, self.victim)

    def aad(self, sid: bytes, dealer: int, holder: int, path: bytes) -> bytes:
        digest = {i: a.digest(self.context, i) for i, a in (*self.adverts.items(), (self.victim, self.own))}
        return box_aad(sid, dealer, holder, digest[dealer], digest[holder], path)

    def relay(self, sid: bytes) -> bytes:
        """RELAY for the victim: boxes in the neighbours' names."""
        entries = {}
        for i, d in self.dealt.items():
            path = merkle.path(d.tree, self.graph.place(i, self.victim))
            aad = self.aad(sid, i, self.victim, path)
            entries[i] = (path, seal_once(self.keys(sid, i).outgoing, d.held[self.victim].encode(), aad))
        return msg.encode_relay(entries)

    def seed(self, sid: bytes) -> bytes | None:
        """The victim's self-mask seed from the boxes that it sealed for its neighbours."""
        body = self.round.heard[Kind.SHARES, self.victim].body
        holders = self.graph.holders(self.victim)
        nodes, boxes = msg.decode_shares(body, self.victim, len(holders), self.peers)
        tree, shares = merkle.flat_tree(nodes), {}
        for i, box in boxes.items():
            path = merkle.path(tree, self.graph.place(self.victim, i))
            plain = open_once(self.keys(sid, i).incoming, box, self.aad(sid, self.victim, i, path))
            if plain is not None:
                shares[i] = plain[:SHARE]
        return opening.combine(self.round, self.victim, shares)


def infer(view: Any, public: Public, rng: np.random.Generator) -> Guess:
    """The victim's vector, all of whose masks the server shares."""
    victim, other = rng.choice(np.arange(1, view.size + 1), 2, replace=False).tolist()
    round_ = view.round().begin()
    if view.build.scheme == "ckks":
        return Guess(victim, None, substituted_ckks(view, round_, victim, other))
    kind, again = Kind.KEYS, Kind.RELAY
    round_.run(kind)
    low = Puppets(round_, other, low_order=True)
    round_.hand(opening.frame_to(round_, kind, other, low.key_list()))
    puppets = Puppets(round_, victim, low_order=False)
    round_.hand(opening.frame_to(round_, kind, victim, puppets.key_list()))
    sid = opening.session_id(round_, victim)
    round_.hand(opening.frame_to(round_, again, victim, puppets.relay(sid)))
    seed = puppets.seed(sid) if (Kind.MASKED, victim) in round_.heard else None
    if seed is None:
        return Guess(victim, None, both(view, victim, other))
    pairs = {i: puppets.keys(sid, i).mask for i in puppets.peers}
    vector = opening.signed(round_, opening.take_off(round_, victim, seed, pairs))
    return Guess(victim, vector, both(view, victim, other))


def both(view: Any, victim: int, other: int) -> tuple[str, ...]:
    """What the victim refused with, if the client that was shown a low-order key refused as well."""
    return refusals(view, among=[victim]) if refusals(view, among=[other]) else ()


def substituted_ckks(view: Any, round_: Any, victim: int, other: int) -> tuple[str, ...]:
    """The same on `ckks`, where shares of the round's key travel in the boxes: the refusals."""
    frame = next(f for f in round_.run(Kind.KEYS) if f.to == victim)
    seed = SystemRng().draw(32, "attacks/a07")
    adverts = dict(ckks.decode_keys(frame.body)[1])
    adverts[other] = replace(adverts[other], share_key=public_bytes(private_key(seed)))
    body = ckks.encode_keys(round_.context, adverts)
    round_.down = [f if f.to != victim else replace(f, body=body) for f in round_.down]
    round_.run(Kind.RELAY)
    sid = ckks.session_id(round_.context.digest, adverts)
    entries, size = {}, ckks.proof_size(len(adverts), view.params.threshold)
    for (kind, dealer), sent in round_.heard.items():
        if kind == Kind.SHARES and dealer != victim:
            peers = [i for i in adverts if i != dealer]
            opened = ckks.decode_shares(sent.body, dealer, peers, size)[:3]
            entries[dealer] = ckks.Dealt(*opened, bytes(ckks.BOX))
    keys = box_keys(sid, CHAIN, seed, adverts[victim].share_key, other, victim)
    plain = bytes(ckks.BOX - OVERHEAD)
    if other in entries:
        aad = ckks.box_aad(sid, other, victim, entries[other].proof)
        entries[other] = replace(entries[other], box=seal_once(keys.outgoing, plain, aad))
    round_.hand(replace(frame, kind=Kind.RELAY, session=sid[:16], body=ckks.encode_relay(entries)))
    return refusals(view)


ATTACKS = (
    Attack(
        id="A07",
        title="keys substituted in the neighbours' names",
        plain_words="Can the server stand between two devices by handing out keys of its own?",
        adversary=MAN_IN_THE_MIDDLE,
        setting="protocol",
        infer=infer,
        score=recovery(
            ("BAD_KEY",),
            "share of plays in which the server shares every key of the victim and opens its vector",
        ),
        rule=Rule(success=0.9, margin=0.1),
        source="Bonawitz et al., CCS 2017.",
        tries=40,
        schemes=("secagg", "secagg+", "ckks"),
    ),
)
