"""Keys under which key shares travel: the ratcheted static agreement and an ephemeral one together.

Neither a stolen static key nor a forged ephemeral one opens a past box (DESIGN 3.1). The pair's chain is the
federation's, kept in the ledger and moved on when a round closes.
"""

from collections.abc import Sequence
from typing import NamedTuple

from merveil.protocols.primitives.agreement import agree, private_key
from merveil.protocols.primitives.kdf import derive_key
from merveil.protocols.secagg.keys import chain_at, ratchet
from merveil.protocols.session import Seat


class BoxKeys(NamedTuple):
    """32 bytes each, one message each."""

    outgoing: bytes
    incoming: bytes

    def __repr__(self) -> str:
        return "BoxKeys(...)"


def chain_keys(seat: Seat, peers: Sequence[int]) -> dict[int, bytes]:
    """The chain key of each pair for this round, stored before it is used."""
    context = seat.context
    chains = {
        peer: chain_at(seat.ledger, seat.identity, seat.roster, seat.index, peer, context.round)
        for peer in peers
    }
    seat.ledger.store_chains(seat.roster.hash, context.round, chains)
    return chains


def close_chains(seat: Seat, peers: Sequence[int]) -> None:
    """The round is over: the pairs' chains move on and the old values are gone."""
    closed = {}
    for peer in peers:
        stored = seat.ledger.chain(seat.roster.hash, peer)
        if stored is not None and stored[0] == seat.context.round:
            closed[peer] = ratchet(stored[1])
    seat.ledger.store_chains(seat.roster.hash, seat.context.round + 1, closed)


def box_keys(sid: bytes, chain: bytes, seed: bytes, peer_key: bytes, own: int, peer: int) -> BoxKeys:
    """seed: behind the own ephemeral key. peer_key: the peer's, 32 bytes, which the server has checked."""
    shared = agree(private_key(seed), peer_key, 0)
    low, high = sorted((own, peer))
    ends = low.to_bytes(2, "big") + high.to_bytes(2, "big")
    both = derive_key(chain + shared, sid, "ckks/1/box-keys", ends, length=64)
    up, down = both[:32], both[32:]
    return BoxKeys(up, down) if own < peer else BoxKeys(down, up)
