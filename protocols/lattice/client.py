"""Client of `lattice`: it speaks once; a member of the committee also signs one list and answers once.

MASKED: key and shares are drawn, the vector is missing. CHECK: the upload is out, and this member waits for
the survivor list. UNMASK: it signed one. DONE: nothing more will be said. Whoever is on no committee is done
with its upload. A frame that contradicts what a member knows ends its session; nothing is answered then.
"""

from collections.abc import Sequence

import numpy as np

from merveil.protocols.client import Client
from merveil.protocols.codec import Codes
from merveil.protocols.errors import AbortCode, Aborted
from merveil.protocols.frame import Frame
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
from merveil.protocols.session import SPENT, Phase, Seat, moves
from merveil.protocols.survivors import answered, check_difference, from_bitmap, signed_by

_LIVE = (Phase.MASKED, Phase.CHECK, Phase.UNMASK)
TABLE = {**moves(_LIVE, client=True), (Phase.MASKED, Event.FINISH): Phase.DONE}  # who is no member
_DUE = {Kind.SURVIVORS: Phase.CHECK, Kind.REQUEST: Phase.UNMASK}


class LatticeClient(Client[Kind, ClientState]):
    """One client, one attempt at one round."""

    TABLE, KIND, DUE, LABEL = TABLE, Kind, _DUE, b"lattice/1/snapshot"

    def __init__(self, seat: Seat, params: LatticeParams, snapshot: bytes | None = None) -> None:
        super().__init__(SUITE, seat, params)
        self._params = params
        self._members = committee(params, seat.roster, seat.context.cohort)
        if snapshot is not None:
            self._phase, self._state = ClientState.load(self._snapshot(snapshot), params.degree)

    def _blank(self) -> ClientState:
        return ClientState()

    def _open(self, after: Phase) -> Sequence[Frame]:
        """Open the round in the ledger, draw a key and share it. Nothing is sent yet."""
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

    def _has_vector(self) -> bool:
        return self._phase is not Phase.MASKED

    def _take_vector(self, codes: Codes) -> Sequence[Frame]:
        """Its frame is all that most clients ever say."""
        return self._upload(codes)

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

    def _body_limit(self) -> int:
        return max(msg.survivors_size(self._params), 2 + 66 * self._params.members)

    def _handle(self, kind: Kind, frame: Frame) -> Sequence[Frame]:
        return self._on_survivors(frame) if kind is Kind.SURVIVORS else self._on_request(frame)

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
        check_difference(seat, dealt)
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
        check_difference(seat, alive)  # another round may have been answered since this list was signed
        after = step(TABLE, SPENT, self._phase, Event.FINISH)
        answered(seat, alive)
        answer = self._frame(Kind.ANSWER, state.share)
        self._state = ClientState(seen=state.seen)
        self._phase = after
        return (answer,)

    def _signed(self, index: int, signature: bytes) -> bool:
        digest = self._seat.context.digest
        return signed_by(self._seat, SUITE, Kind.SIGNED, digest, self._state.root, index, signature)
