"""Server of `secagg` and `secagg+`: it relays, adds masked vectors as they come, and removes the masks.

Its state is O(d) for the vectors and O(n*k) small for the shares. A fault that a client signed excludes that
client and the round goes on while the thresholds hold; below them it aborts and says who was missing.
"""

from collections.abc import Iterable, Sequence

from merveil.protocols.codec import Codes, check_sum, to_signed
from merveil.protocols.errors import AbortCode, Aborted, LocalError, RemoteError
from merveil.protocols.frame import Frame, malformed
from merveil.protocols.machine import Event
from merveil.protocols.primitives import merkle
from merveil.protocols.primitives.aead import open_once
from merveil.protocols.primitives.agreement import is_low_order
from merveil.protocols.primitives.packing import packed_size, tail_is_zero, unpack_blocks
from merveil.protocols.secagg import messages as msg
from merveil.protocols.secagg.book import Book
from merveil.protocols.secagg.client import box_aad
from merveil.protocols.secagg.keys import WORD
from merveil.protocols.secagg.messages import Kind
from merveil.protocols.secagg.unmask import remove_masks
from merveil.protocols.server import Server
from merveil.protocols.session import FIVE, Desk, Frames, Outcome, Phase, moves

TABLE = moves(FIVE, client=False)
_DUE = {
    Kind.ADVERT: Phase.KEYS,
    Kind.SHARES: Phase.SHARES,
    Kind.MASKED: Phase.MASKED,
    Kind.COMPLAINT: Phase.MASKED,
    Kind.SIGNED: Phase.CHECK,
    Kind.ANSWER: Phase.UNMASK,
}
_DOUBTFUL = frozenset(
    {
        (Kind.SHARES, AbortCode.MALFORMED_FRAME),
        (Kind.MASKED, AbortCode.ROSTER_MISMATCH),
        (Kind.SIGNED, AbortCode.ROSTER_MISMATCH),
        (Kind.ANSWER, AbortCode.MALFORMED_FRAME),
    }
)


