"""Server of `secagg` and `secagg+`: it relays, adds masked vectors as they come, and removes the masks.

Its state is O(d) for the vectors and O(n*k) small for the shares. A fault that a client signed excludes that
client and the round goes on while the thresholds hold; below them it aborts and says who was missing.
"""

from collections.abc import Iterable, Sequence

from merveil.protocols.codec import Codes, check_sum, to_signed
from merveil.protocols.errors import AbortCode, Aborted, LocalError, RemoteError
from merveil.protocols.frame import Frame, malformed
from merveil.protocols.machine import Event, step
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
from merveil.protocols.session import SPENT, Desk, Frames, Outcome, Phase

_LIVE = (Phase.KEYS, Phase.SHARES, Phase.MASKED, Phase.CHECK, Phase.UNMASK)
TABLE = {
    (Phase.IDLE, Event.START): Phase.KEYS,
    (Phase.KEYS, Event.ADVANCE): Phase.SHARES,
    (Phase.SHARES, Event.ADVANCE): Phase.MASKED,
    (Phase.MASKED, Event.ADVANCE): Phase.CHECK,
    (Phase.CHECK, Event.ADVANCE): Phase.UNMASK,
    (Phase.UNMASK, Event.FINISH): Phase.DONE,
    **{(p, Event.FAIL): Phase.ABORTED for p in _LIVE},
    **{(p, Event.SUSPEND): Phase.SUSPENDED for p in _LIVE},
}
_DUE = {
    Kind.ADVERT: Phase.KEYS,
    Kind.SHARES: Phase.SHARES,
    Kind.MASKED: Phase.MASKED,
    Kind.COMPLAINT: Phase.MASKED,
    Kind.SIGNED: Phase.CHECK,
    Kind.ANSWER: Phase.UNMASK,
}
_DOUBTFUL = {
    (Kind.SHARES, AbortCode.MALFORMED_FRAME),
    (Kind.MASKED, AbortCode.ROSTER_MISMATCH),
    (Kind.SIGNED, AbortCode.ROSTER_MISMATCH),
    (Kind.ANSWER, AbortCode.MALFORMED_FRAME),
}


