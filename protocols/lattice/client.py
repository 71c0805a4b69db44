"""Client of `lattice`: it speaks once; a member of the committee also signs one list and answers once.

MASKED: key and shares are drawn, the vector is missing. CHECK: the upload is out, and this member waits for
the survivor list. UNMASK: it signed one. DONE: nothing more will be said. Whoever is on no committee is done
with its upload. A frame that contradicts what a member knows ends its session; nothing is answered then.
"""

from collections.abc import Callable, Sequence

import numpy as np

from merveil.protocols.codec import Codes, check_codes
from merveil.protocols.errors import AbortCode, Aborted, LocalError, RemoteError
from merveil.protocols.frame import Frame, malformed
from merveil.protocols.lattice import messages as msg
from merveil.protocols.lattice import packed
from merveil.protocols.lattice.committee import Ends, committee, committee_digest, dealer_key, member_key
from merveil.protocols.lattice.encryption import Key, mask
from merveil.protocols.lattice.messages import SUITE, Kind
from merveil.protocols.lattice.params import LatticeParams
from merveil.protocols.lattice.state import ClientState
from merveil.protocols.ledger import RoundState
from merveil.protocols.machine import Event, step
from merveil.protocols.primitives.aead import open_once, seal_once
from merveil.protocols.primitives.agreement import private_key, public_bytes
from merveil.protocols.secagg.messages import from_bitmap, to_bitmap
from merveil.protocols.session import SPENT, Phase, Seat

_LIVE = (Phase.MASKED, Phase.CHECK, Phase.UNMASK)
TABLE = {
    (Phase.IDLE, Event.START): Phase.MASKED,
    (Phase.MASKED, Event.ADVANCE): Phase.CHECK,
    (Phase.MASKED, Event.FINISH): Phase.DONE,
    (Phase.CHECK, Event.ADVANCE): Phase.UNMASK,
    (Phase.UNMASK, Event.FINISH): Phase.DONE,
    **{(p, Event.FAIL): Phase.ABORTED for p in (Phase.IDLE, *_LIVE)},
    **{(p, Event.SUSPEND): Phase.SUSPENDED for p in (Phase.IDLE, *_LIVE)},
}
_DUE = {Kind.SURVIVORS: Phase.CHECK, Kind.REQUEST: Phase.UNMASK}


