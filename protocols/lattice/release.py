"""Key release by `secagg+`: the sum of the short keys is taken by that scheme, and no committee is needed.

The protocol is `secagg+` over the N coefficients of the key, codes of 8 bits; the masked key and the
ciphertext travel in one frame, so survivors of one are survivors of the other, and the signed list commits to
both. The public polynomials are expanded from its session id. Clients stay for its five phases, and the floor
of honest inputs is that of `secagg+` (docs/secagg.md).
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from merveil.protocols.codec import Codes, check_codes
from merveil.protocols.errors import AbortCode, Aborted, LocalError, RemoteError
from merveil.protocols.frame import Frame
from merveil.protocols.lattice.constants import KEY_BITS
from merveil.protocols.lattice.encryption import Key, Total, canonical, mask, open_sum, residues
from merveil.protocols.lattice.messages import SUITE
from merveil.protocols.lattice.params import LatticeParams
from merveil.protocols.machine import Event, step
from merveil.protocols.params import Params
from merveil.protocols.secagg.client import TABLE, SecAggClient
from merveil.protocols.secagg.server import SecAggServer
from merveil.protocols.secagg.state import ClientState
from merveil.protocols.session import SPENT, Desk, Outcome, Phase, Seat
from merveil.protocols.snapshot import pack_fields, unpack_fields


def key_params(params: LatticeParams) -> Params:
    """The parameters under which keys are summed. The scheme's name keeps their context apart."""
    return Params(
        "lattice", params.cohort, params.degree, KEY_BITS, 1.0, 1, params.threshold, params.corrupt,
        params.neighbours,
    )  # fmt: skip


class KeyedClient(SecAggClient):
    """One client: its vector under a fresh key, and the key under masks that cancel."""

    LABEL = b"lattice/1/keyed-snapshot"

    def __init__(self, seat: Seat, params: LatticeParams, snapshot: bytes | None = None) -> None:
        self._own = params
        self._vector: Codes | None = None
        super().__init__(SUITE, replace(seat, params=key_params(params)))
        if snapshot is not None:
            inner, vector = unpack_fields(self._snapshot(snapshot), 2)
            if len(vector) not in (0, 8 * params.size):
                raise Aborted(AbortCode.STATE_ROLLBACK, "the snapshot is damaged")
            self._phase, self._state = ClientState.load(inner)
            self._vector = np.frombuffer(vector, dtype="<i8").astype(np.int64) if vector else None

    def submit(self, codes: Codes) -> Sequence[Frame]:
        """Hand in the vector once, at any time before it is due; the masked frame if it is due now."""
        if self._phase in SPENT or self._phase is Phase.IDLE:
            step(TABLE, SPENT, self._phase, Event.ADVANCE)
        if self._vector is not None or self._phase in (Phase.CHECK, Phase.UNMASK):
            raise LocalError("this session has its vector already")
        check_codes(self._own, codes)
        self._vector = codes.copy()
        return super().submit(Key.draw(self._own.degree, self._seat.rng).take())

    def _masked_tail(self) -> bytes:
        key, vector = self._state.codes, self._vector
        assert key is not None and vector is not None
        self._vector = None
        return mask(self._own, self._state.sid, Key(key), vector, self._seat.rng)

    def _drop(self) -> None:
        super()._drop()
        self._vector = None

    def _plaintext(self) -> bytes:
        vector = b"" if self._vector is None else self._vector.astype("<i8").tobytes()
        return pack_fields((super()._plaintext(), vector))


class KeyedServer(SecAggServer):
    """The server: it sums masked keys and ciphertexts, and opens the one sum with the other."""

    def __init__(self, desk: Desk, params: LatticeParams, snapshot: bytes | None = None) -> None:
        self._own = params
        self._sum = Total(params.layout)
        self._codes: Codes | None = None
        inner, rows = unpack_fields(snapshot, 2) if snapshot is not None else (None, b"")
        super().__init__(SUITE, replace(desk, params=key_params(params)), inner)
        if snapshot is not None:
            try:
                self._sum.load(rows)
            except ValueError as error:
                raise Aborted(AbortCode.STATE_ROLLBACK, "the snapshot is damaged") from error

    def _body_limit(self) -> int:
        return super()._body_limit() + self._own.layout.size

    def _take_masked(self, sender: int, frame: Frame) -> None:
        size = self._own.layout.size
        parts = residues(self._own.layout, frame.body[-size:]) if len(frame.body) > size else []
        if not parts or not canonical(self._own.layout, parts):
            raise RemoteError("no ciphertext of this round", (sender,), AbortCode.BAD_CIPHERTEXT)
        super()._take_masked(sender, replace(frame, body=frame.body[:-size]))
        self._book.masked[sender] = frame.digest()  # the list commits to the ciphertext too
        self._sum.add(parts)

    def _opened(self, codes: Codes) -> None:
        alive = len(self._book.masked)
        self._codes = open_sum(self._own, self._book.sid, self._sum, codes, alive)

    def suspend(self) -> bytes:
        return pack_fields((super().suspend(), self._sum.dump()))

    def result(self) -> Outcome:
        found = super().result()
        assert self._codes is not None
        return Outcome(self._codes.copy(), found.survivors, found.excluded)
