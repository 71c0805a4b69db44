"""Server of `lattice`: it adds ciphertexts as they come, and opens the sum with the sum of the keys.

MASKED: uploads. CHECK: members sign the survivor list. UNMASK: members answer. What it does to open the sum
does not depend on who dropped. A fault that a client signed excludes it and the round goes on.
"""

from collections.abc import Iterable, Sequence

from merveil.protocols.codec import Codes, check_sum
from merveil.protocols.errors import AbortCode, Aborted, LocalError, RemoteError, SessionSpent
from merveil.protocols.frame import Frame, malformed
from merveil.protocols.lattice import messages as msg
from merveil.protocols.lattice import packed
from merveil.protocols.lattice.book import Book
from merveil.protocols.lattice.encryption import canonical, residues
from merveil.protocols.lattice.messages import SUITE, Kind
from merveil.protocols.lattice.params import LatticeParams
from merveil.protocols.lattice.unmask import open_answers
from merveil.protocols.machine import Event, step
from merveil.protocols.primitives.agreement import is_low_order
from merveil.protocols.session import SPENT, Desk, Frames, Outcome, Phase

_LIVE = (Phase.MASKED, Phase.CHECK, Phase.UNMASK)
TABLE = {
    (Phase.IDLE, Event.START): Phase.MASKED,
    (Phase.MASKED, Event.ADVANCE): Phase.CHECK,
    (Phase.CHECK, Event.ADVANCE): Phase.UNMASK,
    (Phase.UNMASK, Event.FINISH): Phase.DONE,
    **{(p, Event.FAIL): Phase.ABORTED for p in _LIVE},
    **{(p, Event.SUSPEND): Phase.SUSPENDED for p in _LIVE},
}
_DUE = {Kind.UPLOAD: Phase.MASKED, Kind.SIGNED: Phase.CHECK, Kind.ANSWER: Phase.UNMASK}