class LatticeClient:
    """One client, one attempt at one round."""

    def __init__(self, seat: Seat, params: LatticeParams, snapshot: bytes | None = None) -> None:
        self._seat, self._params = seat, params
        self._phase = Phase.IDLE
        self._state = ClientState()
        self._members = committee(params, seat.roster, seat.context.cohort)
        self.late = 0
        if snapshot is not None:
            plain = seat.ledger.take_snapshot(seat.context.digest, self._aad(), snapshot)
            self._phase, self._state = ClientState.load(plain, params.degree)

    @property
    def phase(self) -> Phase:
        return self._phase

    # Moves

    def start(self) -> Sequence[Frame]:
        """Open the round in the ledger, draw a key and share it. Nothing is sent yet."""
        after = step(TABLE, SPENT, self._phase, Event.START)
        return self._guarded(lambda: self._open(after))

    def _open(self, after: Phase) -> Sequence[Frame]:
        seat, context = self._seat, self._seat.context
        seat.ledger.check_bound(context.federation, context.round, "lattice/list")
        seat.ledger.open_round(context.federation, context.round, context.attempt)
        key = Key.draw(self._params.degree, seat.rng)
        ephemeral, boxes = self._deal(key.peek())
        self._state = ClientState(key.take(), ephemeral, boxes)
        self._phase = after
        return ()

    def _deal(self, secret: packed.Elements) -> tuple[bytes, bytes]:
        """(ephemeral public key, one sealed share a member, joined)."""
        seat, context = self._seat, self._seat.context
        scalar = private_key(seat.rng.draw(32, "lattice/ephemeral"))
        ephemeral, boxes = public_bytes(scalar), []
        shares = packed.share(self._params, secret, seat.rng)
        for j, member in enumerate(self._members):
            ends = Ends(context.digest, seat.index, member, ephemeral)
            static = seat.roster.member(member).agree_key
            sealing = dealer_key(ends, scalar, seat.identity.agree_key, static)
            boxes.append(seal_once(sealing, packed.encode(self._params, shares[j]), ends.aad()))
        return ephemeral, b"".join(boxes)

    def submit(self, codes: Codes) -> Sequence[Frame]:
        """The one vector of this round; its frame is all that most clients ever say."""
        if self._phase in SPENT or self._phase is Phase.IDLE:
            step(TABLE, SPENT, self._phase, Event.ADVANCE)
        if self._phase is not Phase.MASKED:
            raise LocalError("this session has its vector already")
        check_codes(self._params, codes)
        return self._guarded(lambda: self._upload(codes))

    def _upload(self, codes: Codes) -> Sequence[Frame]:
        """Mask, note it in the ledger, and forget everything it was built from.

        The ledger also notes the committee: no other one, of another roster, ever gets this round's vector.
        """
        seat, context, state = self._seat, self._seat.context, self._state
        event = Event.ADVANCE if seat.index in self._members else Event.FINISH
        after = step(TABLE, SPENT, self._phase, event)
        upload = msg.Upload(context.fingerprint, state.ephemeral, self._ciphertext(codes), state.boxes)
        digest = committee_digest(seat.roster, self._members)
        seat.ledger.bind(context.federation, context.round, "lattice/committee", digest)
        seat.ledger.advance(context.federation, context.round, context.attempt, RoundState.MASKED)
        frame = self._frame(Kind.UPLOAD, upload.encode())
        self._state = ClientState()
        self._phase = after
        return (frame,)

    def _ciphertext(self, codes: Codes) -> bytes:
        seat, secret = self._seat, self._state.secret
        assert secret is not None
        return mask(self._params, seat.context.digest, Key(secret), codes, seat.rng)

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
        if self._repeated(kind, frame):
            return ()
        frames = self._on_survivors(frame) if kind is Kind.SURVIVORS else self._on_request(frame)
        self._state.seen[kind] = frame.digest()
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
        return b"lattice/1/snapshot" + self._seat.identity.member.encode()

    def _parse(self, data: bytes) -> tuple[Kind, Frame]:
        limit = max(msg.survivors_size(self._params), 2 + 66 * self._params.members)
        frame = Frame.decode(data, 0, limit)
        if frame.suite != SUITE or frame.to != self._seat.index:
            raise malformed("another scheme's or another client's frame", 0)
        if frame.kind not in _DUE:
            raise malformed(f"kind {frame.kind} is none of the server's", 0)
        if frame.session != self._seat.context.digest[:16]:
            raise malformed("the frame belongs to another round or attempt", 0)
        return Kind(frame.kind), frame

    def _repeated(self, kind: Kind, frame: Frame) -> bool:
        """A second frame of a kind: identical means late, different means the server equivocates."""
        first = self._state.seen.get(kind)
        if first == frame.digest():
            self.late += 1
            return True
        if first is not None and self._phase is not Phase.DONE:
            raise Aborted(AbortCode.ROSTER_MISMATCH, f"two different {kind.name} frames", (0,))
        if first is not None or _DUE[kind] is not self._phase:
            raise malformed(f"{kind.name} is not due in phase {self._phase.name}", 0)
        return False

    # CHECK: a member signs one survivor list a round

    def _on_survivors(self, frame: Frame) -> Sequence[Frame]:
        seat, context, state = self._seat, self._seat.context, self._state
        bitmap, dealt = msg.decode_survivors(self._params, context.cohort, frame.body)
        if len(dealt) < self._params.threshold:
            raise Aborted(
                AbortCode.BELOW_THRESHOLD,
                f"{len(dealt)} survivors, a sum needs {self._params.threshold}",
                (0,),
            )
        if seat.index not in dealt:
            raise Aborted(AbortCode.ROSTER_MISMATCH, "this client is not on the survivor list", (0,))
        self._check_difference(set(dealt))
        total = np.zeros(self._params.blocks, dtype=np.int64)
        for dealer, part in dealt.items():
            total += self._open_box(dealer, part)
        root = msg.survivor_root(context.digest, bitmap, [d.ephemeral for d in dealt.values()])
        after = step(TABLE, SPENT, self._phase, Event.ADVANCE)
        # from here on no other list of this round, in whichever attempt (docs/lattice.md)
        own = context.attempt.to_bytes(2, "big") + root
        seat.ledger.bind(context.federation, context.round, "lattice/list", own)
        state.bitmap, state.root = bitmap, root
        state.share = packed.encode(self._params, total % self._params.field)
        self._phase = after
        return (self._frame(Kind.SIGNED, root),)

    def _open_box(self, dealer: int, part: msg.Dealt) -> packed.Elements:
        """The share that a dealer sealed for this member, in this context, and for nobody else."""
        seat = self._seat
        ends = Ends(seat.context.digest, dealer, seat.index, part.ephemeral)
        key = member_key(ends, seat.identity.agree_key, seat.roster.member(dealer).agree_key)
        plain = open_once(key, part.box, ends.aad())
        if plain is None:
            raise Aborted(AbortCode.BAD_KEY, f"the share of {dealer} is not one that it sealed here")
        found = packed.decode(self._params, plain)
        if found is None:
            raise Aborted(AbortCode.BAD_SHARE, f"the share of {dealer} is out of range", (dealer,))
        return found

    def _check_difference(self, alive: set[int]) -> None:
        """Two sums whose survivors differ by few clients tell much about those few."""
        least = self._seat.policy.min_difference
        last = self._seat.ledger.last_answered(self._seat.context.federation)
        if least and last:
            difference = len(from_bitmap(last) ^ alive)
            if 0 < difference < least:
                raise Aborted(
                    AbortCode.COHORT_TOO_SMALL,
                    f"the survivors differ by {difference} from the last set, the policy asks {least}",
                )

    # UNMASK: the one answer

    def _on_request(self, frame: Frame) -> Sequence[Frame]:
        """Give the summed share once a quorum signed the same list."""
        seat, context, state = self._seat, self._seat.context, self._state
        signatures = msg.decode_request(frame.body)
        valid = [i for i, s in signatures.items() if i in self._members and self._signed(i, s)]
        if len(valid) != len(signatures):
            raise Aborted(AbortCode.BAD_SIGNATURE, "a signature on the survivor list does not hold", (0,))
        if len(valid) < self._params.quorum:
            raise Aborted(
                AbortCode.BELOW_THRESHOLD,
                f"{len(valid)} members signed the list, the quorum is {self._params.quorum}",
                (0,),
            )
        positions = from_bitmap(state.bitmap)
        alive = {context.cohort[p] for p in positions}
        self._check_difference(alive)  # another round may have been answered since this list was signed
        after = step(TABLE, SPENT, self._phase, Event.FINISH)
        survivors = to_bitmap(sorted(alive), len(seat.roster) + 1)
        seat.ledger.answer(context.federation, context.round, context.attempt, survivors)
        answer = self._frame(Kind.ANSWER, state.share)
        self._state = ClientState(seen=state.seen)
        self._phase = after
        return (answer,)

    def _signed(self, index: int, signature: bytes) -> bool:
        """The signature of a SIGNED frame is the signature on the list: rebuild the frame it belongs to."""
        digest = self._seat.context.digest
        frame = Frame(SUITE, Kind.SIGNED, digest[:16], index, 0, self._state.root, signature)
        return frame.verify(self._seat.roster.member(index).sign_key, digest)

    def _frame(self, kind: Kind, body: bytes) -> Frame:
        digest = self._seat.context.digest
        frame = Frame(SUITE, kind, digest[:16], self._seat.index, 0, body)
        return frame.signed(self._seat.identity.sign_key, digest)
