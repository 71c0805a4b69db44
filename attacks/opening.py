"""What a server of `secagg` and `secagg+` can compute once it has shares, seeds or lists.

Guarantees: every function reads frames that the adversary holds as server, and draws of clients that it owns.
Nothing here knows an honest client's session. Source: the layouts of docs/wire.md.
"""

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from merveil.attacks.protocol import Round
from merveil.protocols.codec import to_signed
from merveil.protocols.frame import Frame
from merveil.protocols.primitives.agreement import agree
from merveil.protocols.primitives.packing import packed_size, unpack, word_type
from merveil.protocols.primitives.prg import add_masks
from merveil.protocols.primitives.shamir import SHARE, recover
from merveil.protocols.secagg import messages as msg
from merveil.protocols.secagg.graph import Graph, ring
from merveil.protocols.secagg.keys import mask_scalar, pair_mask_key, self_mask_key
from merveil.protocols.secagg.messages import Advert, Kind

Codes = NDArray[np.int64]
Shares = dict[int, bytes]  # holder -> its share of one seed


def graph(round_: Round) -> Graph:
    """Who shares with whom: public."""
    roster, params = round_.field.roster, round_.field.params
    return ring(roster.beacon, roster.hash, round_.number, round_.context.cohort, params.neighbours)


def adverts(round_: Round) -> dict[int, Advert]:
    """What each client committed to."""
    return {
        i: msg.decode_advert(f.body, i)[1] for (kind, i), f in round_.heard.items() if kind == Kind.ADVERT
    }


def session_id(round_: Round, index: int) -> bytes:
    """The 32-byte session id as client `index` was told."""
    listed = msg.decode_key_list(round_.told[Kind.KEYS, index].body, round_.field.params.cohort)
    return msg.session_id(round_.context.digest, listed.root, listed.joined)


def masked_with(round_: Round, victim: int) -> list[int]:
    """Neighbours whose masks the victim's vector carries: those whose shares it was sent."""
    depth = len(graph(round_).holders(victim))
    return sorted(msg.decode_relay(round_.told[Kind.RELAY, victim].body, msg.merkle.depth(depth)))


def residues(round_: Round, victim: int) -> NDArray[np.unsignedinteger]:
    """The victim's masked vector, residues modulo 2^m in words."""
    params, body = round_.field.params, round_.heard[Kind.MASKED, victim].body
    data = body[-packed_size(params.size, params.modulus_bits) :]
    return unpack(data, params.size, params.modulus_bits).astype(word_type(params.modulus_bits))


def pair_key(sid: bytes, secret: object, peer_key: bytes, one: int, two: int) -> bytes:
    return pair_mask_key(sid, agree(secret, peer_key, two), one, two)  # type: ignore[arg-type]


def take_off(
    round_: Round, victim: int, seed: bytes | None, pairs: Mapping[int, bytes]
) -> NDArray[np.unsignedinteger]:
    """The victim's residues without its self-mask (if the seed is known) and without the masks of `pairs`,
    peer -> mask key.
    """
    total, bits = residues(round_, victim), round_.field.params.modulus_bits
    if seed is not None:
        add_masks(total, [], [self_mask_key(session_id(round_, victim), seed)])
    plus = [k for peer, k in pairs.items() if victim < peer]
    minus = [k for peer, k in pairs.items() if victim > peer]
    total -= round_.field.build.expand(bits, 0, total.size, plus, minus)
    return total & total.dtype.type((1 << bits) - 1)


def signed(round_: Round, values: NDArray[np.unsignedinteger]) -> Codes:
    return to_signed(round_.field.params, values)


def open_vector(round_: Round, victim: int, seed: bytes, key_seed: bytes) -> Codes:
    """The victim's vector from both its seeds: the whole of what double masking hides."""
    secret, sid = mask_scalar(round_.context.digest, key_seed), session_id(round_, victim)
    listed = msg.decode_key_list(round_.told[Kind.KEYS, victim].body, round_.field.params.cohort).adverts
    peers = masked_with(round_, victim)
    pairs = {i: pair_key(sid, secret, listed[i].mask_key, victim, i) for i in peers}
    return signed(round_, take_off(round_, victim, seed, pairs))


def colluder_pairs(round_: Round, victim: int) -> dict[int, bytes]:
    """Mask keys between the victim and the adversary's clients, read before those mask and forget them."""
    found = {}
    for i in round_.field.corrupt:
        key = round_.own(i)._state.masks.get(victim)
        if key is not None:
            found[i] = key
    return found


def share_kept(round_: Round, client: int, dealer: int) -> msg.Held | None:
    """Both shares of a dealer in the memory of a client of the adversary, until it answers."""
    kept: dict[int, msg.Held] = round_.own(client)._state.held
    return kept.get(dealer)


def from_answers(round_: Round, dealer: int, kind: int, alive: Mapping[int, bool]) -> Shares:
    """Shares of a dealer's seed of a kind (0 self-mask, 1 mask key) in the answers heard so far.

    alive: holder -> whether the list it answered said that the dealer survived.
    """
    found: Shares = {}
    for (what, holder), frame in round_.heard.items():
        if what != Kind.ANSWER or (0 if alive.get(holder, True) else 1) != kind:
            continue
        dealers = [i for i in graph(round_).holders(holder) if i in dealers_heard(round_)]
        entry = msg.decode_answer(frame.body, holder, dealers).get(dealer)
        if entry is not None:
            found[holder] = entry[:SHARE]
    return found


def dealers_heard(round_: Round) -> set[int]:
    return {i for kind, i in round_.heard if kind == Kind.SHARES}


def combine(round_: Round, dealer: int, shares: Shares, threshold: int | None = None) -> bytes | None:
    """The seed from at least threshold shares, or None where there are too few."""
    t = threshold or round_.field.params.threshold
    place = graph(round_).place
    chosen = sorted((place(dealer, h) + 1, s) for h, s in shares.items())[:t]
    if len(chosen) < t:
        return None
    return recover(tuple(p for p, _ in chosen), [s for _, s in chosen])


def seed_fits(round_: Round, dealer: int, seed: bytes) -> bool:
    """Whether a self-mask seed is the one committed to."""
    said = adverts(round_)[dealer].seed_commitment
    return msg.seed_commitment(round_.context.digest, dealer, seed) == said


def lists_without(round_: Round, dead: Iterable[int]) -> tuple[bytes, dict[int, bytes]]:
    """A survivor list on which `dead` are dropouts although their vectors came: root, and body by client.

    The adversary uses its own server's book for it, and puts that back.
    """
    book = round_.server._book
    kept, gone = dict(book.masked), set(dead)
    book.masked = {i: d for i, d in kept.items() if i not in gone}
    book.fix_survivors()
    root, bodies = book.root, {i: book.survivor_list(i) for i in book.masked}
    book.masked = kept
    book.fix_survivors()
    return root, bodies


def frame_to(round_: Round, kind: Kind, index: int, body: bytes) -> Frame:
    """A server's frame of this session."""
    suite = round_.heard[Kind.ADVERT, index].suite
    sid = session_id(round_, index) if kind is not Kind.KEYS else round_.context.digest
    return Frame(suite, kind, sid[:16], 0, index, body)


def sign_list(round_: Round, index: int, root: bytes) -> bytes:
    """A corrupted client's signature on any survivor list."""
    sid = session_id(round_, index)
    suite = round_.heard[Kind.ADVERT, index].suite
    frame = Frame(suite, Kind.SIGNED, sid[:16], index, 0, root)
    return frame.signed(round_.field.key(index).sign_key, sid).signature
