"""The field of the protocol attacks: honest clients with real sessions, and an adversary in front of them.

Guarantees: the adversary holds the server and the keys of the `corrupt` clients. It gets the bytes that
honest clients send and hands them whatever bytes it likes; their sessions, vectors and keys stay behind
`Field`, and the scorer alone reads the vectors. Every refusal is kept with its code: an attack that failed
because nothing happened does not pass for a defence. Assumes: one process; secrets are drawn from the
operating system.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from merveil.fl.aggregator import SecureAggregator
from merveil.protocols.api import client_session, make_context, server_session
from merveil.protocols.context import Context
from merveil.protocols.errors import Aborted, LocalError, MerveilError, RemoteError, SessionSpent
from merveil.protocols.frame import SERVER, Frame
from merveil.protocols.identity import Coordinator, Identity, Roster
from merveil.protocols.ledger import Ledger
from merveil.protocols.params import Params
from merveil.protocols.policy import SECURE_SCHEMES, Policy
from merveil.protocols.primitives.prg import mask_range
from merveil.protocols.registry import get
from merveil.protocols.rng import Rng, SystemRng
from merveil.protocols.session import Phase

Codes = NDArray[np.int64]
FULL = 5  # times the plays of the quick form
SIZES = {"secagg+": 20}  # clients where five would not do: below 20 the graph is complete
DIM = 24


@dataclass(frozen=True)
class Build:
    """A scheme as the adversary meets it: whole, or weakened in one place by `audits.broken`.

    params: instead of the scheme's defaults for (cohort, dim, bits). client, server: session factories as
    `client_session` and `server_session`. rng: an honest client's source. enrol: how a client opens a roster.
    aggregator: scheme -> object with `mean`. policy: anchor -> a client's floor, None for the default one.
    expand: pair mask key -> words, as `mask_range`: the algorithm is public. rounds: how many are played by
    an attack on the sums of many (0: its own number). surrounded: all of the victim's neighbours collude,
    where the parameters tolerate some of them.
    """

    scheme: str
    label: str
    cohort: int = 0
    params: Callable[..., Params] | None = None
    client: Callable[..., Any] = client_session
    server: Callable[..., Any] = server_session
    ledger: Callable[[], Ledger] = Ledger
    rng: Callable[[], Rng] = SystemRng
    enrol: Callable[[bytes, bytes], Roster] = Roster.open
    aggregator: Callable[..., Any] = SecureAggregator
    policy: Callable[[bytes], Policy] | None = None
    expand: Callable[..., Any] = mask_range
    rounds: int = 0
    surrounded: bool = False

    @property
    def whole(self) -> bool:
        """Whether nothing is weakened, so that the simulator can play the scheme of the registry too."""
        return self.label == self.scheme


def sound(scheme: str) -> Build:
    """The registry's scheme with nothing changed."""
    return Build(scheme, scheme)


class Tape:
    """The generator of a corrupted client: from the operating system, and the adversary keeps each draw."""

    def __init__(self) -> None:
        self.drawn: dict[str, bytes] = {}

    def draw(self, size: int, label: str) -> bytes:
        self.drawn[label] = SystemRng().draw(size, label)
        return self.drawn[label]


@lru_cache(maxsize=8)
def people(size: int) -> tuple[tuple[Identity, ...], Roster]:
    """Identities and their signed roster, made once for each size."""
    found = tuple(Identity.generate(f"client-{i}") for i in range(1, size + 1))
    now = int(time.time())
    roster = Coordinator.generate().sign(
        [i.member for i in found], serial=1, not_before=now - 60, expires=now + 86_400, max_rounds=1000
    )
    return found, roster