class LatticeServer:
    """One attempt at one round, over any number of clients."""

    def __init__(self, desk: Desk, params: LatticeParams, snapshot: bytes | None = None) -> None:
        self._desk, self._params = desk, params
        self._phase = Phase.IDLE
        self._book = Book(desk, params)
        self._codes: Codes | None = None
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
        if self._phase is not Phase.DONE or self._codes is None:
            raise LocalError(f"no sum in phase {self._phase.name}")
        return Outcome(self._codes.copy(), tuple(self._book.survivors), dict(self.excluded))

    # Receiving

    def receive(self, sender: int, data: bytes) -> Sequence[Frame]:
        """Take one client's frame; the frames of the next phase once everyone due has spoken."""
        if self._phase is Phase.IDLE:
            raise LocalError("start the session first")
        if self._phase is Phase.SUSPENDED:
            raise SessionSpent("the session was suspended: resume its snapshot")
        if sender not in self._book.position:
            raise RemoteError(f"{sender} is not in this cohort", (sender,), AbortCode.ROSTER_MISMATCH)
        frame = Frame.decode(data, sender, self._book.body_limit)
        if frame.suite != SUITE or frame.to != 0 or frame.kind not in _DUE:
            raise malformed("not a client's frame of this scheme", sender)
        kind, digest = Kind(frame.kind), self._desk.context.digest
        if self._phase in SPENT or sender in self.excluded:
            self.late += 1
            return ()
        if frame.session != digest[:16]:
            self._foreign(sender, kind, frame)
        if not frame.verify(self._desk.roster.member(sender).sign_key, digest):
            raise RemoteError(f"frame from {sender} is not signed by it", (sender,), AbortCode.BAD_SIGNATURE)
        if self._duplicate(sender, kind, frame):
            return ()
        self._take(sender, kind, frame)
        return self._advance_if_complete()

    def _foreign(self, sender: int, kind: Kind, frame: Frame) -> None:
        code = AbortCode.STALE_KEY
        if kind is Kind.UPLOAD:
            found = self._desk.context.difference(msg.peek_fingerprint(frame.body, sender))
            code = found or code
        raise RemoteError(f"{sender} is in another context", (sender,), code)

    def _duplicate(self, sender: int, kind: Kind, frame: Frame) -> bool:
        """Late and identical frames are counted; two different ones for one slot exclude their signer."""
        slot, digest = (sender, kind), frame.digest()
        first = self._book.slots.get(slot)
        if first == digest:
            self.late += 1
            return True
        if first is not None:
            if self._phase is _DUE[kind] and kind is not Kind.UPLOAD:
                self.excluded[sender] = AbortCode.DOUBLE_CLAIM
                self._book.withdraw(sender, kind)
            else:  # the first one stands: an upload is in the sum, a closed phase does not change
                self.late += 1
            return True
        if self._phase is not _DUE[kind] or sender not in self._book.due(self._phase):
            if _LIVE.index(self._phase) <= _LIVE.index(_DUE[kind]):
                raise malformed(f"{kind.name} is not due from it in phase {self._phase.name}", sender)
            self.late += 1
            return True
        self._book.slots[slot] = digest
        return False

    def _take(self, sender: int, kind: Kind, frame: Frame) -> None:
        """Apply a verified frame. What its signer got wrong excludes the signer.

        Another root than this server's may follow from a list that was damaged on its way: such a frame is
        refused, but nobody is excluded for it.
        """
        try:
            if kind is Kind.UPLOAD:
                self._take_upload(sender, frame)
            elif kind is Kind.SIGNED:
                if msg.decode_signed(frame.body, sender) != self._book.root:
                    raise RemoteError("signed another list", (sender,), AbortCode.ROSTER_MISMATCH)
                self._book.signatures[sender] = frame.signature
            else:
                if packed.decode(self._params, frame.body) is None:
                    raise malformed("an answer of a wrong form", sender)
                self._book.answers[sender] = frame.body
        except RemoteError as error:
            if (kind, error.code) == (Kind.SIGNED, AbortCode.ROSTER_MISMATCH):
                del self._book.slots[sender, kind]
                raise
            self.excluded[sender] = error.code or AbortCode.MALFORMED_FRAME

    def _take_upload(self, sender: int, frame: Frame) -> None:
        upload = msg.decode_upload(self._params, frame.body, sender)
        if self._desk.context.difference(upload.fingerprint) is not None:
            raise malformed("fingerprint and context disagree", sender)
        if is_low_order(upload.ephemeral):
            raise RemoteError("ephemeral key of low order", (sender,), AbortCode.BAD_KEY)
        parts = residues(self._params.layout, upload.ciphertext)
        if not canonical(self._params.layout, parts):
            raise RemoteError("a residue is not below its prime", (sender,), AbortCode.BAD_CIPHERTEXT)
        self._book.total.add(parts)
        self._book.dealt[sender] = (upload.ephemeral, upload.boxes)
        self._book.survivors.append(sender)

    # Phases

    def _advance_if_complete(self) -> Sequence[Frame]:
        if self._phase in SPENT:
            return ()
        waiting = self._book.due(self._phase) - self._book.spoken(self._phase) - set(self.excluded)
        return () if waiting else self.close_phase()

    def close_phase(self) -> Sequence[Frame]:
        if self._phase is Phase.MASKED:
            return self._close_masked()
        if self._phase is Phase.CHECK:
            return self._close_check()
        step(TABLE, SPENT, self._phase, Event.FINISH)
        return self._close_unmask()

    def _fail(self, code: AbortCode, why: str) -> None:
        released = self._phase is Phase.UNMASK
        self._phase = step(TABLE, SPENT, self._phase, Event.FAIL)
        self._book.forget()
        raise Aborted(code, why, self.excluded, released=released)

    def _require(self, present: Iterable[int], of: Iterable[int], least: int, what: str) -> None:
        here = set(present)
        if len(here) < least:
            missing = sorted(set(of) - here)
            self._fail(
                AbortCode.BELOW_THRESHOLD, f"{len(here)} {what}, {least} are needed; missing: {missing}"
            )

    def _to(self, kind: Kind, index: int, body: bytes) -> Frame:
        return Frame(SUITE, kind, self._desk.context.digest[:16], 0, index, body)

    def _close_masked(self) -> Sequence[Frame]:
        book = self._book
        self._require(book.survivors, book.position, self._params.threshold, "clients sent a vector")
        self._require(book.present, book.members, self._params.quorum, "members sent a vector")
        bitmap, dealt = book.fix_survivors(), book.dealt
        book.dealt = {}  # the frames below keep them until they are sent
        self._phase = step(TABLE, SPENT, self._phase, Event.ADVANCE)
        return Frames(
            book.present,
            lambda i: self._to(Kind.SURVIVORS, i, book.survivor_list(i, bitmap, dealt)),
        )

    def _close_check(self) -> Sequence[Frame]:
        book = self._book
        self._require(book.signatures, book.members, self._params.quorum, "members signed the survivor list")
        self._phase = step(TABLE, SPENT, self._phase, Event.ADVANCE)
        book.asked = tuple(sorted(book.signatures))
        quorum = {i: book.signatures[i] for i in book.asked[: self._params.quorum]}
        body = msg.encode_request(quorum)
        return Frames(book.asked, lambda i: self._to(Kind.REQUEST, i, body))

    def _close_unmask(self) -> Sequence[Frame]:
        book = self._book
        self._require(book.answers, book.members, self._params.quorum, "members answered")
        try:
            codes = open_answers(self._params, self._desk.context.digest, book)
            check_sum(self._params, codes, len(book.survivors))
        except Aborted as error:
            self._fail(error.code, str(error))
        self._codes = codes
        self._phase = step(TABLE, SPENT, self._phase, Event.FINISH)
        book.forget()
        return ()
