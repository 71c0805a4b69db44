"""A simulated client: its session, its durable ledger, its snapshots, and the ways it can stop."""

from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import Any

from merveil.protocols.api import client_session
from merveil.protocols.codec import Codes
from merveil.protocols.errors import AbortCode, Aborted, RemoteError, SessionSpent
from merveil.protocols.frame import Frame
from merveil.protocols.identity import Identity
from merveil.protocols.ledger import Ledger, MemoryStore, RoundState
from merveil.protocols.rng import SeededRng
from merveil.protocols.session import SPENT, ClientSession, Phase
from merveil.protocols.simulation.invariants import check_spent, demand

Entry = tuple[int, RoundState]


class Crash(Exception):
    """The simulated machine stopped; protocol code must not catch it."""


class Disk(MemoryStore):
    """A store whose machine stops on demand, just before or just after a write is durable."""

    def __init__(self) -> None:
        super().__init__()
        self.trap: Callable[[], str] = lambda: ""

    def save(self, data: bytes) -> None:
        when = self.trap()
        if when != "before":
            super().save(data)
        if when:
            raise Crash(when)


class Mode(Enum):
    """Where a client is. GONE: its session aborted. DOWN: its machine stopped."""

    READY = auto()
    RUNNING = auto()
    ASLEEP = auto()
    DOWN = auto()
    GONE = auto()


