"""Client of `secagg` and `secagg+` (Bonawitz et al. 2017 with the additions of docs/secagg.md).

KEYS: the advert is out. SHARES: the shares are out. MASKED: all that the mask needs is here, the vector may
be missing. CHECK: the masked vector is out. UNMASK: one survivor list is signed. DONE: the one answer is out.
A frame that contradicts what this client knows ends the session with a named code; nothing is answered then.
"""

from collections.abc import Sequence

import numpy as np

from merveil.protocols.client import Client
from merveil.protocols.codec import Codes
from merveil.protocols.errors import AbortCode, Aborted, LocalError, RemoteError
from merveil.protocols.frame import Frame, malformed
from merveil.protocols.ledger import RoundState
from merveil.protocols.machine import Event, step
from merveil.protocols.primitives import merkle
from merveil.protocols.primitives.aead import open_once, seal_once
from merveil.protocols.primitives.agreement import agree
from merveil.protocols.primitives.kdf import equal, hash_fields
from merveil.protocols.primitives.packing import pack, word_type
from merveil.protocols.primitives.prg import add_masks
from merveil.protocols.secagg import messages as msg
from merveil.protocols.secagg.dealing import deal
from merveil.protocols.secagg.graph import ring
from merveil.protocols.secagg.keys import WORD, chain_at, mask_scalar, pair_keys, ratchet, self_mask_key
from merveil.protocols.secagg.messages import Kind
from merveil.protocols.secagg.state import ClientState
from merveil.protocols.session import FIVE, SPENT, Phase, Seat, moves
from merveil.protocols.survivors import answered, check_difference, from_bitmap, signed_by

TABLE = moves(FIVE, client=True)
_DUE = {  # the server message that each phase waits for
    Kind.KEYS: Phase.KEYS,
    Kind.RELAY: Phase.SHARES,
    Kind.SURVIVORS: Phase.CHECK,
    Kind.REQUEST: Phase.UNMASK,
}


