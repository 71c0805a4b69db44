"""Server of the scheme `plain`: it reads every vector. The positive control of every attack."""

import struct
from collections.abc import Sequence

import numpy as np

from merveil.protocols.codec import check_codes, check_sum
from merveil.protocols.errors import AbortCode, Aborted, LocalError, RemoteError, SessionSpent
from merveil.protocols.frame import Frame
from merveil.protocols.machine import Event, step
from merveil.protocols.plain.client import SUITE
from merveil.protocols.plain.messages import VECTOR, body_size, decode_vector, peek_fingerprint
from merveil.protocols.session import SPENT, Desk, Outcome, Phase
from merveil.protocols.snapshot import pack_fields, unpack_fields

TABLE = {
    (Phase.IDLE, Event.START): Phase.SUBMIT,
    (Phase.SUBMIT, Event.FINISH): Phase.DONE,
    (Phase.SUBMIT, Event.FAIL): Phase.ABORTED,
    (Phase.SUBMIT, Event.SUSPEND): Phase.SUSPENDED,
}


class PlainServer:
    """IDLE -> SUBMIT -> DONE | ABORTED."""

    def __init__(self, desk: Desk, snapshot: bytes | None = None) -> None:
        self._desk = desk
        self._phase = Phase.IDLE
        self._total = np.zeros(desk.params.size, dtype=np.int64)
        self._seen: dict[int, bytes] = {}  # index -> frame digest
        self._cohort = frozenset(desk.context.cohort)
        self.late = 0
        self.excluded: dict[int, AbortCode] = {}
        if snapshot is not None:
            self._restore(snapshot)

    @property
    def phase(self) -> Phase:
        return self._phase

    def start(self) -> Sequence[Frame]:
        self._phase = step(TABLE, SPENT, self._phase, Event.START)
        return ()

    def receive(self, sender: int, data: bytes) -> Sequence[Frame]:
        """Verify and add one vector. A fault that its sender signed excludes the sender."""
        if self._phase is Phase.IDLE:
            raise LocalError("start the session first")
        if self._phase is Phase.SUSPENDED:
            raise SessionSpent("the session was suspended: resume its snapshot")
        if sender not in self._cohort:
            raise RemoteError(f"{sender} is not in this cohort", (sender,), AbortCode.ROSTER_MISMATCH)
        params, context = self._desk.params, self._desk.context
        frame = Frame.decode(data, sender, body_size(params))
        if self._phase is not Phase.SUBMIT or sender in self.excluded:
            self.late += 1
            return ()
        if (frame.suite, frame.kind, frame.to) != (SUITE, VECTOR, 0):
            raise RemoteError("not a vector frame", (sender,), AbortCode.MALFORMED_FRAME)
        if frame.session != context.digest[:16]:
            return self._foreign(sender, frame)
        if not frame.verify(self._desk.roster.member(sender).sign_key, context.digest):
            raise RemoteError(f"frame from {sender} is not signed by it", (sender,), AbortCode.BAD_SIGNATURE)
        digest = frame.digest()
        if sender in self._seen:
            return self._again(sender, digest)
        self._add(sender, frame, digest)
        self._finish_if_complete()
        return ()

    def _foreign(self, sender: int, frame: Frame) -> Sequence[Frame]:
        code = self._desk.context.difference(peek_fingerprint(frame.body, sender)) or AbortCode.STALE_KEY
        raise RemoteError(f"{sender} is in another context", (sender,), code)

    def _again(self, sender: int, digest: bytes) -> Sequence[Frame]:
        if self._seen[sender] == digest:
            self.late += 1
            return ()
        raise RemoteError(f"{sender} signed two vectors", (sender,), AbortCode.ROUND_REUSED)

    def _add(self, sender: int, frame: Frame, digest: bytes) -> None:
        _, _, codes = decode_vector(self._desk.params, frame.body, sender)
        try:
            check_codes(self._desk.params, codes)
        except LocalError as error:
            self.excluded[sender] = error.code or AbortCode.INPUT_RANGE
            return
        self._total += codes
        self._seen[sender] = digest

    def _finish_if_complete(self) -> None:
        if len(self._seen) + len(self.excluded) == len(self._cohort):
            self.close_phase()

    def close_phase(self) -> Sequence[Frame]:
        after = step(TABLE, SPENT, self._phase, Event.FINISH)
        params = self._desk.params
        if len(self._seen) < params.threshold:
            self._phase = step(TABLE, SPENT, self._phase, Event.FAIL)
            missing = sorted(self._cohort - set(self._seen))
            raise Aborted(
                AbortCode.BELOW_THRESHOLD,
                f"{len(self._seen)} vectors of at least {params.threshold}; missing: {missing}",
                self.excluded,
                released=bool(self._seen),
            )
        try:
            check_sum(params, self._total, len(self._seen))
        except Aborted:
            self._phase = step(TABLE, SPENT, self._phase, Event.FAIL)
            raise
        self._phase = after
        return ()

    def result(self) -> Outcome:
        if self._phase is not Phase.DONE:
            raise LocalError(f"no sum in phase {self._phase.name}")
        return Outcome(self._total.copy(), tuple(sorted(self._seen)), dict(self.excluded))

    def suspend(self) -> bytes:
        after = step(TABLE, SPENT, self._phase, Event.SUSPEND)
        seen = b"".join(struct.pack(">H32s", i, d) for i, d in sorted(self._seen.items()))
        gone = b"".join(struct.pack(">H", i) + c.name.encode().ljust(32) for i, c in self.excluded.items())
        blob = pack_fields((self._desk.context.digest, self._total.astype("<i8").tobytes(), seen, gone))
        self._phase = after
        return blob

    def _restore(self, snapshot: bytes) -> None:
        context, total, seen, gone = unpack_fields(snapshot, 4)
        if context != self._desk.context.digest or len(total) != 8 * self._total.size:
            raise Aborted(AbortCode.STATE_ROLLBACK, "the snapshot belongs to another session")
        self._total = np.frombuffer(total, dtype="<i8").astype(np.int64)
        try:
            self._seen = dict(struct.iter_unpack(">H32s", seen))
            self.excluded = {i: AbortCode[c.decode().strip()] for i, c in struct.iter_unpack(">H32s", gone)}
        except (struct.error, KeyError, UnicodeDecodeError) as error:
            raise Aborted(AbortCode.STATE_ROLLBACK, "the snapshot is damaged") from error
        if not (self._seen.keys() | self.excluded.keys()) <= self._cohort:
            raise Aborted(AbortCode.STATE_ROLLBACK, "the snapshot names clients of another cohort")
        self._phase = Phase.SUBMIT
