"""Interfaces of a scheme: a family of session objects that take bytes and give frames.

One session is one attempt at one round with one vector. There is no socket, clock or thread in here: the
caller delivers bytes, decides deadlines (`close_phase`) and lends an executor where work can run in parallel.
"""

import enum
import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Protocol, overload

from merveil.protocols.codec import Codes
from merveil.protocols.context import Context
from merveil.protocols.errors import AbortCode
from merveil.protocols.frame import Frame
from merveil.protocols.identity import Identity, Roster
from merveil.protocols.ledger import Ledger
from merveil.protocols.machine import Event
from merveil.protocols.params import Params
from merveil.protocols.policy import Policy
from merveil.protocols.rng import Rng


class Phase(enum.Enum):
    """Phases of all schemes; each scheme's transition table uses some of them."""

    IDLE = "IDLE"
    SUBMIT = "SUBMIT"
    KEYS = "KEYS"
    SHARES = "SHARES"
    MASKED = "MASKED"
    CHECK = "CHECK"
    UNMASK = "UNMASK"
    DONE = "DONE"
    ABORTED = "ABORTED"
    SUSPENDED = "SUSPENDED"


SPENT = frozenset({Phase.DONE, Phase.ABORTED, Phase.SUSPENDED})
FIVE = (Phase.KEYS, Phase.SHARES, Phase.MASKED, Phase.CHECK, Phase.UNMASK)  # of secagg, secagg+, ckks


def moves(live: Sequence[Phase], *, client: bool) -> dict[tuple[Phase, Event], Phase]:
    """The transition table of a session that goes through `live` in order. A client's may also fail, or be
    suspended, before it began: its start opens the round in the ledger."""
    ends = (Phase.IDLE, *live) if client else tuple(live)
    return {
        (Phase.IDLE, Event.START): live[0],
        **{(before, Event.ADVANCE): after for before, after in itertools.pairwise(live)},
        (live[-1], Event.FINISH): Phase.DONE,
        **{(phase, Event.FAIL): Phase.ABORTED for phase in ends},
        **{(phase, Event.SUSPEND): Phase.SUSPENDED for phase in ends},
    }


@dataclass(frozen=True)
class Seat:
    """What a client session is built from; `api.client_session` checks and assembles it."""

    params: Params
    context: Context
    index: int
    identity: Identity = field(repr=False)
    roster: Roster = field(repr=False)
    policy: Policy = field(repr=False)
    ledger: Ledger = field(repr=False)
    rng: Rng = field(repr=False)


@dataclass(frozen=True)
class Desk:
    """What a server session is built from. The server holds no secret and no say in the parameters."""

    params: Params
    context: Context
    roster: Roster = field(repr=False)
    executor: Executor | None = field(default=None, repr=False)


class Frames(Sequence[Frame]):
    """Frames to many clients, each built when it is asked for: a server's memory does not grow with them."""

    def __init__(self, to: Sequence[int], make: Callable[[int], Frame]) -> None:
        self._to = tuple(to)
        self._make = make

    def __len__(self) -> int:
        return len(self._to)

    @overload
    def __getitem__(self, at: int) -> Frame: ...

    @overload
    def __getitem__(self, at: slice) -> "Frames": ...

    def __getitem__(self, at: int | slice) -> "Frame | Frames":
        if isinstance(at, slice):
            return Frames(self._to[at], self._make)
        return self._make(self._to[at])


@dataclass(frozen=True)
class Outcome:
    """The exact sum of what the survivors' sessions submitted.

    codes: signed, shape (size,). survivors: ascending roster indices. excluded: who broke
    the protocol, with its code; one whose vector had been added by then is a survivor all the same.
    """

    codes: Codes = field(repr=False)
    survivors: tuple[int, ...]
    excluded: dict[int, AbortCode]


class ClientSession(Protocol):
    """A client's side. Every method that raises LocalError or RemoteError has changed nothing."""

    @property
    def phase(self) -> Phase: ...

    def start(self) -> Sequence[Frame]:
        """Open the round in the ledger; the first frames. Raises Aborted (ROUND_REUSED)."""

    def submit(self, codes: Codes) -> Sequence[Frame]:
        """The one vector of this round: int64, shape (size,), as Codec.encode makes it."""

    def receive(self, sender: int, data: bytes) -> Sequence[Frame]:
        """Bytes from the sender whom the transport authenticated (0: the server)."""

    def suspend(self) -> bytes:
        """A sealed snapshot; this object is spent, and the snapshot resumes once."""


class ServerSession(Protocol):
    """The server's side: O(d) state however many clients there are."""

    late: int  # frames for a phase that was closed, and identical duplicates: counted, not faults
    excluded: dict[int, AbortCode]  # clients left out for a fault they signed

    @property
    def phase(self) -> Phase: ...

    def start(self) -> Sequence[Frame]: ...

    def receive(self, sender: int, data: bytes) -> Sequence[Frame]: ...

    def close_phase(self) -> Sequence[Frame]:
        """The caller's timer ran out: go on with who answered, or abort below the threshold."""

    def result(self) -> Outcome:
        """The sum, or LocalError while the round is not done."""

    def suspend(self) -> bytes:
        """State for a restart; it holds no client secret that the server has not received already."""


class Scheme(Protocol):
    """One entry of the registry."""

    name: str
    suite: int  # identifies the scheme in a frame
    version: int
    phases: tuple[Phase, ...]  # message phases in order; clients answer in the last

    def params(
        self,
        cohort: int,
        dim: int,
        *,
        bits: int = 16,
        clip: float = 1.0,
        max_weight: int = 1,
        threshold: int | None = None,
    ) -> Params:
        """Default parameters for a cohort; LocalError where no secure choice exists."""

    def check_policy(self, params: Params, policy: Policy) -> None:
        """The scheme's own part of a policy check."""

    def client(self, seat: Seat, snapshot: bytes | None = None) -> ClientSession: ...

    def server(self, desk: Desk, snapshot: bytes | None = None) -> ServerSession: ...