class Party:
    """One client over all attempts and rounds. Every call checks what must hold for its ledger."""

    def __init__(self, index: int, identity: Identity, rng: SeededRng) -> None:
        self.index = index
        self.identity = identity
        self.disk = Disk()
        self.mode = Mode.READY
        self.session: ClientSession | None = None
        self.abort: Aborted | None = None
        self.ignored = 0
        self.snapshots: list[bytes] = []
        self._rng = rng
        self._lives = 0
        self._settings: dict[str, Any] = {}
        self._torn = False
        self._sent: dict[tuple[int, int, int], bytes] = {}
        self.ledger = self._boot()

    def _boot(self) -> Ledger:
        self._lives += 1
        return Ledger(self.disk, self._rng.child(f"ledger/{self._lives}"))

    def enter(self, settings: dict[str, Any]) -> None:
        """Prepare for an attempt; whatever was left of the one before is lost, the ledger stays."""
        self._settings = settings
        self.snapshots, self._sent, self.abort, self.session = [], {}, None, None
        self._torn = False
        self.ledger = self._boot()
        self.mode = Mode.READY

    def durable(self) -> Entry | None:
        """(attempt, state) of this round as a restarted machine would read it."""
        copy = MemoryStore()
        copy.save(self.disk.load() or b"")
        return Ledger(copy, self._rng).state(self._settings["roster"].federation, self._settings["round"])

    def _open(self, snapshot: bytes | None = None) -> ClientSession:
        self._lives += 1
        rng = self._rng.child(f"session/{self._lives}")
        return client_session(
            identity=self.identity, ledger=self.ledger, snapshot=snapshot, rng=rng, **self._settings
        )

    def crash(self) -> None:
        """The machine stops: session and unsaved state are lost, ledger and stored snapshots are not."""
        self.session = None
        if self.mode is not Mode.ASLEEP:  # asleep, all there is lies in the snapshot
            self.mode = Mode.DOWN
        self.disk.trap = lambda: ""
        self.ledger = self._boot()

    def _call(self, call: Callable[[], Sequence[Frame]]) -> Sequence[Frame]:
        """Run one call of the session, turn its errors into states, and check the ledger's rules."""
        assert self.session is not None
        before, session = self.durable(), self.session
        try:
            frames = tuple(call())
        except RemoteError as error:
            demand(bool(error.culprits), "a RemoteError names nobody")
            self.ignored += 1
            return ()
        except Aborted as error:
            self.abort, self.mode = error, Mode.GONE
            demand(session.phase in SPENT, f"{self.index} aborted, but is in {session.phase.name}")
            frames = error.frames  # a complaint still goes out
        except Crash:
            self.crash()
            return ()
        if frames:
            self._check_sent(frames, before)
        return frames

    def _check_sent(self, frames: Sequence[Frame], before: Entry | None) -> None:
        entry, attempt = self.durable(), self._settings["attempt"]
        where = f"client {self.index} in attempt {attempt}"
        demand(before is None or before[1] != RoundState.ANSWERED, f"{where} sent after it had answered")
        demand(entry is not None and entry[0] == attempt, f"{where} sent without an entry: {entry}")
        live = self.ledger.state(self._settings["roster"].federation, self._settings["round"])
        demand(entry == live, f"{where} sent before its ledger was durable: {entry}, {live}")
        for f in frames:
            demand(f.sender == self.index, f"{where} sent a frame of {f.sender}")
            slot = (f.suite, f.kind, f.to)
            demand(self._sent.setdefault(slot, f.body) == f.body, f"{where} filled slot {slot} twice")

    # Moves of the driver

    def start(self) -> Sequence[Frame]:
        """Open the round. A used attempt, or an answered round, must be refused."""
        if self.mode is Mode.READY:
            try:
                self.session, self.mode = self._open(), Mode.RUNNING
            except Crash:
                self.crash()
        before, session = self.durable(), self.session
        if session is None or session.phase is not Phase.IDLE:
            return ()
        attempt = self._settings["attempt"]
        frames = self._call(session.start)
        if before is not None and (before[0] >= attempt or before[1] == RoundState.ANSWERED):
            demand(
                self.abort is not None and self.abort.code is AbortCode.ROUND_REUSED,
                f"client {self.index} opened attempt {attempt} after {before}",
            )
        return frames

    def submit(self, codes: Codes) -> Sequence[Frame]:
        session = self.session
        return () if session is None else self._call(lambda: session.submit(codes))

    def receive(self, data: bytes) -> Sequence[Frame]:
        session = self.session
        if session is None or session.phase is Phase.IDLE:  # nothing listens before start
            return ()
        if session.phase in SPENT:
            return self._receive_spent(session, data)
        return self._call(lambda: session.receive(0, data))

    def _receive_spent(self, session: ClientSession, data: bytes) -> Sequence[Frame]:
        phase = session.phase
        try:
            frames = session.receive(0, data)
        except (RemoteError, SessionSpent):
            frames = ()
        demand(not frames and session.phase is phase, f"client {self.index} moved in {phase.name}")
        return ()

    @property
    def awake(self) -> bool:
        return self.session is not None and self.session.phase not in SPENT

    def suspend(self) -> None:
        """Put the session to sleep; a crash in here loses the snapshot."""
        session = self.session
        if session is None or not self.awake:
            return
        try:
            blob = session.suspend()
        except Crash:
            self.crash()
            return
        demand(session.phase is Phase.SUSPENDED, "a suspended session is not in SUSPENDED")
        check_spent([session])
        self.snapshots.append(blob)
        self.session, self.mode = None, Mode.ASLEEP

    def resume(self, rollback: bool = False) -> None:
        """Wake up from the newest snapshot. rollback: try the older ones first; they must be refused."""
        if self.mode is not Mode.ASLEEP:
            return
        if rollback:
            self.refuse_snapshots(self.snapshots[:-1])
        try:
            self.session = self._open(self.snapshots[-1])
            self.mode, self._torn = Mode.RUNNING, False
        except Aborted as error:
            demand(error.code is AbortCode.STATE_ROLLBACK and self._torn, f"the newest snapshot: {error}")
            self.abort, self.mode = error, Mode.GONE
        except Crash:
            self._torn = True
            self.crash()
            self.mode = Mode.ASLEEP

    def refuse_snapshots(self, snapshots: Sequence[bytes]) -> None:
        """Old snapshots do not resume, whoever kept them."""
        for blob in snapshots:
            try:
                self._open(blob)
            except Aborted as error:
                demand(error.code is AbortCode.STATE_ROLLBACK, f"an old snapshot raised {error}")
            else:
                demand(False, f"client {self.index} resumed an old snapshot")

    def revive(self) -> None:
        """After a crash: no snapshot opens any more; a new session may try to start."""
        if self.mode is Mode.DOWN:
            self.refuse_snapshots(self.snapshots)
            self.mode = Mode.READY

    def check_end(self) -> None:
        """A session that is over stays over."""
        if self.session is not None and self.session.phase in SPENT:
            check_spent([self.session])
