"""A server, a cohort and the wire between them, with one method for everything that can happen.

Each move checks the invariants, so a driver only has to choose moves: `network.simulate` by a seed, the
hypothesis state machine by search.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from merveil.protocols.api import make_context, server_session
from merveil.protocols.codec import Codes
from merveil.protocols.errors import AbortCode, Aborted, RemoteError
from merveil.protocols.frame import SERVER, Frame
from merveil.protocols.identity import Coordinator, Identity, Roster
from merveil.protocols.ledger import RoundState
from merveil.protocols.params import Params
from merveil.protocols.policy import Policy
from merveil.protocols.primitives.kdf import hash_fields
from merveil.protocols.registry import get
from merveil.protocols.rng import SeededRng
from merveil.protocols.session import SPENT, Outcome, Phase
from merveil.protocols.simulation.invariants import (
    check_outcome,
    check_spent,
    demand,
    marked_codes,
)
from merveil.protocols.simulation.party import Mode, Party
from merveil.protocols.transcript import Transcript

NOW = 1_700_000_000
_DAY = 86_400
_HISTORY = 64  # delivered messages kept for replays


@dataclass(frozen=True)
class Parcel:
    """Bytes on their way. sender: whom the transport authenticated; 0 is the server."""

    sender: int
    to: int
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class EndState:
    """How a client ended an attempt. phase is None where its machine is down or its session asleep."""

    mode: Mode
    phase: Phase | None
    ledger: tuple[int, RoundState] | None
    abort: AbortCode | None


@dataclass(frozen=True)
class Result:
    """One attempt. Exactly one of outcome and aborted is set. counts: what happened, by name."""

    round: int
    attempt: int
    outcome: Outcome | None
    aborted: Aborted | None
    clients: dict[int, EndState]
    transcript: Transcript
    counts: dict[str, int]
    history: "tuple[Result, ...]" = field(default=(), repr=False)  # the attempts and rounds before


@lru_cache(maxsize=64)
def _members(size: int, seed: int) -> tuple[Roster, tuple[Identity, ...]]:
    rng = SeededRng(seed).child("federation")
    identities = tuple(Identity.generate(f"member-{i}", rng.child(f"member/{i}")) for i in range(size))
    coordinator = Coordinator.generate(rng.child("coordinator"))
    roster = coordinator.sign(
        [i.member for i in identities], serial=1, not_before=NOW - _DAY, expires=NOW + _DAY, rng=rng
    )
    return roster, identities


class World:
    """A server, a cohort and the wire between them. After `begin`, moves may come in any order.

    spare: roster members outside the cohort, so that indices and positions differ.
    """

    def __init__(self, scheme: str, params: Params, seed: int, *, spare: int = 1) -> None:
        self.scheme, self.params = get(scheme), params
        self.rng = SeededRng(seed).child("world")
        self._seed = seed
        self.roster, identities = _members(params.cohort + spare, seed % 16)
        self._parties = {i: Party(i, x, self.rng.child(f"party/{i}")) for i, x in enumerate(identities, 1)}
        self.answered: dict[int, set[int]] = {}  # round -> clients in some outcome of it
        self.past: list[Parcel] = []
        self.round = self.attempt = 0

    def begin(self, round_: int, attempt: int) -> None:
        """Open an attempt: a new server session, and clients that have not started."""
        self.round, self.attempt = round_, attempt
        p, r = self.params, self.roster
        schemes = frozenset({p.scheme})
        policy = Policy(
            r.anchor, schemes, corrupt=p.corrupt, delta=0, max_weight=p.max_weight, allow_small_cohort=True
        )
        model = hash_fields("simulation/1/model", round_.to_bytes(4, "big"))
        common: dict[str, Any] = {
            "scheme": p.scheme, "params": p, "roster": r, "model_hash": model, "config_hash": bytes(32),
            "round": round_, "attempt": attempt,
        }  # fmt: skip
        self._server_settings = common
        self.context = make_context(self.scheme, p, r, model, bytes(32), round_, attempt)
        self.cohort = self.context.cohort
        for i in self.cohort:
            self._parties[i].enter({**common, "policy": policy, "now": NOW})
        self.codes = {i: self._testimony(at, i) for at, i in enumerate(self.cohort)}
        self.submitted: dict[int, Codes] = {}
        self.pending: list[Parcel] = []
        self.frames: list[Frame] = []
        self.counts: dict[str, int] = {}
        self.outcome: Outcome | None = None
        self.aborted: Aborted | None = None
        self.server = server_session(**common)
        self._post(self.server.start())

    def _testimony(self, position: int, index: int) -> Codes:
        label = f"codes/{self.round}/{self.attempt}/{index}"
        return marked_codes(self.params, position, self.rng.child(label))

    @property
    def over(self) -> bool:
        return self.outcome is not None or self.aborted is not None

    def client(self, index: int) -> Party:
        return self._parties[index]

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def _post(self, frames: Sequence[Frame], limit: int | None = None) -> None:
        for f in frames[:limit]:
            self.frames.append(f)
            self.pending.append(Parcel(f.sender, f.to, f.encode()))

    # Moves of clients. crash: how many of the call's frames still leave before the machine stops

    def start(self, index: int, crash: int | None = None) -> None:
        self._client_sends(index, self._parties[index].start(), crash)

    def submit(self, index: int, crash: int | None = None) -> None:
        party = self._parties[index]
        if party.awake and index not in self.submitted:
            self.submitted[index] = self.codes[index]
            self._client_sends(index, party.submit(self.codes[index].copy()), crash)

    def _client_sends(self, index: int, frames: Sequence[Frame], crash: int | None) -> None:
        self._post(frames, crash)
        if crash is not None:
            self.count("crash")
            self._parties[index].crash()

    # Moves of messages

    def deliver(self, parcel: Parcel, crash: int | None = None) -> None:
        """Hand bytes to whom they are addressed to, and post what it answers."""
        self.past = [*self.past[-_HISTORY:], parcel]
        if parcel.to == SERVER:
            self._server_call(lambda: self.server.receive(parcel.sender, parcel.data), parcel.sender)
        elif parcel.to in self.cohort:
            self._client_sends(parcel.to, self._parties[parcel.to].receive(parcel.data), crash)

    # Moves of the server

    def close(self) -> None:
        """The deadline of the phase."""
        if not self.over:
            self._server_call(self.server.close_phase, SERVER)

    def nap(self) -> None:
        """The server's process is replaced by another that resumes from its snapshot."""
        if self.server.phase in SPENT or self.server.phase is Phase.IDLE:
            return
        self.count("nap")
        blob, old = self.server.suspend(), self.server
        check_spent([old])
        self.server = server_session(snapshot=blob, **self._server_settings)
        demand(self.server.phase not in SPENT, "the resumed server is spent")

    def _server_call(self, call: Callable[[], Sequence[Frame]], sender: int) -> None:
        try:
            frames = call()
        except RemoteError as error:
            demand(
                error.culprits == {sender}, f"the server blames {set(error.culprits)} for {sender}'s bytes"
            )
            self.count("ignored")
            self.count(f"ignored {error.code.name if error.code else 'without code'}")
            return
        except Aborted as error:
            demand(not self.over, "the server aborted a round that was over")
            demand(self.server.phase is Phase.ABORTED, f"aborted, but in {self.server.phase.name}")
            demand(not error.culprits, f"honest clients {set(error.culprits)} are blamed: {error}")
            self.aborted = error
            return
        self._post(frames)
        if self.server.phase is Phase.DONE and self.outcome is None:
            self._finish()

    def _finish(self) -> None:
        outcome = self.server.result()
        demand(not outcome.excluded, f"honest clients are excluded: {outcome.excluded}")
        check_outcome(self.params, self.cohort, outcome, self.submitted)
        before = self.answered.setdefault(self.round, set())
        both = before & set(outcome.survivors)
        demand(not both, f"clients {both} are in two sums of round {self.round}")
        before.update(outcome.survivors)
        self.outcome = outcome

    # The end

    def result(self, history: Sequence[Result] = ()) -> Result:
        """Check what must hold at the end of an attempt, and sum it up."""
        demand((self.outcome is None) != (self.aborted is None), "neither a sum nor an abort")
        check_spent([self.server])
        for i in self.cohort:
            self._parties[i].check_end()
        clients = {i: self._end(self._parties[i]) for i in self.cohort}
        self.counts["late"] = self.server.late
        states = {i: {"codes": c} for i, c in self.submitted.items()}
        done = self.outcome
        transcript = Transcript(
            self.params, self.context.digest, tuple(self.frames), states,
            done.survivors if done else (), done.codes if done else None,
        )  # fmt: skip
        return Result(
            self.round, self.attempt, done, self.aborted, clients, transcript, self.counts, tuple(history)
        )

    def _end(self, party: Party) -> EndState:
        phase = party.session.phase if party.session is not None else None
        return EndState(party.mode, phase, party.durable(), party.abort.code if party.abort else None)
