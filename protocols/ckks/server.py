"""Server of `ckks`: it relays key shares it cannot open, adds ciphertexts, and asks t clients for an answer.

It holds no key. The decryptors are fixed before anyone answers and never changed: one that is lost then burns
the round (Aborted with released=True), since a second subset on the same ciphertext would leak key shares.
"""

from collections.abc import Iterable, Sequence

from merveil.protocols.ckks import encoding
from merveil.protocols.ckks import messages as msg
from merveil.protocols.ckks.book import Book
from merveil.protocols.ckks.constants import CIPHERTEXT_BYTES, DATA, PRIMES, PUBLIC_BYTES
from merveil.protocols.ckks.dealing import good_share
from merveil.protocols.ckks.messages import SUITE, Kind
from merveil.protocols.ckks.params import CkksParams
from merveil.protocols.ckks.wire import check_opaque, decode_polynomials
from merveil.protocols.codec import Codes, check_sum
from merveil.protocols.errors import AbortCode, Aborted, LocalError, RemoteError
from merveil.protocols.frame import Frame, malformed
from merveil.protocols.machine import Event
from merveil.protocols.primitives.aead import open_once
from merveil.protocols.primitives.agreement import is_low_order
from merveil.protocols.primitives.sign import verify
from merveil.protocols.server import Server
from merveil.protocols.session import FIVE, Desk, Frames, Outcome, Phase, moves

TABLE = moves(FIVE, client=False)
_DUE = {
    Kind.ADVERT: Phase.KEYS,
    Kind.SHARES: Phase.SHARES,
    Kind.UPLOAD: Phase.MASKED,
    Kind.COMPLAINT: Phase.MASKED,
    Kind.SIGNED: Phase.CHECK,
    Kind.ANSWER: Phase.UNMASK,
}
_DOUBTFUL = frozenset(  # what a client may have been led to by somebody else's bytes
    (kind, AbortCode.ROSTER_MISMATCH) for kind in (Kind.UPLOAD, Kind.SIGNED, Kind.ANSWER)
)