class SecAggServer(Server[Kind, Book]):
    """One attempt at one round, over any number of clients."""

    TABLE, KIND, DUE, OPENING, DOUBTFUL = TABLE, Kind, _DUE, Kind.ADVERT, _DOUBTFUL
    SINGLE = frozenset(_DUE) - {Kind.MASKED}  # a masked vector is in the sum

    def __init__(self, suite: int, desk: Desk, snapshot: bytes | None = None) -> None:
        super().__init__(suite, desk, Book(desk))
        if snapshot is not None:
            self._phase, self.excluded = self._book.load(snapshot)

    def result(self) -> Outcome:
        if self._phase is not Phase.DONE:
            raise LocalError(f"no sum in phase {self._phase.name}")
        codes = to_signed(self._desk.params, self._book.total)
        return Outcome(codes, tuple(sorted(self._book.masked)), dict(self.excluded))

    # Receiving

    def _body_limit(self) -> int:
        return self._book.body_limit

    def _fingerprint(self, body: bytes, sender: int) -> bytes:
        return msg.decode_advert(body, sender)[0]

    def _session(self) -> bytes:
        return self._book.sid

    def _due(self) -> set[int]:
        return self._book.due(self._phase)

    def _dump(self) -> bytes:
        return self._book.dump(self._phase, self.excluded)

    def _admit(self, sender: int, kind: Kind) -> None:
        if kind is Kind.COMPLAINT and sender in self._book.masked:
            raise malformed("a complaint after the vector", sender)

    def _apply(self, sender: int, kind: Kind, frame: Frame) -> None:
        if kind is Kind.ADVERT:
            self._take_advert(sender, frame)
        elif kind is Kind.SHARES:
            self._take_shares(sender, frame)
        elif kind is Kind.MASKED:
            self._take_masked(sender, frame)
        elif kind is Kind.COMPLAINT:
            self._take_complaint(sender, frame)
        elif kind is Kind.SIGNED:
            self._take_signed(sender, frame)
        else:
            dealers = self._book.dealers_of(sender)
            self._book.answers[sender] = msg.decode_answer(frame.body, sender, dealers)

    def _take_advert(self, sender: int, frame: Frame) -> None:
        fingerprint, advert = msg.decode_advert(frame.body, sender)
        if self._desk.context.difference(fingerprint) is not None:
            raise malformed("fingerprint and context disagree", sender)
        if is_low_order(advert.mask_key):
            raise RemoteError("mask key of low order", (sender,), AbortCode.BAD_KEY)
        self._book.adverts[sender] = advert

    def _take_shares(self, sender: int, frame: Frame) -> None:
        book = self._book
        receivers = book.joined_neighbours(sender)
        nodes, boxes = msg.decode_shares(frame.body, sender, len(book.holders(sender)), receivers)
        tree = merkle.flat_tree(nodes)
        if merkle.root(tree) != book.adverts[sender].share_root:
            raise RemoteError("shares contradict their commitment", (sender,), AbortCode.BAD_SHARE)
        book.nodes[sender] = tree
        book.boxes[sender] = boxes

    def _take_masked(self, sender: int, frame: Frame) -> None:
        params, book = self._desk.params, self._book
        head = msg.VIEW + WORD * params.neighbours
        packed = memoryview(frame.body)[head:]
        if len(packed) != packed_size(params.size, params.modulus_bits):
            raise RemoteError("masked vector of a wrong length", (sender,), AbortCode.SHAPE_MISMATCH)
        if not tail_is_zero(packed, params.size, params.modulus_bits):
            raise malformed("padding is not zero", sender)
        if frame.body[: msg.VIEW] != msg.view_digest(book.sid, book.dealers_around(sender)):
            why = f"{sender} masked with other clients than those whose shares it was sent"
            raise RemoteError(why, (sender,), AbortCode.ROSTER_MISMATCH)
        for at, part in unpack_blocks(packed, params.size, params.modulus_bits):
            book.total[at : at + part.size] += part
        book.words[sender] = frame.body[msg.VIEW : head]
        book.masked[sender] = frame.digest()

    def _take_complaint(self, sender: int, frame: Frame) -> None:
        """A holder shows the key of a box: either the dealer is convicted, or the complaint is false."""
        book, sid = self._book, self._book.sid
        dealer, key = msg.decode_complaint(frame.body, sender)
        if dealer not in book.boxes or sender not in book.boxes[dealer]:
            raise malformed("a complaint about shares that were not relayed", sender)
        context = self._desk.context.digest
        ends = (book.adverts[dealer].digest(context, dealer), book.adverts[sender].digest(context, sender))
        aad = box_aad(sid, dealer, sender, *ends, book.path(dealer, sender))
        plain = open_once(key, book.boxes[dealer][sender], aad)
        if plain is None:
            raise RemoteError("the complaint's key opens nothing", (sender,), AbortCode.BAD_KEY)
        held = msg.Held.decode(plain)
        if held.canonical() and held.node(dealer, sender) == book.node(dealer, sender):
            raise RemoteError("a complaint about good shares", (sender,), AbortCode.BAD_SHARE)
        why = f"client {dealer} dealt shares that contradict its commitment"
        self._fail(AbortCode.BAD_SHARE, why, (dealer,))

    def _take_signed(self, sender: int, frame: Frame) -> None:
        if frame.body != self._book.root:
            raise RemoteError("signed another survivor list", (sender,), AbortCode.ROSTER_MISMATCH)
        self._book.signatures[sender] = frame.signature

    # Phases

    def _close(self) -> Sequence[Frame]:
        if self._phase is Phase.KEYS:
            return self._close_keys()
        if self._phase is Phase.SHARES:
            return self._close_shares()
        if self._phase is Phase.MASKED:
            return self._close_masked()
        if self._phase is Phase.CHECK:
            return self._close_check()
        return self._close_unmask()

    def _require(self, clients: Iterable[int], present: set[int], what: str) -> None:
        """Every one of `clients` needs t holders among `present`, so that its masks come off the sum."""
        book, t = self._book, self._desk.params.threshold
        for i in clients:
            found = [h for h in book.holders(i) if h in present]
            if len(found) < t:
                missing = [h for h in book.holders(i) if h not in present]
                self._fail(
                    AbortCode.BELOW_THRESHOLD,
                    f"client {i} has {len(found)} holders that {what}, of {t} needed; missing: {missing}",
                )

    def _close_keys(self) -> Sequence[Frame]:
        book = self._book
        joined = self._settle(book.adverts, "advertised")
        book.keep(joined)
        book.open_session()
        self._go(Event.ADVANCE)
        context = self._desk.context.digest
        return Frames(sorted(joined), lambda i: self._to(Kind.KEYS, i, book.key_list(i).encode(), context))

    def _settle(self, said: Iterable[int], what: str) -> set[int]:
        """The largest part of `said` in which everyone has t holders.

        Who lacks them was unlucky and becomes a dropout: no mask of this client is in any vector yet.
        """
        book, t = self._book, self._desk.params.threshold
        kept = set(said)
        while short := {i for i in kept if sum(h in kept for h in book.holders(i)) < t}:
            kept -= short
        if len(kept) < t:
            self._present(said, what)
            self._fail(AbortCode.BELOW_THRESHOLD, f"{len(kept)} clients have {t} holders that {what}")
        return kept

    def _present(self, clients: Iterable[int], what: str) -> None:
        self._enough(clients, self._book.position, self._desk.params.threshold, f"clients {what}")

    def _close_shares(self) -> Sequence[Frame]:
        book = self._book
        shared = self._settle(book.nodes, "shared")
        book.keep_dealers(shared)
        relay = book.relays()
        self._go(Event.ADVANCE)
        return Frames(sorted(shared), lambda i: self._to(Kind.RELAY, i, relay(i)))

    def _close_masked(self) -> Sequence[Frame]:
        book = self._book
        alive = set(book.masked)
        self._present(alive, "sent a vector")
        self._require(sorted(book.nodes), alive, "sent a vector")
        book.boxes = {}
        book.fix_survivors()
        self._go(Event.ADVANCE)
        return Frames(sorted(alive), lambda i: self._to(Kind.SURVIVORS, i, book.survivor_list(i)))

    def _close_check(self) -> Sequence[Frame]:
        book = self._book
        signed = set(book.signatures)
        ready = [i for i in sorted(signed) if len(book.signers(i)) >= self._desk.params.threshold]
        self._require(sorted(book.nodes), signed, "signed the survivor list")
        self._require(sorted(book.nodes), set(ready), f"signed it with {self._desk.params.threshold} others")
        self._go(Event.ADVANCE)
        book.asked = set(ready)
        return Frames(ready, lambda i: self._to(Kind.REQUEST, i, book.request(i)))

    def _opened(self, codes: Codes) -> None:
        """What a sum is for: nothing more here; where it is a key, it opens another. Raises Aborted."""

    def _close_unmask(self) -> Sequence[Frame]:
        book = self._book
        self._require(sorted(book.nodes), set(book.answers), "answered")
        culprits, code = remove_masks(self._desk, book, self.excluded)
        if code is not None:
            self._fail(code, "the masks could not be removed", culprits)
        codes = to_signed(self._desk.params, book.total)
        try:
            check_sum(self._desk.params, codes, len(book.masked))
            self._opened(codes)
        except Aborted as error:
            self._fail(error.code, "the survivors cannot have sent this sum")
        self._go(Event.FINISH)
        book.forget()
        return ()
