"""A deterministic faulty network around real sessions, for any scheme of the registry.

`World` has one method for everything that can happen to a message, a client or the server, and checks the
invariants after each; hypothesis drives it move by move. `simulate` drives it by a seed and `Faults`, over
attempts and rounds with the same ledgers. A schedule is bounded: one that does not end is an error.
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
from merveil.protocols.simulation.faults import CALM, Dice, Faults, damage
from merveil.protocols.simulation.invariants import (
    BrokenInvariant,
    check_outcome,
    check_spent,
    demand,
    testimony,
)
from merveil.protocols.simulation.party import Crash, Mode, Party
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
        policy = Policy(
            r.anchor,
            frozenset({p.scheme}),
            allow_small_cohort=True,
            corrupt=p.corrupt,
            max_weight=p.max_weight,
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
        return testimony(self.params, position, self.rng.child(label))

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


class _Schedule:
    """One attempt under faults: tasks are (client, move) before there is a message, then parcels."""

    def __init__(self, world: World, faults: Faults, dice: Dice) -> None:
        self._world, self._faults, self._dice = world, faults, dice
        self._tasks: list[tuple[int, str]] = [(i, "start") for i in world.cohort]
        dice.shuffle(self._tasks)
        self._held: list[tuple[int, Parcel]] = []  # (release step, parcel)
        self._step = 0
        n = world.params.cohort
        self._bound = 400 + 60 * n * n * len(world.scheme.phases)

    def run(self) -> None:
        idle = 0
        while not self._world.over:
            self._step += 1
            demand(self._step < self._bound, f"no end after {self._step} steps: it hangs")
            self._release()
            if self._dice.chance(self._faults.nap):
                self._world.nap()
            moved = self._dice.chance(self._faults.deadline) is False and self._move()
            idle = 0 if moved else idle + 1
            if not moved:
                demand(idle < 64, "closing phases does not end the round")
                self._world.close()
        self._drain()

    def _release(self) -> None:
        due = [p for step, p in self._held if step <= self._step]
        self._held = [(step, p) for step, p in self._held if step > self._step]
        self._world.pending += due

    def _drain(self) -> None:
        """Whatever arrives after the end changes nothing."""
        for parcel in [*self._world.pending, *(p for _, p in self._held)]:
            if parcel.to == SERVER:
                before = self._world.server.phase
                self._world.deliver(parcel)
                demand(self._world.server.phase is before, "a late message moved the server")
            else:
                self._deliver(parcel)

    def _move(self) -> bool:
        if self._tasks and (not self._world.pending or self._dice.chance(0.5)):
            index, what = self._tasks.pop(self._dice.below(len(self._tasks)))
            self._client_move(index, what)
            return True
        if not self._world.pending:
            return False
        late = self._dice.chance(self._faults.reorder)
        at = self._dice.below(len(self._world.pending)) if late else 0
        self._parcel(self._world.pending.pop(at))
        return True

    def _client_move(self, index: int, what: str) -> None:
        party = self._wake(index)
        if what == "revive":
            party.revive()
            what = "start"
        if what == "start":
            self._world.start(index, self._crash(index))
            if party.session is not None:
                self._tasks.append((index, "submit"))
        else:
            self._world.submit(index, self._crash(index))
        self._after(party)

    def _wake(self, index: int) -> Party:
        party = self._world.client(index)
        party.disk.trap = self._trap
        if party.mode is Mode.ASLEEP:
            party.resume(self._dice.chance(self._faults.rollback))
        return party

    def _trap(self) -> str:
        if not self._dice.chance(self._faults.torn):
            return ""
        self._world.count("torn")
        return self._dice.pick(("before", "after"))

    def _crash(self, index: int) -> int | None:
        if not self._dice.chance(self._faults.crash):
            return None
        return self._dice.below(self._world.params.cohort + 1)

    def _after(self, party: Party) -> None:
        if party.mode is Mode.DOWN and self._dice.chance(self._faults.revive):
            self._tasks.append((party.index, "revive"))
        elif self._dice.chance(self._faults.sleep):
            party.suspend()

    def _parcel(self, parcel: Parcel) -> None:
        faults, dice, world = self._faults, self._dice, self._world
        if dice.chance(faults.drop):
            world.count("drop")
            return
        if dice.chance(faults.delay):
            world.count("delay")
            far = dice.pick((3, 10, 40, self._bound))
            self._held.append((self._step + 1 + dice.below(far), parcel))
            return
        if dice.chance(faults.replay) and world.past:
            world.count("replay")
            self._deliver(dice.pick(world.past))
        if dice.chance(faults.tamper):
            world.count("tamper")
            self._deliver(Parcel(parcel.sender, parcel.to, damage(parcel.data, dice)))
            if dice.chance(0.5):  # else the true message still arrives, after the forged one
                return
        self._deliver(parcel)
        if dice.chance(faults.duplicate):
            world.count("duplicate")
            self._deliver(parcel)

    def _deliver(self, parcel: Parcel) -> None:
        if parcel.to == SERVER:
            if not self._world.over:
                self._world.deliver(parcel)
        elif parcel.to in self._world.cohort:
            party = self._wake(parcel.to)
            self._world.deliver(parcel, self._crash(parcel.to))
            self._after(party)


def simulate(
    scheme: str,
    *,
    cohort: int,
    dim: int,
    seed: int,
    faults: Faults = CALM,
    attempts: int = 2,
    rounds: int = 1,
    bits: int = 16,
    max_weight: int = 1,
    threshold: int | None = None,
    spare: int = 1,
) -> Result:
    """Play rounds of a scheme under faults and check every invariant; the last attempt's Result.

    attempts: most attempts a round; a retry follows an abort that released nothing, or any end where the
    dice are stubborn. The ledgers live over all attempts and rounds. Raises BrokenInvariant, or whatever a
    session must not raise; the same arguments replay the same schedule.
    """
    params = get(scheme).params(cohort, dim, bits=bits, max_weight=max_weight, threshold=threshold)
    world = World(scheme, params, seed, spare=spare)
    dice = Dice(SeededRng(seed).child("faults"))
    history: list[Result] = []
    for round_ in range(1, rounds + 1):
        for attempt in range(1, attempts + 1):
            world.begin(round_, attempt)
            _Schedule(world, faults, dice).run()
            result = world.result(history)
            history.append(result)
            if not _retry(result, faults, dice):
                break
    return history[-1]


def _retry(result: Result, faults: Faults, dice: Dice) -> bool:
    allowed = result.aborted is not None and not result.aborted.released
    return allowed or dice.chance(faults.stubborn)


__all__ = ["BrokenInvariant", "Crash", "EndState", "Parcel", "Result", "World", "simulate"]
