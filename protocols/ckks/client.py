"""Client of `ckks`: a joint key for this round alone, one encrypted vector, at most one answer.

KEYS: the commitment to the own b is out. SHARES: b and the sealed key shares are out. MASKED: the joint key
is here, the vector may be missing. CHECK: the ciphertext is out. UNMASK: one survivor list is signed. DONE:
the one answer is out and the key share is gone. A frame that contradicts what this client knows ends the
session; nothing is answered then.
"""

from collections.abc import Callable, Sequence

from merveil.protocols.ckks import checks, encoding, encryption, ring
from merveil.protocols.ckks import messages as msg
from merveil.protocols.ckks.constants import CIPHERTEXT_BYTES, DATA, PRIMES, PUBLIC_BYTES
from merveil.protocols.ckks.dealing import checked_sum, open_public, open_share, seal_shares
from merveil.protocols.ckks.messages import SUITE, Kind
from merveil.protocols.ckks.params import CkksParams
from merveil.protocols.ckks.ring import Residues
from merveil.protocols.ckks.sampling import expand
from merveil.protocols.ckks.sealing import close_chains
from merveil.protocols.ckks.state import ClientState
from merveil.protocols.ckks.wire import decode_polynomials, encode_polynomials
from merveil.protocols.codec import Codes, check_codes
from merveil.protocols.errors import AbortCode, Aborted, LocalError, RemoteError
from merveil.protocols.frame import Frame, malformed
from merveil.protocols.ledger import RoundState
from merveil.protocols.machine import Event, step
from merveil.protocols.primitives.agreement import private_key, public_bytes
from merveil.protocols.primitives.sign import sign
from merveil.protocols.secagg.messages import to_bitmap
from merveil.protocols.session import SPENT, Phase, Seat

_LIVE = (Phase.KEYS, Phase.SHARES, Phase.MASKED, Phase.CHECK, Phase.UNMASK)
TABLE = {
    (Phase.IDLE, Event.START): Phase.KEYS,
    (Phase.KEYS, Event.ADVANCE): Phase.SHARES,
    (Phase.SHARES, Event.ADVANCE): Phase.MASKED,
    (Phase.MASKED, Event.ADVANCE): Phase.CHECK,
    (Phase.CHECK, Event.ADVANCE): Phase.UNMASK,
    (Phase.UNMASK, Event.FINISH): Phase.DONE,
    **{(p, Event.FAIL): Phase.ABORTED for p in (Phase.IDLE, *_LIVE)},
    **{(p, Event.SUSPEND): Phase.SUSPENDED for p in (Phase.IDLE, *_LIVE)},
}
_DUE = {
    Kind.KEYS: Phase.KEYS,
    Kind.RELAY: Phase.SHARES,
    Kind.SURVIVORS: Phase.CHECK,
    Kind.REQUEST: Phase.UNMASK,
}
_MISMATCH = AbortCode.ROSTER_MISMATCH