class Field:
    """One federation with fresh ledgers; the adversary's handle on it. `opened` rounds share the ledgers."""

    def __init__(
        self, build: Build, rng: np.random.Generator, number: int = 0, seed: int = 0, scale: int = 1
    ) -> None:
        """number: of the play. seed: of simulated faults. scale: of what a play repeats; more with --full."""
        self.build, self.number, self._rng = build, number, rng
        self.seed, self.scale = seed, scale
        self.size = build.cohort or SIZES.get(build.scheme, 6)
        self._identities, self.roster = people(self.size)
        self._ledgers = {i: build.ledger() for i in range(1, self.size + 1)}
        self._vectors: dict[tuple[int, int], Codes] = {}
        self.corrupt: frozenset[int] = frozenset()
        self.tapes: dict[int, Tape] = {}
        self.dim, self.bits, self.max_weight = DIM, 16, 1
        self.refused: list[tuple[int, str]] = []  # (who, name of the code)

    @cached_property
    def params(self) -> Params:
        make = self.build.params or get(self.build.scheme).params
        weighted = {"max_weight": self.max_weight} if self.max_weight > 1 else {}
        return make(self.size, self.dim, bits=self.bits, **weighted)

    @property
    def honest(self) -> list[int]:
        return [i for i in range(1, self.size + 1) if i not in self.corrupt]

    def take_over(self, clients: Iterable[int]) -> None:
        """These clients are the adversary's from now on: it has their keys and their draws."""
        self.corrupt = frozenset(clients)
        self.tapes = {i: Tape() for i in self.corrupt}

    def key(self, index: int) -> Identity:
        """Long-term keys of a corrupted client."""
        if index not in self.corrupt:
            raise LookupError(f"client {index} is honest")
        return self._identities[index - 1]

    def steal(self, index: int) -> Identity:
        """The long-term keys of an honest client, taken after its rounds have closed."""
        return self._identities[index - 1]

    def policy(self, anchor: bytes | None = None) -> Policy:
        make, own = self.build.policy, anchor or self.roster.anchor
        if make is not None:
            return make(own)
        return Policy(own, frozenset({self.build.scheme}) | SECURE_SCHEMES)

    def lenient(self) -> Policy:
        """A floor that accepts the build's scheme, for the aggregator, which brings its own anchor."""
        return Policy(bytes(32), frozenset({self.build.scheme}) | SECURE_SCHEMES, max_rounds=2**31)

    def settings(self, **changes: Any) -> dict[str, Any]:
        base = {"params": self.params, "roster": self.roster, "model_hash": bytes(32)}
        return {**base, "config_hash": bytes(32), "round": 1, "attempt": 1, **changes}

    def session(self, index: int, snapshot: bytes | None = None, **changes: Any) -> Any:
        """A client's session; its own code decides whether there is one. Raises what that code raises."""
        own = {"identity": self._identities[index - 1], "ledger": self._ledgers[index]}
        extra = {} if snapshot is None else {"snapshot": snapshot}
        rng = self.tapes[index] if index in self.corrupt else self.build.rng()
        made = self.settings(**changes)
        policy = self.policy()
        scheme = made.pop("scheme", self.build.scheme)
        return self.build.client(scheme, policy=policy, rng=rng, **own, **extra, **made)

    def vector(self, index: int, which: int) -> Codes:
        """A client's vector of a number; honest ones are for its session and the scorer only."""
        if (index, which) not in self._vectors:
            p = self.params
            codes = self._rng.integers(-p.levels, p.levels + 1, p.size)
            if p.weighted:
                codes[p.dim] = self._rng.integers(1, p.max_weight + 1)
            self._vectors[index, which] = codes
        return self._vectors[index, which]

    def plant(self, index: int, which: int, codes: Codes) -> None:
        """A vector the adversary knows: its own client's, or an honest one's by the model it was sent."""
        self._vectors[index, which] = np.asarray(codes, dtype=np.int64)

    def note(self, who: int, error: MerveilError) -> None:
        code = getattr(error, "code", None)
        self.refused.append((who, code.name if code else type(error).__name__))

    def attempt(self, who: int, call: Callable[[], Any]) -> Any:
        """The call's result, or None where an honest party refused; the code is kept."""
        try:
            return call()
        except (Aborted, RemoteError, LocalError) as error:
            self.note(who, error)
            return None

    def round(self, **changes: Any) -> "Round":
        return Round(self, **changes)

    def scorer(self) -> Mapping[tuple[int, int], Codes]:
        """For the scorer: (client, number) -> the vector that its session was given."""
        return dict(self._vectors)


