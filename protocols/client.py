"""What every client session with a state does alike, whichever scheme: order, guards, repeats, suspension.

A scheme adds its table of phases, the messages it waits for, and what it does with each. A frame that
contradicts what this client knows ends the session with a named code; nothing is answered then.
"""

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from merveil.protocols.codec import Codes, check_codes
from merveil.protocols.errors import AbortCode, Aborted, LocalError, RemoteError
from merveil.protocols.frame import Frame, malformed
from merveil.protocols.machine import Event, step
from merveil.protocols.params import Params
from merveil.protocols.session import SPENT, Phase, Seat

K = TypeVar("K", bound=enum.IntEnum)


class State(Protocol[K]):
    """What a client remembers. seen: digests of the server's frames, by kind."""

    seen: dict[K, bytes]

    def dump(self, phase: Phase) -> bytes: ...


S = TypeVar("S", bound=State[Any])


class Client(ABC, Generic[K, S]):
    """One client, one attempt at one round.

    TABLE: its moves. KIND: the scheme's message kinds. DUE: the server's messages and the phase that each is
    due in. OPENING: the message that is bound to the context, before there is a session id, and whose handler
    tells another context apart; None where there is no session id. LABEL: binds a snapshot to the scheme.
    """

    TABLE: ClassVar[Mapping[tuple[Phase, Event], Phase]]
    KIND: type[K]
    DUE: Mapping[K, Phase]
    OPENING: K | None = None
    LABEL: ClassVar[bytes]

    def __init__(self, suite: int, seat: Seat, params: Params) -> None:
        self._suite, self._seat, self._limits = suite, seat, params
        self._phase = Phase.IDLE
        self._state = self._blank()
        self.late = 0

    @property
    def phase(self) -> Phase:
        return self._phase

    # What a scheme adds

    @abstractmethod
    def _blank(self) -> S:
        """The state of a session that has not begun, or is over."""

    @abstractmethod
    def _open(self, after: Phase) -> Sequence[Frame]:
        """Draw what the round needs, open it in the ledger, and go to `after`."""

    @abstractmethod
    def _take_vector(self, codes: Codes) -> Sequence[Frame]:
        """Keep the checked vector; its frame where it is due now."""

    @abstractmethod
    def _has_vector(self) -> bool:
        """Whether the vector was handed in, or is past being so."""

    @abstractmethod
    def _handle(self, kind: K, frame: Frame) -> Sequence[Frame]:
        """Act on a frame that is due and of this session. RemoteError must have changed nothing."""

    @abstractmethod
    def _body_limit(self) -> int:
        """The largest body, in bytes, that the server has a reason to send."""

    def _binding(self, kind: K) -> bytes:
        """The 32 bytes that frames of this kind are bound to: the context's digest, or the session id."""
        return self._seat.context.digest

    def _drop(self) -> None:
        """Forget every secret."""
        self._state = self._blank()

    # Moves

    def start(self) -> Sequence[Frame]:
        """Open the round in the ledger, and give the first frames."""
        after = step(self.TABLE, SPENT, self._phase, Event.START)
        return self._guarded(lambda: self._open(after))

    def submit(self, codes: Codes) -> Sequence[Frame]:
        """Hand in the vector once, at any time before it is due; its frame if it is due now."""
        if self._phase in SPENT or self._phase is Phase.IDLE:
            step(self.TABLE, SPENT, self._phase, Event.ADVANCE)
        if self._has_vector():
            raise LocalError("this session has its vector already")
        check_codes(self._limits, codes)
        return self._guarded(lambda: self._take_vector(codes))

    def receive(self, sender: int, data: bytes) -> Sequence[Frame]:
        """Take a frame of the server. Aborted ends the session; its `frames` are still to be sent."""
        if self._phase is Phase.IDLE:
            raise LocalError("start the session first")
        if sender != 0:
            raise RemoteError("a client hears only the server", (sender,))
        if self._phase in (Phase.ABORTED, Phase.SUSPENDED):
            step(self.TABLE, SPENT, self._phase, Event.ADVANCE)
        kind, frame = self._parse(data)
        return self._guarded(lambda: self._take(kind, frame))

    def suspend(self) -> bytes:
        """A sealed snapshot; this object is spent, and the ledger resumes the newest one once."""
        after = step(self.TABLE, SPENT, self._phase, Event.SUSPEND)
        blob = self._seat.ledger.seal_snapshot(self._seat.context.digest, self._aad(), self._plaintext())
        self._phase = after
        self._drop()
        return blob

    def _plaintext(self) -> bytes:
        return self._state.dump(self._phase)

    def _snapshot(self, blob: bytes) -> bytes:
        """What a snapshot holds; Aborted where it is not the newest one of this session."""
        return self._seat.ledger.take_snapshot(self._seat.context.digest, self._aad(), blob)

    def _aad(self) -> bytes:
        return self.LABEL + self._seat.identity.member.encode()

    def _go(self, event: Event) -> None:
        self._phase = step(self.TABLE, SPENT, self._phase, event)

    def _guarded(self, move: Callable[[], Sequence[Frame]]) -> Sequence[Frame]:
        """Run a move. RemoteError has changed nothing; all else ends the session: an abort, and a ledger that
        failed half way, after which nobody knows what is durable."""
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
                self._go(Event.FAIL)
                self._drop()

    # Frames

    def _parse(self, data: bytes) -> tuple[K, Frame]:
        frame = Frame.decode(data, 0, self._body_limit())
        if frame.suite != self._suite or frame.to != self._seat.index:
            raise malformed("another scheme's or another client's frame", 0)
        if frame.kind not in self.DUE:
            raise malformed(f"kind {frame.kind} is none of the server's", 0)
        return self.KIND(frame.kind), frame

    def _take(self, kind: K, frame: Frame) -> Sequence[Frame]:
        digest = frame.digest()
        if self._repeated(kind, frame, digest):
            return ()
        if kind is not self.OPENING and frame.session != self._binding(kind)[:16]:
            raise malformed("the frame belongs to another session", 0)
        frames = self._handle(kind, frame)
        self._state.seen[kind] = digest
        return frames

    def _repeated(self, kind: K, frame: Frame, digest: bytes) -> bool:
        """A second frame of a kind: identical means late, different means the server equivocates.

        One that was meant for another attempt is neither: it is refused and changes nothing.
        """
        first = self._state.seen.get(kind)
        if first == digest:
            self.late += 1
            return True
        ours = frame.session == self._binding(kind)[:16]
        if first is not None and ours and self._phase is not Phase.DONE:
            raise Aborted(AbortCode.ROSTER_MISMATCH, f"two different {kind.name} frames", (0,))
        if self.DUE[kind] is not self._phase:
            raise malformed(f"{kind.name} is not due in phase {self._phase.name}", 0)
        return False

    def _frame(self, kind: K, body: bytes, binding: bytes | None = None) -> Frame:
        """A signed frame to the server, bound as its kind is if nothing else is said."""
        binding = self._binding(kind) if binding is None else binding
        frame = Frame(self._suite, kind, binding[:16], self._seat.index, 0, body)
        return frame.signed(self._seat.identity.sign_key, binding)