class CkksClient:
    """One client, one attempt at one round."""

    def __init__(self, seat: Seat, params: CkksParams, snapshot: bytes | None = None) -> None:
        self._seat, self._params = seat, params
        self._phase = Phase.IDLE
        self._state = ClientState()
        self.late = 0
        if snapshot is not None:
            self._phase, self._state = ClientState.load(
                seat.ledger.take_snapshot(seat.context.digest, self._aad(), snapshot)
            )

    @property
    def phase(self) -> Phase:
        return self._phase

    # Moves

    def start(self) -> Sequence[Frame]:
        """Open the round in the ledger, draw a key, and commit to its public part."""
        after = step(TABLE, SPENT, self._phase, Event.START)
        return self._guarded(lambda: self._open(after))

    def _open(self, after: Phase) -> Sequence[Frame]:
        seat, context = self._seat, self._seat.context
        secret, raw, salt = self._draw_key()
        seed = seat.rng.draw(32, "ckks/share-key")
        advert = msg.Advert(
            seat.rng.draw(32, "ckks/nonce"),
            public_bytes(private_key(seed)),
            msg.commitment(context.digest, seat.index, salt, raw) if raw else bytes(msg.DIGEST),
        )
        seat.ledger.open_round(context.federation, context.round, context.attempt)
        self._state = ClientState(
            codes=self._state.codes, advert=advert, secret=secret, public=raw, salt=salt, seed=seed
        )
        self._phase = after
        return (self._frame(Kind.ADVERT, msg.encode_advert(context, advert), context.digest),)

    def _draw_key(self) -> tuple[Residues | None, bytes, bytes]:
        """(secret, wire form of b, salt of its commitment); nothing where another client holds the key."""
        seat = self._seat
        if self._params.authority not in (0, seat.index):
            return None, b"", b""
        secret, public = encryption.key_pair(expand(seat.context.digest), seat.rng)
        return secret, encode_polynomials(public), seat.rng.draw(msg.SALT, "ckks/salt")

    def submit(self, codes: Codes) -> Sequence[Frame]:
        """Hand in the vector once, at any time before it is due; the ciphertext's frame if it is due now."""
        if self._phase in SPENT or self._phase is Phase.IDLE:
            step(TABLE, SPENT, self._phase, Event.ADVANCE)
        if self._state.codes is not None or self._phase in (Phase.CHECK, Phase.UNMASK):
            raise LocalError("this session has its vector already")
        check_codes(self._params, codes)
        self._state.codes = codes.copy()
        return self._guarded(self._upload) if self._phase is Phase.MASKED else ()

    def receive(self, sender: int, data: bytes) -> Sequence[Frame]:
        """Take a frame of the server. Aborted ends the session."""
        if self._phase is Phase.IDLE:
            raise LocalError("start the session first")
        if sender != 0:
            raise RemoteError("a client hears only the server", (sender,))
        if self._phase in (Phase.ABORTED, Phase.SUSPENDED):
            step(TABLE, SPENT, self._phase, Event.ADVANCE)
        kind, frame = self._parse(data)
        return self._guarded(lambda: self._take(kind, frame))

    def _take(self, kind: Kind, frame: Frame) -> Sequence[Frame]:
        digest = frame.digest()
        if self._repeated(kind, frame, digest):
            return ()
        frames = self._handle(kind, frame)
        self._state.seen[kind] = digest
        return frames

    def _guarded(self, move: Callable[[], Sequence[Frame]]) -> Sequence[Frame]:
        """Run a move. RemoteError has changed nothing; all else ends the session and drops its secrets."""
        over = True
        try:
            frames = move()
            over = False
            return frames
        except RemoteError:
            over = False
            raise
        finally:
            if over:
                self._phase = step(TABLE, SPENT, self._phase, Event.FAIL)
                self._state = ClientState()

    def suspend(self) -> bytes:
        after = step(TABLE, SPENT, self._phase, Event.SUSPEND)
        plaintext = self._state.dump(self._phase)
        blob = self._seat.ledger.seal_snapshot(self._seat.context.digest, self._aad(), plaintext)
        self._phase, self._state = after, ClientState()
        return blob

    # Parsing

    def _aad(self) -> bytes:
        return b"ckks/1/snapshot" + self._seat.identity.member.encode()

    def _parse(self, data: bytes) -> tuple[Kind, Frame]:
        frame = Frame.decode(data, 0, self._body_limit())
        if frame.suite != SUITE or frame.to != self._seat.index:
            raise malformed("another scheme's or another client's frame", 0)
        if frame.kind not in _DUE:
            raise malformed(f"kind {frame.kind} is none of the server's", 0)
        return Kind(frame.kind), frame

    def _body_limit(self) -> int:
        n = self._params.cohort
        parts = self._params.layout.ciphertexts * CIPHERTEXT_BYTES
        proof = msg.proof_size(n, self._params.threshold)
        return 64 + n * (256 + max(PUBLIC_BYTES + proof + msg.BOX, parts))

    def _repeated(self, kind: Kind, frame: Frame, digest: bytes) -> bool:
        """A second frame of a kind: identical means late, different means the server equivocates."""
        first = self._state.seen.get(kind)
        if first == digest:
            self.late += 1
            return True
        session = self._seat.context.digest if kind is Kind.KEYS else self._state.sid
        if first is not None and frame.session == session[:16] and self._phase is not Phase.DONE:
            raise Aborted(_MISMATCH, f"two different {kind.name} frames", (0,))
        if first is not None or _DUE[kind] is not self._phase:
            raise malformed(f"{kind.name} is not due in phase {self._phase.name}", 0)
        return False

    def _handle(self, kind: Kind, frame: Frame) -> Sequence[Frame]:
        if kind is Kind.KEYS:
            return self._on_keys(frame)
        if frame.session != self._state.sid[:16]:
            raise malformed("the frame belongs to another session", 0)
        if kind is Kind.RELAY:
            return self._on_relay(frame)
        if kind is Kind.SURVIVORS:
            return self._on_survivors(frame)
        return self._on_request(frame)

    # KEYS

    def _on_keys(self, frame: Frame) -> Sequence[Frame]:
        seat, context, state = self._seat, self._seat.context, self._state
        adverts = checks.adverts(seat, self._params, state, frame)
        sid = msg.session_id(context.digest, adverts)
        frames: Sequence[Frame] = ()
        if state.secret is not None:
            proof, boxes = seal_shares(seat, state, self._params, sid, adverts)
            body = msg.encode_shares(state.salt, state.public, proof, boxes)
            frames = (self._frame(Kind.SHARES, body, sid),)
        state.sid, state.adverts = sid, adverts
        state.secret, state.seed = None, b""
        self._phase = step(TABLE, SPENT, self._phase, Event.ADVANCE)
        return frames

    # SHARES

    def _on_relay(self, frame: Frame) -> Sequence[Frame]:
        seat, state, holder = self._seat, self._state, self._params.authority
        proof = 0 if holder else msg.proof_size(len(state.adverts), self._params.threshold)
        entries = msg.decode_relay(frame.body, proof, 0 if holder else msg.BOX)
        expected = {holder} - {seat.index} if holder else set(state.incoming)
        if not set(entries) <= expected or (holder and set(entries) != expected):
            raise Aborted(_MISMATCH, "keys of other clients than have a part in it", (0,))
        if not holder:
            checks.enough(self._params, len(entries) + 1, "shared")
        joint = decode_polynomials(state.public, 1, len(PRIMES), seat.index) if state.public else None
        for dealer, dealt in entries.items():
            public = open_public(seat, state, dealer, dealt)
            joint = public if joint is None else ring.add(joint, public)
            if not holder:
                assert state.share is not None
                share = open_share(seat, state, dealer, dealt)
                if share is None:
                    raise self._complaint(dealer)
                state.share = ring.add(state.share, share)
        state.joint = joint
        state.dealers = (holder,) if holder else tuple(sorted((*entries, seat.index)))
        state.view = msg.view_digest(state.sid, state.dealers)
        state.incoming, state.public, state.salt = {}, b"", b""
        self._phase = step(TABLE, SPENT, self._phase, Event.ADVANCE)
        return self._upload() if state.codes is not None else ()

    def _complaint(self, dealer: int) -> Aborted:
        """The key of the dealer's box shows everyone what is in it; this session ends."""
        body = msg.encode_complaint(dealer, self._state.incoming[dealer])
        return Aborted(
            AbortCode.BAD_SHARE,
            f"the share of {dealer} contradicts what it committed to",
            (dealer,),
            frames=(self._frame(Kind.COMPLAINT, body, self._state.sid),),
        )

    # MASKED

    def _upload(self) -> Sequence[Frame]:
        """Encrypt the one vector, note it in the ledger, and forget everything but the digest of c1."""
        seat, context, state, params = self._seat, self._seat.context, self._state, self._params
        assert state.codes is not None and state.joint is not None
        after = step(TABLE, SPENT, self._phase, Event.ADVANCE)
        limbs = encoding.to_limbs(params, state.codes)
        common = expand(context.digest)
        c0, c1 = encryption.encrypt(state.joint, common, params, limbs, seat.rng)
        raw = encode_polynomials(c1)
        digest = msg.c1_digest(raw)
        fields = msg.stamp_fields(state.sid, seat.index, state.view, digest)
        stamp = sign(seat.identity.sign_key, msg.STAMP, *fields)
        body = msg.encode_upload(msg.Upload(state.view, stamp, encode_polynomials(c0), raw))
        seat.ledger.advance(context.federation, context.round, context.attempt, RoundState.MASKED)
        state.c1, state.codes, state.joint = digest, None, None
        self._phase = after
        return (self._frame(Kind.UPLOAD, body, state.sid),)

    # CHECK

    def _on_survivors(self, frame: Frame) -> Sequence[Frame]:
        seat, state = self._seat, self._state
        checks.survivors(seat, self._params, state, frame)
        root = msg.survivor_root(state.sid, state.view, frame.body)
        state.survivors, state.root = frame.body, root
        self._phase = step(TABLE, SPENT, self._phase, Event.ADVANCE)
        return (self._frame(Kind.SIGNED, root, state.sid),)

    # UNMASK

    def _on_request(self, frame: Frame) -> Sequence[Frame]:
        """Answer once where chosen, else close the round; either way the key share is gone afterwards."""
        seat, context, state, params = self._seat, self._seat.context, self._state, self._params
        listed = msg.decode_survivors(state.survivors)
        signatures, parts = checks.request(seat, params, state, frame)
        body = msg.subset_digest(state.root, signatures)
        if parts:
            body += self._answer(sorted(signatures), listed, parts)
        after = step(TABLE, SPENT, self._phase, Event.FINISH)
        seat.ledger.answer(
            context.federation,
            context.round,
            context.attempt,
            to_bitmap(sorted(listed), len(seat.roster) + 1),
        )
        close_chains(seat, [i for i in state.adverts if i != seat.index])
        answer = self._frame(Kind.ANSWER, body, state.sid)
        self._state = ClientState(sid=state.sid, seen=state.seen)
        self._phase = after
        return (answer,)

    def _answer(
        self, decryptors: list[int], listed: dict[int, bytes], parts: list[tuple[bytes, bytes]]
    ) -> bytes:
        """Recompute the sum of the survivors' signed c1 parts, and decrypt nothing else."""
        seat, state, params = self._seat, self._state, self._params
        total = checked_sum(seat, state, params, listed, parts)
        assert state.share is not None
        weights = (1,) * DATA if params.authority else encryption.lagrange(decryptors, seat.index)
        answer = encryption.partial(state.share, total, weights, params.layout.smudging, seat.rng)
        return encode_polynomials(answer)

    def _frame(self, kind: Kind, body: bytes, binding: bytes) -> Frame:
        frame = Frame(SUITE, kind, binding[:16], self._seat.index, 0, body)
        return frame.signed(self._seat.identity.sign_key, binding)
