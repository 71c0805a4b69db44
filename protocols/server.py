"""What every server session of several phases does alike: who may speak when, faults, thresholds.

A scheme adds its table, the messages it takes and the phase that each is due in, and what closing a phase
gives. A fault that a client signed excludes that client and the round goes on while the thresholds hold;
below them it aborts and says who was missing.
"""

import enum
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import ClassVar, Generic, NoReturn, Protocol, TypeVar

from merveil.protocols.errors import AbortCode, Aborted, LocalError, RemoteError, SessionSpent
from merveil.protocols.frame import Frame, malformed
from merveil.protocols.machine import Event, step
from merveil.protocols.session import SPENT, Desk, Phase

K = TypeVar("K", bound=enum.IntEnum)


class Records(Protocol[K]):
    """What a server remembers. slots: digest of the first frame of each sender and kind."""

    slots: dict[tuple[int, K], bytes]

    def withdraw(self, sender: int, kind: K) -> None:
        """Forget what `sender` said in a frame of this kind."""

    def spoken(self, phase: Phase) -> Collection[int]:
        """Who said what is due in this phase."""

    def forget(self) -> None:
        """Drop all but what the result needs."""


B = TypeVar("B", bound=Records)  # type: ignore[type-arg]


class Server(ABC, Generic[K, B]):
    """One attempt at one round, over any number of clients.

    TABLE: its moves. KIND: the scheme's message kinds. DUE: the clients' messages and the phase that each is
    due in. OPENING: the message that is bound to the context and names it. SINGLE: kinds of which a second,
    different frame in the open phase excludes its signer; of the others the first one stands. DOUBTFUL:
    faults that may follow from a frame of the server that was damaged on its way: such a frame is refused,
    but nobody is excluded for it.
    """

    TABLE: ClassVar[Mapping[tuple[Phase, Event], Phase]]
    KIND: type[K]
    DUE: Mapping[K, Phase]
    OPENING: K
    SINGLE: frozenset[K]
    DOUBTFUL: frozenset[tuple[K, AbortCode]]

    def __init__(self, suite: int, desk: Desk, book: B) -> None:
        self._suite, self._desk, self._book = suite, desk, book
        self._phase = Phase.IDLE
        self._cohort = frozenset(desk.context.cohort)
        self._ranks = {phase: rank for rank, phase in enumerate(dict.fromkeys(self.DUE.values()))}
        self.late = 0
        self.excluded: dict[int, AbortCode] = {}

    @property
    def phase(self) -> Phase:
        return self._phase

    # What a scheme adds

    @abstractmethod
    def _body_limit(self) -> int:
        """The largest body, in bytes, that a client has a reason to send."""

    @abstractmethod
    def _fingerprint(self, body: bytes, sender: int) -> bytes:
        """The context's fingerprint in the body of an opening frame. RemoteError where there is none."""

    @abstractmethod
    def _due(self) -> Collection[int]:
        """Who has something to say in this phase."""

    @abstractmethod
    def _apply(self, sender: int, kind: K, frame: Frame) -> None:
        """Take what a verified frame says. RemoteError: what its signer got wrong; it has changed nothing."""

    @abstractmethod
    def _close(self) -> Sequence[Frame]:
        """End the phase with who spoke, and give the next one's frames. The phase is a live one."""

    @abstractmethod
    def _dump(self) -> bytes:
        """A snapshot of the book, the phase and who is excluded."""

    def _session(self) -> bytes:
        """What frames after the opening one are bound to; empty while there is no session id."""
        return self._desk.context.digest

    def _admit(self, sender: int, kind: K) -> None:
        """RemoteError where a first frame of this kind is out of place, late or not."""

    # Moves

    def start(self) -> Sequence[Frame]:
        self._go(Event.START)
        return ()

    def suspend(self) -> bytes:
        after = step(self.TABLE, SPENT, self._phase, Event.SUSPEND)
        blob = self._dump()
        self._phase = after
        return blob

    def close_phase(self) -> Sequence[Frame]:
        """Go on with who answered, or abort below the threshold."""
        last = (self._phase, Event.FINISH) in self.TABLE
        step(self.TABLE, SPENT, self._phase, Event.FINISH if last else Event.ADVANCE)
        return self._close()

    def _go(self, event: Event) -> None:
        self._phase = step(self.TABLE, SPENT, self._phase, event)

    # Receiving

    def receive(self, sender: int, data: bytes) -> Sequence[Frame]:
        """Take one client's frame; the frames of the next phase once everyone due has spoken."""
        if self._phase is Phase.IDLE:
            raise LocalError("start the session first")
        if self._phase is Phase.SUSPENDED:
            raise SessionSpent("the session was suspended: resume its snapshot")
        if sender not in self._cohort:
            raise RemoteError(f"{sender} is not in this cohort", (sender,), AbortCode.ROSTER_MISMATCH)
        frame = Frame.decode(data, sender, self._body_limit())
        if frame.suite != self._suite or frame.to != 0 or frame.kind not in self.DUE:
            raise malformed("not a client's frame of this scheme", sender)
        kind = self.KIND(frame.kind)
        if self._phase in SPENT or sender in self.excluded:
            self.late += 1
            return ()
        binding = self._binding(sender, kind, frame)
        if not frame.verify(self._desk.roster.member(sender).sign_key, binding):
            raise RemoteError(f"frame from {sender} is not signed by it", (sender,), AbortCode.BAD_SIGNATURE)
        if self._duplicate(sender, kind, frame):
            return ()
        self._take(sender, kind, frame)
        return self._advance_if_complete()

    def _binding(self, sender: int, kind: K, frame: Frame) -> bytes:
        """The 32 bytes the signature is bound to; a frame of another context or session is refused."""
        context, opening = self._desk.context, kind is self.OPENING
        binding = context.digest if opening else self._session()
        if binding and frame.session == binding[:16]:
            return binding
        code = context.difference(self._fingerprint(frame.body, sender)) if opening else None
        what = "context" if opening else "session"
        raise RemoteError(f"{sender} is in another {what}", (sender,), code or AbortCode.STALE_KEY)

    def _duplicate(self, sender: int, kind: K, frame: Frame) -> bool:
        """Late and identical frames are counted; two different ones for one slot exclude their signer."""
        slot, digest = (sender, kind), frame.digest()
        first = self._book.slots.get(slot)
        if first == digest:
            self.late += 1
            return True
        if first is not None:
            if self._phase is self.DUE[kind] and kind in self.SINGLE:
                self.excluded[sender] = AbortCode.DOUBLE_CLAIM
                self._book.withdraw(sender, kind)
            else:  # the first one stands: it is in a sum, or its phase is closed
                self.late += 1
            return True
        self._admit(sender, kind)
        if self._phase is not self.DUE[kind] or sender not in self._due():
            if self._ranks[self._phase] < self._ranks[self.DUE[kind]]:
                raise malformed(f"{kind.name} is not due in phase {self._phase.name}", sender)
            self.late += 1
            return True
        self._book.slots[slot] = digest
        return False

    def _take(self, sender: int, kind: K, frame: Frame) -> None:
        """A fault that its sender signed excludes the sender; one that others may have caused is refused."""
        try:
            self._apply(sender, kind, frame)
        except RemoteError as error:
            if (kind, error.code) in self.DOUBTFUL:
                del self._book.slots[sender, kind]
                raise
            self.excluded[sender] = error.code or AbortCode.MALFORMED_FRAME

    def _advance_if_complete(self) -> Sequence[Frame]:
        if self._phase in SPENT:
            return ()
        waiting = set(self._due()) - set(self._book.spoken(self._phase)) - set(self.excluded)
        return () if waiting else self.close_phase()

    # Ending

    def _fail(self, code: AbortCode, why: str, culprits: Iterable[int] = ()) -> NoReturn:
        """No sum. Once answers were asked for, they may be out: `released` says so."""
        released = (self._phase, Event.FINISH) in self.TABLE
        self._go(Event.FAIL)
        self._book.forget()
        raise Aborted(code, why, {*culprits, *self.excluded}, released=released)

    def _enough(self, present: Iterable[int], of: Iterable[int], least: int, what: str) -> None:
        """Abort where fewer than `least` are present, and say who of `of` is missing."""
        here = set(present)
        if len(here) < least:
            missing = sorted(set(of) - here)
            why = f"{len(here)} {what}, {least} are needed; missing: {missing}"
            self._fail(AbortCode.BELOW_THRESHOLD, why)

    def _to(self, kind: K, index: int, body: bytes, binding: bytes | None = None) -> Frame:
        """A frame to one client, bound to the session if nothing else is said."""
        session = self._session() if binding is None else binding
        return Frame(self._suite, kind, session[:16], 0, index, body)