class CkksServer(Server[Kind, Book]):
    """One attempt at one round."""

    TABLE, KIND, DUE, OPENING, DOUBTFUL = TABLE, Kind, _DUE, Kind.ADVERT, _DOUBTFUL
    SINGLE = frozenset((Kind.ADVERT, Kind.SHARES, Kind.SIGNED))  # the others go into a sum, or end the round

    def __init__(self, desk: Desk, params: CkksParams, snapshot: bytes | None = None) -> None:
        super().__init__(SUITE, desk, Book(authority=params.authority))
        self._params = params
        self._codes: Codes | None = None
        if snapshot is not None:
            self._phase, self._book, self.excluded = Book.load(desk, params, snapshot)

    def result(self) -> Outcome:
        """The exact sum; LocalError before the round is done."""
        if self._codes is None:  # they are set on the way to DONE
            raise LocalError(f"no sum in phase {self._phase.name}")
        return Outcome(self._codes.copy(), self._book.alive, dict(self.excluded))

    # Receiving

    def _fingerprint(self, body: bytes, sender: int) -> bytes:
        return msg.decode_advert(body, sender)[0]

    def _session(self) -> bytes:
        return self._book.sid

    def _due(self) -> set[int]:
        return self._book.due(self._phase, self._desk.context.cohort)

    def _dump(self) -> bytes:
        return self._book.dump(self._desk, self._phase, self.excluded)

    def _body_limit(self) -> int:
        n = self._params.cohort
        sharing = PUBLIC_BYTES + msg.SALT + msg.proof_size(n, self._params.threshold) + n * msg.BOX
        return 256 + max(sharing, 2 * self._params.layout.ciphertexts * CIPHERTEXT_BYTES)

    def _apply(self, sender: int, kind: Kind, frame: Frame) -> None:
        take = {
            Kind.ADVERT: self._take_advert,
            Kind.SHARES: self._take_shares,
            Kind.UPLOAD: self._take_upload,
            Kind.COMPLAINT: self._take_complaint,
            Kind.SIGNED: self._take_signed,
            Kind.ANSWER: self._take_answer,
        }[kind]
        take(sender, frame)

    def _take_advert(self, sender: int, frame: Frame) -> None:
        fingerprint, advert = msg.decode_advert(frame.body, sender)
        if self._desk.context.difference(fingerprint) is not None:
            raise malformed("fingerprint and context disagree", sender)
        if is_low_order(advert.share_key):
            raise RemoteError("share key of low order", (sender,), AbortCode.BAD_KEY)
        self._book.adverts[sender] = advert

    def _take_shares(self, sender: int, frame: Frame) -> None:
        book = self._book
        peers = [] if book.authority else [i for i in sorted(book.adverts) if i != sender]
        proof = 0 if book.authority else msg.proof_size(len(book.adverts), self._params.threshold)
        salt, public, proven, boxes = msg.decode_shares(frame.body, sender, peers, proof)
        said = msg.commitment(self._desk.context.digest, sender, salt, public)
        if said != book.adverts[sender].commitment:
            raise RemoteError("a key that was not committed to", (sender,), AbortCode.BAD_KEY)
        decode_polynomials(public, 1, len(PRIMES), sender)
        book.dealt[sender] = (salt, public, proven, boxes)

    def _take_complaint(self, sender: int, frame: Frame) -> None:
        """A holder shows the key of a box: either the dealer is convicted, or the complaint is false."""
        book = self._book
        dealer, key = msg.decode_complaint(frame.body, sender)
        if sender in book.parts or dealer not in book.dealt or sender not in book.dealt[dealer][3]:
            raise malformed("a complaint about shares that it took or never got", sender)
        _, _, proof, boxes = book.dealt[dealer]
        plain = open_once(key, boxes[sender], msg.box_aad(book.sid, dealer, sender, proof))
        if plain is None:
            raise RemoteError("the complaint's key opens nothing", (sender,), AbortCode.BAD_KEY)
        holders, said = sorted(book.adverts), book.adverts[dealer].commitment
        if good_share(plain, book.sid, dealer, sender, holders, said, proof) is not None:
            raise RemoteError("a complaint about a good share", (sender,), AbortCode.BAD_SHARE)
        why = f"client {dealer} dealt a share that contradicts its commitment"
        self._fail(AbortCode.BAD_SHARE, why, (dealer,))

    def _take_upload(self, sender: int, frame: Frame) -> None:
        book, count = self._book, self._params.layout.ciphertexts
        upload = msg.decode_upload(frame.body, sender, count)
        if upload.view != book.view:
            why = f"{sender} encrypted under another key"
            raise RemoteError(why, (sender,), AbortCode.ROSTER_MISMATCH)
        fields = msg.stamp_fields(book.sid, sender, upload.view, msg.c1_digest(upload.c1))
        if not verify(self._desk.roster.member(sender).sign_key, upload.stamp, msg.STAMP, *fields):
            raise RemoteError("the stamp does not hold", (sender,), AbortCode.BAD_SIGNATURE)
        c0 = decode_polynomials(upload.c0, count, DATA, sender)
        check_opaque(decode_polynomials(upload.c1, count, DATA, sender), sender)
        book.add(c0)
        book.parts[sender] = (upload.stamp, upload.c1)

    def _take_signed(self, sender: int, frame: Frame) -> None:
        if frame.body != self._book.root:
            raise RemoteError("signed another survivor list", (sender,), AbortCode.ROSTER_MISMATCH)
        self._book.signatures[sender] = frame.signature

    def _take_answer(self, sender: int, frame: Frame) -> None:
        book = self._book
        count = self._params.layout.ciphertexts if sender in book.decryptors else 0
        digest, answer = msg.decode_answer(frame.body, sender, count)
        if digest != msg.subset_digest(book.root, book.chosen):
            raise RemoteError("answered another request", (sender,), AbortCode.ROSTER_MISMATCH)
        if count:
            book.add(decode_polynomials(answer, count, DATA, sender))
        book.answered.add(sender)

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

    def _many(self, present: Iterable[int], what: str) -> None:
        self._enough(present, self._cohort, self._params.threshold, f"clients {what}")

    def _present(self, here: Iterable[int]) -> None:
        """Without the one client that holds the key there is no sum."""
        holder = self._book.authority
        if holder and holder not in here:
            self._fail(AbortCode.BELOW_THRESHOLD, f"client {holder} holds the key and is missing")

    def _close_keys(self) -> Sequence[Frame]:
        book, context = self._book, self._desk.context
        self._many(book.adverts, "advertised")
        book.sid = msg.session_id(context.digest, book.adverts)
        self._go(Event.ADVANCE)
        body = msg.encode_keys(context, book.adverts)
        return Frames(sorted(book.adverts), lambda i: self._to(Kind.KEYS, i, body, context.digest))

    def _close_shares(self) -> Sequence[Frame]:
        book = self._book
        self._many(book.keyed, "shared")
        self._present(book.dealt)
        book.view = msg.view_digest(book.sid, book.dealt)
        self._go(Event.ADVANCE)
        dealt = book.dealt

        def relay(i: int) -> Frame:
            entries = {
                d: msg.Dealt(salt, b, proof, boxes.get(i, b""))
                for d, (salt, b, proof, boxes) in dealt.items()
                if d != i
            }
            return self._to(Kind.RELAY, i, msg.encode_relay(entries))

        return Frames(sorted(book.keyed), relay)

    def _close_masked(self) -> Sequence[Frame]:
        book = self._book
        self._many(book.parts, "sent a ciphertext")
        book.survivors = msg.encode_survivors({i: msg.c1_digest(c1) for i, (_, c1) in book.parts.items()})
        book.root = msg.survivor_root(book.sid, book.view, book.survivors)
        self._go(Event.ADVANCE)
        body = book.survivors
        return Frames(book.alive, lambda i: self._to(Kind.SURVIVORS, i, body))

    def _close_check(self) -> Sequence[Frame]:
        """Choose t signers, rotating by round: they decrypt, unless one client holds the key. Nobody has
        answered: losses so far cost nothing."""
        book, t = self._book, self._params.threshold
        self._many(book.signatures, "signed the survivor list")
        self._present(book.signatures)
        signers = sorted(book.signatures)
        first = self._desk.context.round % len(signers)
        book.chosen = tuple(sorted((signers[first:] + signers[:first])[:t]))
        self._go(Event.ADVANCE)
        signed = {i: book.signatures[i] for i in book.chosen}
        parts = [book.parts[i] for i in book.alive]
        full, short = msg.encode_request(signed, parts), msg.encode_request(signed, ())
        chosen = set(book.decryptors)
        return Frames(signers, lambda i: self._to(Kind.REQUEST, i, full if i in chosen else short))

    def _close_unmask(self) -> Sequence[Frame]:
        book, params = self._book, self._params
        lost = sorted(set(book.decryptors) - book.answered)
        if lost:
            self._fail(
                AbortCode.BELOW_THRESHOLD,
                f"{len(lost)} of {params.answers} decryptors did not answer; missing: {lost}. Another "
                "subset must not open these ciphertexts: the round is burnt",
            )
        assert book.total is not None
        limbs, quiet = encoding.read(params, book.total)
        if not quiet:
            self._fail(AbortCode.BAD_SHARE, "the answers do not decrypt the sum")
        codes = encoding.from_limbs(params, limbs)
        try:
            check_sum(params, codes, len(book.parts))
        except Aborted as error:
            self._fail(error.code, "the survivors cannot have sent this sum")
        self._codes = codes
        self._go(Event.FINISH)
        book.forget()
        return ()
