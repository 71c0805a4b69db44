"""Keys of a pair and of one client's round. docs/secagg.md says why there are three kinds.

pair root: static X25519, so it proves who is there; ratcheted each round. Share keys: the ratcheted root and
the ephemeral agreement together, so neither a stolen static key nor a forged ephemeral one opens a share.
Mask keys: the ephemeral agreement alone, since the server recomputes them for a client that dropped.
"""

from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from merveil.protocols.errors import AbortCode, Aborted
from merveil.protocols.identity import Identity, Roster
from merveil.protocols.ledger import Ledger
from merveil.protocols.primitives.agreement import agree, private_key
from merveil.protocols.primitives.kdf import derive_key, hash_fields
from merveil.protocols.primitives.prg import KEY

WORD = 8


def _pair(one: int, two: int) -> tuple[bytes, bytes]:
    low, high = (one, two) if one < two else (two, one)
    return low.to_bytes(2, "big"), high.to_bytes(2, "big")


def pair_root(identity: Identity, roster: Roster, own: int, peer: int) -> bytes:
    """The chain's first key: HKDF of the static agreement, both roster entries in index order."""
    secret = agree(identity.agree_key, roster.member(peer).agree_key, peer)
    low, high = sorted((own, peer))
    entries = (roster.member(low).encode(), roster.member(high).encode())
    return derive_key(secret, roster.hash, "secagg/1/pair-root", *entries)


def ratchet(chain: bytes) -> bytes:
    """One step forward; the old value cannot be had from the new."""
    return hash_fields("secagg/1/ratchet", chain)


def chain_at(ledger: Ledger, identity: Identity, roster: Roster, own: int, peer: int, round_: int) -> bytes:
    """The pair's chain key of a round. Aborts with STALE_KEY for a round that was closed already."""
    stored = ledger.chain(roster.hash, peer)
    at, chain = stored if stored is not None else (1, pair_root(identity, roster, own, peer))
    if at > round_:
        raise Aborted(AbortCode.STALE_KEY, f"the keys of round {round_} were erased, a later one has closed")
    for _ in range(round_ - at):
        chain = ratchet(chain)
    return chain


def mask_scalar(context: bytes, seed: bytes) -> X25519PrivateKey:
    """The ephemeral private key that a client's shared 32-byte seed stands for."""
    return private_key(derive_key(seed, context, "secagg/1/mask-scalar"))


def self_mask_key(sid: bytes, seed: bytes) -> bytes:
    return derive_key(seed, sid, "secagg/1/self-mask", length=KEY)


class PairKeys(NamedTuple):
    """One pair's keys of a session. mask: 16 bytes; outgoing, incoming: 32 bytes, one message each.

    word, peer_word: 8 bytes each, by which either end lets the other know that it masked with it.
    """

    mask: bytes
    outgoing: bytes
    incoming: bytes
    word: bytes
    peer_word: bytes

    def __repr__(self) -> str:
        return "PairKeys(...)"


def pair_mask_key(sid: bytes, shared: bytes, one: int, two: int) -> bytes:
    return derive_key(shared, sid, "secagg/1/pair-mask", *_pair(one, two), length=KEY)


def pair_keys(sid: bytes, chain: bytes, shared: bytes, own: int, peer: int) -> PairKeys:
    """shared: the ephemeral agreement, 32 bytes."""
    length = 64 + 2 * WORD
    both = derive_key(chain + shared, sid, "secagg/1/share-keys", *_pair(own, peer), length=length)
    up, down = (both[:32], both[64:-WORD]), (both[32:64], both[-WORD:])  # lower index to higher, and back
    (outgoing, word), (incoming, peer_word) = (up, down) if own < peer else (down, up)
    return PairKeys(pair_mask_key(sid, shared, own, peer), outgoing, incoming, word, peer_word)