class SecAggServer:
    """One attempt at one round, over any number of clients."""

    def __init__(self, suite: int, desk: Desk, snapshot: bytes | None = None) -> None:
        self._suite = suite
        self._desk = desk
        self._phase = Phase.IDLE
        self._book = Book(desk)
        self.late = 0
        self.excluded: dict[int, AbortCode] = {}
        if snapshot is not None:
            self._phase, self.excluded = self._book.load(snapshot)

    @property
    def phase(self) -> Phase:
        return self._phase

    def start(self) -> Sequence[Frame]:
        self._phase = step(TABLE, SPENT, self._phase, Event.START)
        return ()

    def suspend(self) -> bytes:
        after = step(TABLE, SPENT, self._phase, Event.SUSPEND)
        blob = self._book.dump(self._phase, self.excluded)
        self._phase = after
        return blob

    def result(self) -> Outcome:
        if self._phase is not Phase.DONE:
            raise LocalError(f"no sum in phase {self._phase.name}")
        codes = to_signed(self._desk.params, self._book.total)
        return Outcome(codes, tuple(sorted(self._book.masked)), dict(self.excluded))

    # Receiving

    def receive(self, sender: int, data: bytes) -> Sequence[Frame]:
        """Take one client's frame; the frames of the next phase once everyone due has spoken."""
        if self._phase is Phase.IDLE:
            raise LocalError("start the session first")
        if self._phase is Phase.SUSPENDED:
            step(TABLE, SPENT, self._phase, Event.ADVANCE)
        if sender not in self._book.position:
            raise RemoteError(f"{sender} is not in this cohort", (sender,), AbortCode.ROSTER_MISMATCH)
        frame = Frame.decode(data, sender, self._book.body_limit)
        if frame.suite != self._suite or frame.to != 0 or frame.kind not in _DUE:
            raise malformed("not a client's frame of this scheme", sender)
        kind = Kind(frame.kind)
        if self._phase in SPENT or sender in self.excluded:
            self.late += 1
            return ()
        binding = self._binding(sender, kind, frame)
        if not frame.verify(self._desk.roster.member(sender).sign_key, binding):
            raise RemoteError(f"frame from {sender} is not signed by it", (sender,), AbortCode.BAD_SIGNATURE)
        if self._duplicate(sender, kind, frame):
            return ()
        self._take(sender, kind, frame)
        return self._advance_if_complete()

    def _binding(self, sender: int, kind: Kind, frame: Frame) -> bytes:
        """The 32 bytes the signature is bound to; a frame of another context or session is refused."""
        context = self._desk.context
        if kind is Kind.ADVERT:
            if frame.session != context.digest[:16]:
                fingerprint, _ = msg.decode_advert(frame.body, sender)
                code = context.difference(fingerprint) or AbortCode.STALE_KEY
                raise RemoteError(f"{sender} is in another context", (sender,), code)
            return context.digest
        if not self._book.sid or frame.session != self._book.sid[:16]:
            raise RemoteError(f"{sender} is in another session", (sender,), AbortCode.STALE_KEY)
        return self._book.sid

    def _duplicate(self, sender: int, kind: Kind, frame: Frame) -> bool:
        """Late and identical frames are counted; two different ones for one slot exclude their signer."""
        slot, digest = (sender, kind), frame.digest()
        first = self._book.slots.get(slot)
        if first == digest:
            self.late += 1
            return True
        if first is not None:
            if self._phase is _DUE[kind] and kind is not Kind.MASKED:
                self._exclude(sender, AbortCode.DOUBLE_CLAIM)
                self._book.withdraw(sender, kind)
            else:  # the first one stands: a masked vector is in the sum, a closed phase does not change
                self.late += 1
            return True
        if kind is Kind.COMPLAINT and sender in self._book.masked:
            raise malformed("a complaint after the vector", sender)
        if self._phase is not _DUE[kind] or sender not in self._book.due(self._phase):
            if self._rank(self._phase) < self._rank(_DUE[kind]):
                raise malformed(f"{kind.name} is not due in phase {self._phase.name}", sender)
            self.late += 1
            return True
        self._book.slots[slot] = digest
        return False

    @staticmethod
    def _rank(phase: Phase) -> int:
        return _LIVE.index(phase)

    def _exclude(self, sender: int, code: AbortCode) -> None:
        self.excluded[sender] = code

    def _take(self, sender: int, kind: Kind, frame: Frame) -> None:
        """Apply a verified frame. What its signer got wrong excludes the signer.

        Faults of _DOUBTFUL may follow from a frame of the server that was damaged on its way: such a frame is
        refused, but nobody is excluded for it.
        """
        try:
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
        except RemoteError as error:
            if (kind, error.code) in _DOUBTFUL:
                del self._book.slots[sender, kind]
                raise
            self._exclude(sender, error.code or AbortCode.MALFORMED_FRAME)

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

    def _advance_if_complete(self) -> Sequence[Frame]:
        if self._phase in SPENT:
            return ()
        waiting = self._book.due(self._phase) - self._book.spoken(self._phase) - set(self.excluded)
        return () if waiting else self.close_phase()

    def close_phase(self) -> Sequence[Frame]:
        if self._phase is Phase.KEYS:
            return self._close_keys()
        if self._phase is Phase.SHARES:
            return self._close_shares()
        if self._phase is Phase.MASKED:
            return self._close_masked()
        if self._phase is Phase.CHECK:
            return self._close_check()
        step(TABLE, SPENT, self._phase, Event.FINISH)
        return self._close_unmask()

    def _fail(self, code: AbortCode, why: str, culprits: Iterable[int] = ()) -> None:
        released = self._phase is Phase.UNMASK
        self._phase = step(TABLE, SPENT, self._phase, Event.FAIL)
        self._book.forget()
        raise Aborted(code, why, {*culprits, *self.excluded}, released=released)

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

    def _to(self, kind: Kind, session: bytes, index: int, body: bytes) -> Frame:
        return Frame(self._suite, kind, session[:16], 0, index, body)

    def _close_keys(self) -> Sequence[Frame]:
        book = self._book
        joined = self._settle(book.adverts, "advertised")
        book.keep(joined)
        book.open_session()
        self._phase = step(TABLE, SPENT, self._phase, Event.ADVANCE)
        context = self._desk.context.digest
        return Frames(sorted(joined), lambda i: self._to(Kind.KEYS, context, i, book.key_list(i).encode()))

    def _settle(self, said: Iterable[int], what: str) -> set[int]:
        """The largest part of `said` in which everyone has t holders.

        Who lacks them was unlucky and becomes a dropout: no mask of this client is in any vector yet.
        """
        book, t = self._book, self._desk.params.threshold
        kept = set(said)
        while short := {i for i in kept if sum(h in kept for h in book.holders(i)) < t}:
            kept -= short
        if len(kept) < t:
            self._too_few(said, f"{what}, {len(kept)} of them with {t} holders that did")
        return kept

    def _too_few(self, present: Iterable[int], what: str) -> None:
        here = set(present)
        missing = sorted(set(self._book.position) - here)
        self._fail(
            AbortCode.BELOW_THRESHOLD,
            f"{len(here)} clients {what}, the threshold is {self._desk.params.threshold}; missing: {missing}",
        )

    def _close_shares(self) -> Sequence[Frame]:
        book = self._book
        shared = self._settle(book.nodes, "shared")
        book.keep_dealers(shared)
        relay = book.relays()
        self._phase = step(TABLE, SPENT, self._phase, Event.ADVANCE)
        return Frames(sorted(shared), lambda i: self._to(Kind.RELAY, book.sid, i, relay(i)))

    def _close_masked(self) -> Sequence[Frame]:
        book = self._book
        alive = set(book.masked)
        if len(alive) < self._desk.params.threshold:
            self._too_few(alive, "sent a vector")
        self._require(sorted(book.nodes), alive, "sent a vector")
        book.boxes = {}
        book.fix_survivors()
        self._phase = step(TABLE, SPENT, self._phase, Event.ADVANCE)
        return Frames(sorted(alive), lambda i: self._to(Kind.SURVIVORS, book.sid, i, book.survivor_list(i)))

    def _close_check(self) -> Sequence[Frame]:
        book = self._book
        signed = set(book.signatures)
        ready = [i for i in sorted(signed) if len(book.signers(i)) >= self._desk.params.threshold]
        self._require(sorted(book.nodes), signed, "signed the survivor list")
        self._require(sorted(book.nodes), set(ready), f"signed it with {self._desk.params.threshold} others")
        self._phase = step(TABLE, SPENT, self._phase, Event.ADVANCE)
        book.asked = set(ready)
        return Frames(ready, lambda i: self._to(Kind.REQUEST, book.sid, i, book.request(i)))

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
        self._phase = step(TABLE, SPENT, self._phase, Event.FINISH)
        book.forget()
        return ()