class Round:
    """One attempt at a round with the adversary as server: it relays by an honest server session of its own,
    keeps every frame, and may at any time hand frames of its own to a client instead.
    """

    def __init__(
        self, field_: Field, silent: Iterable[int] = (), vectors: int | None = None, **changes: Any
    ) -> None:
        """silent: clients that nothing reaches or comes from. vectors: which vectors clients hand in, the
        round's number by default."""
        self.field, self.changes = field_, changes
        made = field_.settings(**changes)
        self.number: int = made["round"]
        self.vectors = vectors or self.number
        self.context: Context = make_context(
            get(field_.build.scheme), made["params"], made["roster"], made["model_hash"],
            made["config_hash"], made["round"], made["attempt"],
        )  # fmt: skip
        self.server = field_.build.server(field_.build.scheme, **made)
        self.server.start()
        self.heard: dict[tuple[int, int], Frame] = {}  # (kind, client) -> its frame
        self.told: dict[tuple[int, int], Frame] = {}
        self.down: list[Frame] = []
        self.silent = frozenset(silent)
        self._clients: dict[int, Any] = {}

    def begin(self, late: Sequence[int] = ()) -> "Round":
        """Every client opens a session, starts and hands in its vector; `late` ones hand in none yet."""
        for i in self.context.cohort:
            if i in self.silent:
                continue
            session = self.field.attempt(i, lambda i=i: self.field.session(i, **self.changes))
            if session is not None:
                self._clients[i] = session
                self.up(self.call(i, session.start))
                if i not in late:
                    self.up(self.submit(i))
        return self

    def submit(self, i: int) -> list[Frame]:
        session = self._clients[i]
        if session.phase in (Phase.ABORTED, Phase.DONE):
            return []
        return self.call(i, lambda: session.submit(self.field.vector(i, self.vectors).copy()))

    def hand_in(self, i: int, codes: Any) -> list[Frame]:
        """A client's own program hands in this instead of its vector."""
        return self.call(i, lambda: self._clients[i].submit(codes))

    def own(self, index: int) -> Any:
        """A corrupted client's session, memory included."""
        self.field.key(index)
        return self._clients[index]

    def call(self, who: int, move: Callable[[], Sequence[Frame]]) -> list[Frame]:
        """A client's answer to a move; its refusal is kept, and its last words are part of the answer."""
        try:
            frames = list(move())
        except Aborted as error:
            self.field.note(who, error)
            frames = list(error.frames)
        except SessionSpent:  # over since an earlier refusal, which was kept
            return []
        except (RemoteError, LocalError) as error:
            self.field.note(who, error)
            return []
        for f in frames:
            self.heard[f.kind, f.sender] = f
        return frames

    def hand(self, frame: Frame) -> list[Frame]:
        """Bytes for one client."""
        self.told[frame.kind, frame.to] = frame
        session = self._clients.get(frame.to)
        if session is None:
            return []
        return self.call(frame.to, lambda: session.receive(SERVER, frame.encode()))

    def up(self, frames: Iterable[Frame]) -> None:
        """To the adversary's server session; what that refuses does not count as a client's defence."""
        for f in frames:
            if f.sender not in self.silent:
                self.down += (
                    self.field.attempt(SERVER, lambda f=f: self.server.receive(f.sender, f.encode())) or ()
                )

    def run(self, until: int | None = None) -> list[Frame]:
        """Relay honestly until frames of a kind are due to clients; those frames, or [] at the end."""
        while self.server.phase not in (Phase.DONE, Phase.ABORTED):
            if not self.down:
                self.down = list(self.field.attempt(SERVER, self.server.close_phase) or ())
                continue
            if self.down[0].kind == until:
                return self.down
            batch, self.down = self.down, []
            for f in batch:
                if f.to not in self.silent:
                    self.up(self.hand(f))
        return []

    def suspend(self, index: int) -> bytes:
        """A client's sealed snapshot, which lies in a store that the adversary reads and writes."""
        blob: bytes = self._clients.pop(index).suspend()
        return blob

    def resume(self, index: int, blob: bytes) -> bool:
        """Give a client a snapshot of the adversary's choice; whether it goes on from it."""
        made = self.field.attempt(index, lambda: self.field.session(index, blob, **self.changes))
        if made is not None:
            self._clients[index] = made
        return made is not None
