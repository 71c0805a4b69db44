"""A hypothesis state machine over a cohort: it looks for a sequence of moves that breaks an invariant."""

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from merveil.protocols.frame import SERVER
from merveil.protocols.registry import get, names
from merveil.protocols.rng import SeededRng
from merveil.protocols.session import SPENT
from merveil.protocols.simulation.faults import Dice, damage
from merveil.protocols.simulation.party import Mode
from merveil.protocols.simulation.world import Parcel, World

COHORT = 5
CLIENT = st.integers(0, COHORT - 1)
ANY = st.integers(0, 10_000)
LEFT = st.one_of(st.none(), st.integers(0, COHORT))


class Round(RuleBasedStateMachine):
    """Moves on a World: clients, messages, the server, and what an attacker may do to each."""

    scheme = "plain"

    @initialize(seed=st.integers(0, 50), weight=st.sampled_from([1, 5]))
    def open(self, seed: int, weight: int) -> None:
        params = get(self.scheme).params(COHORT, 6, max_weight=weight)
        self.world = World(self.scheme, params, seed)
        self.dice = Dice(SeededRng(seed).child("damage"))
        self.world.begin(1, 1)

    def _client(self, position: int) -> Any:
        party = self.world.client(self.world.cohort[position])
        if party.mode is Mode.ASLEEP:
            party.resume()
        return party

    def _take(self, at: int, keep: bool = False) -> Parcel:
        pending = self.world.pending
        return pending[at % len(pending)] if keep else pending.pop(at % len(pending))

    def _deliver(self, parcel: Parcel, crash: int | None = None) -> None:
        if parcel.to != SERVER and parcel.to not in self.world.cohort:
            return  # a replay for a member that this round did not invite
        if parcel.to != SERVER:
            self._client(self.world.cohort.index(parcel.to))
        self.world.deliver(parcel, None if parcel.to == SERVER else crash)

    @rule(position=CLIENT, left=LEFT)
    def join(self, position: int, left: int | None) -> None:
        party = self._client(position)
        if party.mode in (Mode.READY, Mode.RUNNING):
            self.world.start(party.index, left)

    @rule(position=CLIENT, left=LEFT)
    def submit(self, position: int, left: int | None) -> None:
        party = self._client(position)
        if party.awake and party.session.phase.value != "IDLE":
            self.world.submit(party.index, left)

    @rule()
    def everyone_joins(self) -> None:
        for i in range(COHORT):
            self.join(i, None)
            self.submit(i, None)

    @precondition(lambda self: self.world.pending)
    @rule(at=ANY, left=LEFT)
    def deliver(self, at: int, left: int | None) -> None:
        self._deliver(self._take(at), left)

    @rule()
    def deliver_all(self) -> None:
        for _ in range(200):
            if not self.world.pending or self.world.over:
                return
            self._deliver(self._take(0))

    @precondition(lambda self: self.world.pending)
    @rule(at=ANY)
    def drop(self, at: int) -> None:
        self._take(at)

    @precondition(lambda self: self.world.pending)
    @rule(at=ANY)
    def duplicate(self, at: int) -> None:
        self._deliver(self._take(at, keep=True))

    @precondition(lambda self: self.world.pending)
    @rule(at=ANY)
    def corrupt(self, at: int) -> None:
        parcel = self._take(at)
        self._deliver(Parcel(parcel.sender, parcel.to, damage(parcel.data, self.dice)))

    @precondition(lambda self: self.world.past)
    @rule(at=ANY)
    def replay(self, at: int) -> None:
        past = self.world.past
        self._deliver(past[at % len(past)])

    @rule(position=CLIENT)
    def suspend(self, position: int) -> None:
        self.world.client(self.world.cohort[position]).suspend()

    @rule(position=CLIENT)
    def roll_back(self, position: int) -> None:
        party = self.world.client(self.world.cohort[position])
        old = party.snapshots[:-1] if party.mode is Mode.ASLEEP else party.snapshots
        party.refuse_snapshots(old)

    @rule(position=CLIENT)
    def crash_and_revive(self, position: int) -> None:
        party = self.world.client(self.world.cohort[position])
        party.crash()
        party.revive()

    @rule()
    def server_naps(self) -> None:
        self.world.nap()

    @rule()
    def close(self) -> None:
        self.world.close()

    @precondition(lambda self: self.world.over)
    @rule(round_on=st.booleans())
    def again(self, round_on: bool) -> None:
        """Another attempt, allowed or not, or the next round: the ledgers decide who takes part."""
        w = self.world
        w.result()
        w.begin(w.round + 1, 1) if round_on else w.begin(w.round, w.attempt + 1)

    @invariant()
    def what_is_over_is_spent(self) -> None:
        if hasattr(self, "world"):
            assert not self.world.over or self.world.server.phase in SPENT

    def teardown(self) -> None:
        if hasattr(self, "world"):
            for _ in range(20):
                self.world.close()
            assert self.world.over, "closing every phase does not end the round"
            self.world.result()


@pytest.mark.parametrize("scheme", names())
def test_no_sequence_of_moves_breaks_an_invariant(scheme: str) -> None:
    machine = type(f"Round_{scheme.replace('+', '_plus')}", (Round,), {"scheme": scheme})
    case = machine.TestCase
    case.settings = settings(
        max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
    )
    case("runTest").runTest()
