"""Client of the scheme `plain`: one signed frame with the packed vector in clear."""

from collections.abc import Sequence

from merveil.protocols.codec import Codes, check_codes
from merveil.protocols.errors import Aborted, RemoteError, SessionSpent
from merveil.protocols.frame import Frame, malformed
from merveil.protocols.ledger import RoundState
from merveil.protocols.machine import Event, step
from merveil.protocols.plain.messages import VECTOR, encode_vector
from merveil.protocols.session import SPENT, Phase, Seat

SUITE = 0
TABLE = {
    (Phase.IDLE, Event.START): Phase.SUBMIT,
    (Phase.SUBMIT, Event.FINISH): Phase.DONE,
    (Phase.IDLE, Event.FAIL): Phase.ABORTED,
    (Phase.SUBMIT, Event.FAIL): Phase.ABORTED,
    (Phase.IDLE, Event.SUSPEND): Phase.SUSPENDED,
    (Phase.SUBMIT, Event.SUSPEND): Phase.SUSPENDED,
}
_NONCE = 32


class PlainClient:
    """IDLE -> SUBMIT -> DONE | ABORTED."""

    def __init__(self, seat: Seat, snapshot: bytes | None = None) -> None:
        self._seat = seat
        self._phase = Phase.IDLE
        if snapshot is not None:
            state = seat.ledger.take_snapshot(seat.context.digest, _aad(seat), snapshot)
            self._phase = Phase(state.decode())

    @property
    def phase(self) -> Phase:
        return self._phase

    def _go(self, event: Event) -> None:
        self._phase = step(TABLE, SPENT, self._phase, event)

    def start(self) -> Sequence[Frame]:
        after = step(TABLE, SPENT, self._phase, Event.START)
        context = self._seat.context
        try:
            self._seat.ledger.open_round(context.federation, context.round, context.attempt)
        except Aborted:
            self._go(Event.FAIL)
            raise
        self._phase = after
        return ()

    def submit(self, codes: Codes) -> Sequence[Frame]:
        """The vector's frame. In `plain` it is the answer too, so the round is spent with it."""
        after = step(TABLE, SPENT, self._phase, Event.FINISH)
        seat, context = self._seat, self._seat.context
        check_codes(seat.params, codes)
        nonce = seat.rng.draw(_NONCE, "plain/nonce")
        body = encode_vector(seat.params, context, nonce, codes)
        frame = Frame(SUITE, VECTOR, context.digest[:16], seat.index, 0, body)
        frame = frame.signed(seat.identity.sign_key, context.digest)
        try:
            seat.ledger.advance(context.federation, context.round, context.attempt, RoundState.ANSWERED)
        except Aborted:
            self._go(Event.FAIL)
            raise
        self._phase = after
        return (frame,)

    def receive(self, sender: int, data: bytes) -> Sequence[Frame]:
        """No frame is ever due here: everything is a RemoteError naming its sender."""
        if self._phase is Phase.SUSPENDED:
            raise SessionSpent("the session was suspended: resume its snapshot")
        if sender != 0:
            raise RemoteError("a client hears only the server", (sender,))
        raise malformed("no frame is due in this scheme", sender)

    def suspend(self) -> bytes:
        phase, after = self._phase, step(TABLE, SPENT, self._phase, Event.SUSPEND)
        blob = self._seat.ledger.seal_snapshot(
            self._seat.context.digest, _aad(self._seat), phase.value.encode()
        )
        self._phase = after
        return blob


def _aad(seat: Seat) -> bytes:
    return b"plain/1" + seat.identity.member.encode()
