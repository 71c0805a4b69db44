"""A33: the server keeps every frame of a closed round and gets a client's long-term keys later.

It recomputes the pair roots from the static keys, steps them to the round, and tries to open every box that
the client sealed, with the static agreement and with nothing in place of the ephemeral one. Enough boxes give
both seeds, and the old vector opens. Source: forward secrecy, as in any authenticated key exchange.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from merveil.attacks import opening
from merveil.attacks.adversaries import THIEF
from merveil.attacks.base import Attack, Public, Rule
from merveil.attacks.plays import Guess, recovery
from merveil.protocols.ckks import messages as ckks
from merveil.protocols.primitives import merkle
from merveil.protocols.primitives.aead import open_once
from merveil.protocols.primitives.agreement import agree
from merveil.protocols.primitives.kdf import derive_key
from merveil.protocols.secagg import messages as msg
from merveil.protocols.secagg.client import box_aad
from merveil.protocols.secagg.keys import pair_keys, pair_root, ratchet
from merveil.protocols.secagg.messages import Kind


def chains(view: Any, round_: Any, victim: int, peer: int) -> Iterator[tuple[bytes, bytes]]:
    """(chain key of the round, what to put in place of the ephemeral agreement), from the stolen key."""
    stolen = view.steal(victim)
    chain = pair_root(stolen, view.roster, victim, peer)
    for _ in range(round_.number - 1):
        chain = ratchet(chain)
    static = agree(stolen.agree_key, view.roster.member(peer).agree_key, peer)
    for shared in (bytes(32), static):
        yield chain, shared


def opened(view: Any, round_: Any, victim: int) -> dict[int, bytes]:
    """Holder -> the pair of shares in the victim's box for it, for each box that opens."""
    graph, context = opening.graph(round_), round_.context.digest
    said, sid = opening.adverts(round_), opening.session_id(round_, victim)
    holders, peers = graph.holders(victim), list(graph.neighbours(victim))
    nodes, boxes = msg.decode_shares(
        round_.heard[Kind.SHARES, victim].body, victim, len(holders), [i for i in peers if i in said]
    )
    tree, found = merkle.flat_tree(nodes), {}
    for i, box in boxes.items():
        path = merkle.path(tree, graph.place(victim, i))
        ends = said[victim].digest(context, victim), said[i].digest(context, i)
        for chain, shared in chains(view, round_, victim, i):
            key = pair_keys(sid, chain, shared, victim, i).outgoing
            plain = open_once(key, box, box_aad(sid, victim, i, *ends, path))
            if plain is not None:
                found[i] = plain
    return found


def opened_ckks(view: Any, round_: Any, victim: int) -> int:
    """How many of the victim's boxes of `ckks` open."""
    adverts = ckks.decode_keys(round_.told[Kind.KEYS, victim].body)[1]
    sid, count = ckks.session_id(round_.context.digest, adverts), 0
    peers = [i for i in adverts if i != victim]
    size = ckks.proof_size(len(adverts), view.params.threshold)
    shares = ckks.decode_shares(round_.heard[Kind.SHARES, victim].body, victim, peers, size)
    proof, boxes = shares[2:]
    for i, box in boxes.items():
        low, high = sorted((victim, i))
        ends = low.to_bytes(2, "big") + high.to_bytes(2, "big")
        for chain, shared in chains(view, round_, victim, i):
            both = derive_key(chain + shared, sid, "ckks/1/box-keys", ends, length=64)
            key = both[:32] if victim < i else both[32:]
            count += open_once(key, box, ckks.box_aad(sid, victim, i, proof)) is not None
    return count


def infer(view: Any, public: Public, rng: np.random.Generator) -> Guess:
    """The victim's vector of a closed round, from its long-term keys and the stored frames."""
    victim = 1 + int(rng.integers(view.size))
    round_ = view.round(round=1).begin()
    round_.run()
    if view.build.scheme == "ckks":
        count = opened_ckks(view, round_, victim)
        return Guess(victim, None, right=count > 0, figures={"boxes opened": float(count)})
    found = opened(view, round_, victim)
    figures = {"boxes opened": float(len(found))}
    parts = {i: msg.Held.decode(plain) for i, plain in found.items()}
    seed = opening.combine(round_, victim, {i: h.seed_share for i, h in parts.items()})
    key = opening.combine(round_, victim, {i: h.key_share for i, h in parts.items()})
    vector = None if seed is None or key is None else opening.open_vector(round_, victim, seed, key)
    return Guess(victim, vector, figures=figures)


ATTACKS = (
    Attack(
        id="A33",
        title="stored traffic, long-term keys stolen later",
        plain_words="If a device's keys are stolen one day, can old messages be opened?",
        adversary=THIEF,
        setting="protocol",
        infer=infer,
        score=recovery((), "share of plays in which stolen long-term keys open a closed round"),
        rule=Rule(success=0.9, margin=0.1),
        source="Forward secrecy.",
        tries=40,
        schemes=("secagg", "secagg+", "ckks"),
    ),
)
