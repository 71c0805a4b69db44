"""Positive control of A05: survivor lists that nobody checks, and as many answers as the server asks for."""

from collections.abc import Sequence

from merveil.protocols.frame import Frame
from merveil.protocols.secagg import messages as msg
from merveil.protocols.secagg.client import SecAggClient
from merveil.protocols.secagg.messages import Kind
from merveil.protocols.session import Phase
from merveil.protocols.survivors import from_bitmap


class UnsignedLists(SecAggClient):
    """After its vector is out it takes every list and answers every request."""

    def _repeated(self, kind: Kind, frame: Frame, digest: bytes) -> bool:
        return False

    def _on_survivors(self, frame: Frame) -> Sequence[Frame]:
        self._state.bitmap = msg.decode_survivors(frame.body, self._seat.params.cohort).bitmap
        self._phase = Phase.UNMASK
        return (self._frame(Kind.SIGNED, bytes(32), self._state.sid),)

    def _on_request(self, frame: Frame) -> Sequence[Frame]:
        cohort = self._seat.context.cohort
        alive = {cohort[p] for p in from_bitmap(self._state.bitmap)}
        revealed = [
            self._state.held[d].reveal(d, self._seat.index, 0 if d in alive else 1)
            for d in sorted(self._state.held)
        ]
        return (self._frame(Kind.ANSWER, msg.encode_answer(revealed), self._state.sid),)
