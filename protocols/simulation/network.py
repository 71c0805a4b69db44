"""A deterministic faulty network around real sessions, for any scheme of the registry.

`simulate` drives a `World` by a seed and `Faults`, over attempts and rounds with the same ledgers. A schedule
is bounded: one that does not end is an error.
"""

from merveil.protocols.frame import SERVER
from merveil.protocols.params import Params
from merveil.protocols.registry import get
from merveil.protocols.rng import SeededRng
from merveil.protocols.simulation.faults import CALM, Dice, Faults, damage
from merveil.protocols.simulation.invariants import demand
from merveil.protocols.simulation.party import Mode, Party
from merveil.protocols.simulation.world import Parcel, Result, World


class Schedule:
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
    cohort: int = 5,
    dim: int = 8,
    seed: int,
    faults: Faults = CALM,
    attempts: int = 2,
    rounds: int = 1,
    bits: int = 16,
    max_weight: int = 1,
    threshold: int | None = None,
    spare: int = 1,
    params: Params | None = None,
) -> Result:
    """Play rounds of a scheme under faults and check every invariant; the last attempt's Result.

    attempts: most attempts a round; a retry follows an abort that released nothing, or any end where the
    dice are stubborn. The ledgers live over all attempts and rounds. Raises BrokenInvariant, or whatever a
    session must not raise; the same arguments replay the same schedule. params: instead of the scheme's
    defaults for (cohort, dim, bits, max_weight, threshold).
    """
    if params is None:
        params = get(scheme).params(cohort, dim, bits=bits, max_weight=max_weight, threshold=threshold)
    world = World(scheme, params, seed, spare=spare)
    dice = Dice(SeededRng(seed).child("faults"))
    history: list[Result] = []
    for round_ in range(1, rounds + 1):
        for attempt in range(1, attempts + 1):
            world.begin(round_, attempt)
            Schedule(world, faults, dice).run()
            result = world.result(history)
            history.append(result)
            if not _retry(result, faults, dice):
                break
    return history[-1]


def _retry(result: Result, faults: Faults, dice: Dice) -> bool:
    allowed = result.aborted is not None and not result.aborted.released
    return allowed or dice.chance(faults.stubborn)