class SecAggClient(Client[Kind, ClientState]):
    """One client, one attempt at one round."""

    TABLE, KIND, DUE, OPENING, LABEL = TABLE, Kind, _DUE, Kind.KEYS, b"secagg/1/snapshot"

    def __init__(self, suite: int, seat: Seat, snapshot: bytes | None = None) -> None:
        super().__init__(suite, seat, seat.params)
        self._graph = ring(
            seat.roster.beacon,
            seat.roster.hash,
            seat.context.round,
            seat.context.cohort,
            seat.params.neighbours,
        )
        self._neighbours = self._graph.neighbours(seat.index)
        self._holders = self._graph.holders(seat.index)
        self._digests: dict[int, bytes] = {}  # of adverts, by index; derived from the state
        if snapshot is not None:
            self._phase, self._state = ClientState.load(self._snapshot(snapshot))

    def _blank(self) -> ClientState:
        return ClientState()

    def _drop(self) -> None:
        super()._drop()
        self._digests = {}

    def _binding(self, kind: Kind) -> bytes:
        return self._seat.context.digest if kind in (Kind.ADVERT, Kind.KEYS) else self._state.sid

    def _open(self, after: Phase) -> Sequence[Frame]:
        """Deal, open the round in the ledger, and advertise."""
        seat, context = self._seat, self._seat.context
        dealing = deal(context.digest, seat.index, self._holders, seat.params.threshold, seat.rng)
        seat.ledger.open_round(context.federation, context.round, context.attempt)
        self._state.deal(dealing)
        self._phase = after
        return (self._frame(Kind.ADVERT, msg.encode_advert(context, dealing.advert)),)

    def _has_vector(self) -> bool:
        return self._state.codes is not None or self._phase in (Phase.CHECK, Phase.UNMASK)

    def _take_vector(self, codes: Codes) -> Sequence[Frame]:
        self._state.codes = codes.copy()
        return self._mask() if self._phase is Phase.MASKED else ()

    def _body_limit(self) -> int:
        n, k = self._seat.params.cohort, len(self._holders)
        per_peer = msg.BOX + 32 * (merkle.depth(2 * k) + 8)
        return 1024 + k * per_peer + n // 8 + 32 * (merkle.depth(n) + 4)

    def _handle(self, kind: Kind, frame: Frame) -> Sequence[Frame]:
        if kind is Kind.KEYS:
            return self._on_keys(frame)
        if kind is Kind.RELAY:
            return self._on_relay(frame)
        if kind is Kind.SURVIVORS:
            return self._on_survivors(frame)
        return self._on_request(frame)

    # KEYS

    def _on_keys(self, frame: Frame) -> Sequence[Frame]:
        seat, context = self._seat, self._seat.context
        listed = msg.decode_key_list(frame.body, seat.params.cohort)
        difference = context.difference(listed.fingerprint)
        if difference is AbortCode.STALE_KEY:
            raise RemoteError("the frame belongs to another round or attempt", (0,), difference)
        if difference is not None:
            raise Aborted(difference, "the server's round differs from this client's", (0,))
        if frame.session != context.digest[:16]:
            raise Aborted(AbortCode.PARAMS_MISMATCH, "the server is in another context", (0,))
        if (
            merkle.climb(self._digest(seat.index), context.cohort.index(seat.index), listed.path)
            != listed.root
        ):
            raise Aborted(AbortCode.ROSTER_MISMATCH, "this client's advert is not on the list", (0,))
        if not set(listed.adverts) <= set(self._neighbours):
            raise Aborted(AbortCode.ROSTER_MISMATCH, "the list names clients that are no neighbours", (0,))
        self._enough(len(listed.adverts), "advertised")
        sid = msg.session_id(context.digest, listed.root, listed.joined)
        boxes = self._seal_boxes(sid, listed)
        body = msg.encode_shares(self._state.tree[: 32 * len(self._holders)], boxes)
        self._state.keep_shares(sid, listed.adverts, seat.index)
        self._go(Event.ADVANCE)
        return (self._frame(Kind.SHARES, body, sid),)

    def _digest(self, index: int) -> bytes:
        """Digest of an advert: one's own, or a neighbour's as the server listed it."""
        found = self._digests.get(index)
        if found is None:
            own = index == self._seat.index
            advert = self._state.advert if own else self._state.adverts.get(index)
            if advert is None:
                raise LocalError("the session has not started")
            found = self._digests[index] = advert.digest(self._seat.context.digest, index)
        return found

    def _enough(self, neighbours: int, what: str) -> None:
        """Own shares must have at least t holders, the client itself included in a complete graph."""
        holders = neighbours + int(self._seat.params.neighbours == 0)
        if holders < self._seat.params.threshold:
            raise Aborted(
                AbortCode.BELOW_THRESHOLD,
                f"{holders} holders {what}, the threshold is {self._seat.params.threshold}",
            )

    def _seal_boxes(self, sid: bytes, listed: msg.KeyList) -> dict[int, bytes]:
        seat, context = self._seat, self._seat.context
        secret = mask_scalar(context.digest, self._state.key_seed)
        digest = self._digest(seat.index)
        boxes, chains = {}, {}
        for peer, advert in listed.adverts.items():
            chain = chain_at(seat.ledger, seat.identity, seat.roster, seat.index, peer, context.round)
            # a server checks the keys that it lists, so a bad one is its own
            keys = pair_keys(sid, chain, agree(secret, advert.mask_key, 0), seat.index, peer)
            theirs = self._digests[peer] = advert.digest(context.digest, peer)
            path = merkle.path(self._state.tree, self._graph.place(seat.index, peer))
            aad = box_aad(sid, seat.index, peer, digest, theirs, path)
            boxes[peer] = seal_once(keys.outgoing, self._state.dealt[peer].encode(), aad)
            self._state.masks[peer] = keys.mask
            self._state.incoming[peer] = keys.incoming
            if seat.params.neighbours:
                self._state.words[peer] = keys.word + keys.peer_word
            chains[peer] = chain
        seat.ledger.store_chains(seat.roster.hash, context.round, chains)
        return boxes

    # SHARES

    def _on_relay(self, frame: Frame) -> Sequence[Frame]:
        depth = merkle.depth(len(self._holders))
        entries = msg.decode_relay(frame.body, depth)
        if not set(entries) <= set(self._state.adverts):
            raise Aborted(AbortCode.ROSTER_MISMATCH, "shares of clients that never advertised", (0,))
        self._enough(len(entries), "shared")
        for dealer, (path, box) in entries.items():
            self._state.held[dealer] = self._open_box(dealer, path, box)
        self._state.incoming.clear()
        self._state.masks = {i: self._state.masks[i] for i in entries}
        self._go(Event.ADVANCE)
        return self._mask() if self._state.codes is not None else ()

    def _open_box(self, dealer: int, path: bytes, box: bytes) -> msg.Held:
        seat, state = self._seat, self._state
        aad = box_aad(state.sid, dealer, seat.index, self._digest(dealer), self._digest(seat.index), path)
        plain = open_once(state.incoming[dealer], box, aad)
        if plain is None:
            raise Aborted(AbortCode.BAD_KEY, f"the shares of {dealer} do not confirm the keys in use")
        held = msg.Held.decode(plain)
        root = merkle.climb(held.node(dealer, seat.index), self._graph.place(dealer, seat.index), path)
        if not held.canonical() or root != state.adverts[dealer].share_root:
            complaint = msg.encode_complaint(dealer, state.incoming[dealer])
            raise Aborted(
                AbortCode.BAD_SHARE,
                f"the shares of {dealer} contradict its commitment",
                (dealer,),
                frames=(self._frame(Kind.COMPLAINT, complaint),),
            )
        return held

    # MASKED

    def _mask(self) -> Sequence[Frame]:
        """Build the one masked frame, note it in the ledger, and forget everything it was built from."""
        seat, context, state = self._seat, self._seat.context, self._state
        codes, params = state.codes, seat.params
        assert codes is not None
        after = step(TABLE, SPENT, self._phase, Event.ADVANCE)
        total = codes.astype(np.uint64).astype(word_type(params.modulus_bits))
        plus = [self_mask_key(state.sid, state.seed)]
        plus += [key for peer, key in state.masks.items() if seat.index < peer]
        minus = [key for peer, key in state.masks.items() if seat.index > peer]
        add_masks(total, plus, minus)
        body = self._masked_head() + pack(total, params.modulus_bits) + self._masked_tail()
        seat.ledger.advance(context.federation, context.round, context.attempt, RoundState.MASKED)
        frame = self._frame(Kind.MASKED, body)
        state.forget_mask(frame.digest())
        self._phase = after
        return (frame,)

    def _masked_head(self) -> bytes:
        """Whose masks the vector carries, and in a sparse graph the word that tells each of them so."""
        state = self._state
        around = self._neighbours if self._seat.params.neighbours else ()
        words = (state.words[i][:WORD] if i in state.masks else bytes(WORD) for i in around)
        return msg.view_digest(state.sid, sorted(state.masks)) + b"".join(words)

    def _masked_tail(self) -> bytes:
        """What rides in the masked frame besides: nothing here, a ciphertext where the vector is its key."""
        return b""

    # CHECK

    def _on_survivors(self, frame: Frame) -> Sequence[Frame]:
        seat, context, state = self._seat, self._seat.context, self._state
        listed = msg.decode_survivors(frame.body, seat.params.cohort)
        alive = {context.cohort[p] for p in from_bitmap(listed.bitmap)}
        mismatch = AbortCode.ROSTER_MISMATCH
        if seat.index not in alive:
            raise Aborted(mismatch, "this client is not on the survivor list", (0,))
        entry = msg.survivor_entry(seat.index, self._digest(seat.index), state.masked)
        if merkle.climb(entry, context.cohort.index(seat.index), listed.path) != listed.entries_root:
            raise Aborted(mismatch, "the survivor list holds another vector of this client", (0,))
        strangers = (alive & set(self._neighbours)) - set(state.held)
        if strangers:
            raise Aborted(mismatch, f"survivors {sorted(strangers)} never shared with this client", (0,))
        self._check_words([i for i in self._neighbours if i in alive], listed.words)
        if len(alive) < seat.params.threshold:
            raise Aborted(AbortCode.BELOW_THRESHOLD, f"{len(alive)} survivors")
        check_difference(seat, alive)
        root = msg.survivor_root(state.sid, listed.bitmap, listed.entries_root)
        state.bitmap, state.root = listed.bitmap, root
        self._go(Event.ADVANCE)
        return (self._frame(Kind.SIGNED, root),)

    def _check_words(self, survivors: Sequence[int], words: bytes) -> None:
        """In a sparse graph, each surviving neighbour's word that it masked with this client.

        A server could otherwise withhold this client's shares from a neighbour, which would then not mask
        with it, and still have its share of that neighbour's seed from this client (docs/secagg.md).
        """
        if not self._seat.params.neighbours:
            survivors = ()
        if len(words) != WORD * len(survivors):
            raise malformed("words of another number of neighbours", 0)
        for at, peer in enumerate(survivors):
            if not equal(words[WORD * at : WORD * (at + 1)], self._state.words[peer][WORD:]):
                raise Aborted(
                    AbortCode.ROSTER_MISMATCH, f"nothing shows that survivor {peer} masked with this client"
                )

    # UNMASK

    def _on_request(self, frame: Frame) -> Sequence[Frame]:
        """Answer once: the self-mask share of each survivor, the mask-key share of each dropout."""
        seat, context, state = self._seat, self._seat.context, self._state
        signatures = msg.decode_request(frame.body)
        alive = {context.cohort[p] for p in from_bitmap(state.bitmap)}
        counted = [i for i in signatures if i in self._holders and i in alive]
        valid = [i for i in counted if self._signed(i, signatures[i])]
        if len(valid) != len(signatures):
            raise Aborted(AbortCode.BAD_SIGNATURE, "a signature on the survivor list does not hold", (0,))
        if len(valid) < seat.params.threshold:
            raise Aborted(
                AbortCode.BELOW_THRESHOLD,
                f"{len(valid)} holders signed the list, the threshold is {seat.params.threshold}",
                (0,),
            )
        check_difference(seat, alive)  # another round may have been answered since this list was signed
        revealed = [
            state.held[dealer].reveal(dealer, seat.index, 0 if dealer in alive else 1)
            for dealer in sorted(state.held)
        ]
        after = step(TABLE, SPENT, self._phase, Event.FINISH)
        answered(seat, alive)
        self._close_chains()
        answer = self._frame(Kind.ANSWER, msg.encode_answer(revealed))
        self._state = ClientState(sid=state.sid, seen=state.seen)
        self._phase = after
        return (answer,)

    def _signed(self, index: int, signature: bytes) -> bool:
        state = self._state
        return signed_by(self._seat, self._suite, Kind.SIGNED, state.sid, state.root, index, signature)

    def _close_chains(self) -> None:
        """The round is over for this client: its chain keys move on and the old ones are gone."""
        seat = self._seat
        closed = {}
        for peer in self._neighbours:
            stored = seat.ledger.chain(seat.roster.hash, peer)
            if stored is not None and stored[0] == seat.context.round:
                closed[peer] = ratchet(stored[1])
        seat.ledger.store_chains(seat.roster.hash, seat.context.round + 1, closed)


def box_aad(
    sid: bytes, dealer: int, holder: int, dealer_advert: bytes, holder_advert: bytes, path: bytes
) -> bytes:
    """Binds a box to both adverts as its two ends know them, to its direction, and to the holder's path.

    The path reaches the holder through the server. Were it not the dealer's word, a server could send a wrong
    one, let honest holders take it for a wrong share, and read from their complaints both shares of a dealer
    that did nothing wrong.
    """
    ends = dealer.to_bytes(2, "big") + holder.to_bytes(2, "big")
    fields = (sid, ends, dealer_advert, holder_advert, path)
    return hash_fields("secagg/1/box", *fields)
