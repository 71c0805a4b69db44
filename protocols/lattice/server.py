"""Server of `lattice`: it adds ciphertexts as they come, and opens the sum with the sum of the keys.

MASKED: uploads. CHECK: members sign the survivor list. UNMASK: members answer. What it does to open the sum
does not depend on who dropped. A fault that a client signed excludes it and the round goes on.
"""

from collections.abc import Sequence

from merveil.protocols.codec import Codes, check_sum
from merveil.protocols.errors import AbortCode, Aborted, LocalError, RemoteError
from merveil.protocols.frame import Frame, malformed
from merveil.protocols.lattice import messages as msg
from merveil.protocols.lattice import packed
from merveil.protocols.lattice.book import Book
from merveil.protocols.lattice.encryption import canonical, residues
from merveil.protocols.lattice.messages import SUITE, Kind
from merveil.protocols.lattice.params import LatticeParams
from merveil.protocols.lattice.unmask import open_answers
from merveil.protocols.machine import Event
from merveil.protocols.primitives.agreement import is_low_order
from merveil.protocols.server import Server
from merveil.protocols.session import Desk, Frames, Outcome, Phase, moves

TABLE = moves((Phase.MASKED, Phase.CHECK, Phase.UNMASK), client=False)
_DUE = {Kind.UPLOAD: Phase.MASKED, Kind.SIGNED: Phase.CHECK, Kind.ANSWER: Phase.UNMASK}


class LatticeServer(Server[Kind, Book]):
    """One attempt at one round, over any number of clients."""

    TABLE, KIND, DUE, OPENING = TABLE, Kind, _DUE, Kind.UPLOAD
    SINGLE = frozenset((Kind.SIGNED, Kind.ANSWER))  # an upload is in the sum
    # another root than this server's may follow from a list that was damaged on its way
    DOUBTFUL = frozenset(((Kind.SIGNED, AbortCode.ROSTER_MISMATCH),))

    def __init__(self, desk: Desk, params: LatticeParams, snapshot: bytes | None = None) -> None:
        super().__init__(SUITE, desk, Book(desk, params))
        self._params = params
        self._codes: Codes | None = None
        if snapshot is not None:
            self._phase, self.excluded = self._book.load(snapshot)

    def result(self) -> Outcome:
        if self._phase is not Phase.DONE or self._codes is None:
            raise LocalError(f"no sum in phase {self._phase.name}")
        return Outcome(self._codes.copy(), tuple(self._book.survivors), dict(self.excluded))

    # Receiving

    def _body_limit(self) -> int:
        return self._book.body_limit

    def _fingerprint(self, body: bytes, sender: int) -> bytes:
        return msg.peek_fingerprint(body, sender)

    def _due(self) -> set[int]:
        return self._book.due(self._phase)

    def _dump(self) -> bytes:
        return self._book.dump(self._phase, self.excluded)

    def _admit(self, sender: int, kind: Kind) -> None:
        if self._phase is self.DUE[kind] and sender not in self._due():
            raise malformed(f"{kind.name} is not due from it in phase {self._phase.name}", sender)

    def _apply(self, sender: int, kind: Kind, frame: Frame) -> None:
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

    def _close(self) -> Sequence[Frame]:
        if self._phase is Phase.MASKED:
            return self._close_masked()
        return self._close_check() if self._phase is Phase.CHECK else self._close_unmask()

    def _close_masked(self) -> Sequence[Frame]:
        book = self._book
        self._enough(book.survivors, book.position, self._params.threshold, "clients sent a vector")
        self._enough(book.present, book.members, self._params.quorum, "members sent a vector")
        bitmap, dealt = book.fix_survivors(), book.dealt
        book.dealt = {}  # the frames below keep them until they are sent
        self._go(Event.ADVANCE)
        return Frames(
            book.present,
            lambda i: self._to(Kind.SURVIVORS, i, book.survivor_list(i, bitmap, dealt)),
        )

    def _close_check(self) -> Sequence[Frame]:
        book = self._book
        self._enough(book.signatures, book.members, self._params.quorum, "members signed the survivor list")
        self._go(Event.ADVANCE)
        book.asked = tuple(sorted(book.signatures))
        quorum = {i: book.signatures[i] for i in book.asked[: self._params.quorum]}
        body = msg.encode_request(quorum)
        return Frames(book.asked, lambda i: self._to(Kind.REQUEST, i, body))

    def _close_unmask(self) -> Sequence[Frame]:
        book = self._book
        self._enough(book.answers, book.members, self._params.quorum, "members answered")
        try:
            codes = open_answers(self._params, self._desk.context.digest, book)
            check_sum(self._params, codes, len(book.survivors))
        except Aborted as error:
            self._fail(error.code, str(error))
        self._codes = codes
        self._go(Event.FINISH)
        book.forget()
        return ()
