"""Some hundred seeded schedules of every registered scheme; `tools/soak.py` plays a hundred thousand."""

import pytest

from merveil.protocols.errors import Aborted
from merveil.protocols.ledger import Ledger
from merveil.protocols.params import Params
from merveil.protocols.plain.server import PlainServer
from merveil.protocols.registry import get, names
from merveil.protocols.rng import SeededRng
from merveil.protocols.simulation import invariants, party, world
from merveil.protocols.simulation.faults import CALM, CRASHY, HOSTILE, NAMED, Dice, Faults, damage
from merveil.protocols.simulation.invariants import BrokenInvariant, check_outcome, marked_codes, witnesses
from merveil.protocols.simulation.network import Schedule, simulate

# Neighbours so few that the policy's defaults refuse them: fast, for tests only.
INSECURE_SPARSE = Params("secagg+", 9, 5, threshold=4, corrupt=1, neighbours=6, max_weight=3)
SEEDS = range(8)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("scheme", names())
def test_every_invariant_holds(scheme: str, name: str, seed: int) -> None:
    simulate(
        scheme, cohort=3 + seed % 5, dim=1 + seed % 9, seed=seed, faults=NAMED[name], attempts=3,
        rounds=1 + seed % 3, max_weight=1 + 4 * (seed % 2),
    )  # fmt: skip


@pytest.mark.skipif("secagg+" not in names(), reason="no sparse scheme is registered")
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", NAMED)
def test_a_sparse_graph_holds_too(name: str, seed: int) -> None:
    simulate("secagg+", params=INSECURE_SPARSE, seed=seed, faults=NAMED[name], attempts=2, rounds=2)


@pytest.mark.parametrize("scheme", names())
def test_without_faults_everyone_is_in_the_sum_and_nothing_is_ignored(scheme: str) -> None:
    result = simulate(scheme, cohort=6, seed=1, faults=CALM, rounds=3)
    for r in (*result.history, result):
        assert r.outcome is not None and len(r.outcome.survivors) == 6
        assert r.counts == {"late": 0}


@pytest.mark.parametrize("scheme", names())
def test_naps_and_sleep_alone_lose_nobody(scheme: str) -> None:
    for seed in range(4):
        result = simulate(scheme, cohort=5, seed=seed, faults=Faults(sleep=1, rollback=1, nap=1, reorder=0.5))
        assert result.outcome is not None and len(result.outcome.survivors) == 5


@pytest.mark.parametrize("scheme", names())
def test_after_bad_rounds_a_good_one_has_everyone(scheme: str) -> None:
    """Crashes leave clients at different points of their chains; the next clean round must still work."""
    for seed in range(6):
        w = simulate_then_calm(scheme, seed)
        assert w.outcome is not None and w.outcome.survivors == w.cohort


def simulate_then_calm(scheme: str, seed: int) -> world.World:
    w = world.World(scheme, get(scheme).params(6, 4), seed)
    dice = Dice(SeededRng(seed))
    for round_, faults in ((1, HOSTILE), (2, CRASHY), (3, CRASHY), (4, CALM)):
        w.begin(round_, 1)
        Schedule(w, faults, dice).run()
        w.result()
    return w


@pytest.mark.parametrize("scheme", names())
def test_a_seed_replays(scheme: str) -> None:
    def play() -> object:
        r = simulate(scheme, cohort=5, seed=11, faults=HOSTILE, attempts=3, rounds=2)
        return [
            (x.counts, x.clients, str(x.aborted), x.outcome and x.outcome.survivors, x.transcript.frames)
            for x in (*r.history, r)
        ]

    assert play() == play()


@pytest.mark.parametrize("scheme", names())
def test_the_faults_happen(scheme: str) -> None:
    """A simulator that injected nothing would pass everything."""
    seen: dict[str, int] = {}
    for seed in range(25):
        r = simulate(scheme, cohort=5, seed=seed, faults=HOSTILE, attempts=2)
        for x in (*r.history, r):
            for name, count in x.counts.items():
                seen[name] = seen.get(name, 0) + count
    for name in ("drop", "delay", "duplicate", "tamper", "replay", "crash", "nap", "ignored", "late"):
        assert seen.get(name, 0) > 0, name


# The invariants can fail: each is shown a fault that it has to see.


def test_a_wrong_sum_is_seen() -> None:
    result = simulate("plain", cohort=4, seed=3)
    done = result.outcome
    assert done is not None
    codes = {i: s["codes"] for i, s in result.transcript.states.items()}
    params, cohort = result.transcript.params, tuple(sorted(codes))
    check_outcome(params, cohort, done, codes)
    spoilt = type(done)(done.codes + 1, done.survivors, {})
    fewer = type(done)(done.codes, done.survivors[1:], {})
    foreign = type(done)(done.codes, (*done.survivors, 99), {})
    for bad in (spoilt, fewer, foreign):
        with pytest.raises(BrokenInvariant):
            check_outcome(params, cohort, bad, codes)


def test_the_vectors_testify() -> None:
    for n, dim, bits in ((3, 1, 16), (9, 5, 8), (40, 8, 32)):
        params = Params("plain", n, dim, bits=bits)
        vectors = [marked_codes(params, i, SeededRng(i)) for i in range(n)]
        some = [i for i in range(n) if i % 3 != 1]
        seen = witnesses(params, sum(vectors[i] for i in some))
        if seen is not None:
            assert seen == {i: int(i in some) for i in range(n)}
            twice = witnesses(params, vectors[0] + vectors[0])
            assert twice is not None and twice[0] == 2
    assert witnesses(Params("plain", 9, 1, bits=4), vectors[0][:1]) is None


def test_a_forgetful_ledger_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that loses every write lets a client answer twice; the simulator must say so."""
    monkeypatch.setattr(
        party.Disk, "save", lambda self, data: None if self.load() else party.MemoryStore.save(self, data)
    )
    with pytest.raises(BrokenInvariant):
        for seed in range(40):
            simulate("plain", cohort=4, seed=seed, faults=CRASHY, attempts=3)


def test_a_ledger_that_forgets_old_snapshots_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def lenient(self: Ledger, session: bytes, aad: bytes, blob: bytes) -> bytes:
        self._snapshots[session.hex()] = int.from_bytes(blob[:8], "big")
        return take(self, session, aad, blob)

    take = Ledger.take_snapshot
    monkeypatch.setattr(Ledger, "take_snapshot", lenient)
    with pytest.raises(BrokenInvariant, match="old snapshot"):
        for seed in range(10):
            simulate("plain", cohort=4, seed=seed, faults=Faults(sleep=1, crash=0.5, revive=1))


def test_a_round_that_never_ends_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PlainServer, "close_phase", lambda self: ())
    with pytest.raises(BrokenInvariant, match="does not end"):
        simulate("plain", cohort=4, seed=1, faults=Faults(drop=0.9))


def test_damage_always_damages() -> None:
    dice = Dice(SeededRng(2))
    data = bytes(range(100))
    same = sum(damage(data, dice) == data for _ in range(500))
    assert same < 25, "a field may by chance get the value it had"
    assert damage(b"", dice) == b""


def test_another_exception_type_is_no_pass() -> None:
    assert not issubclass(BrokenInvariant, Aborted) and issubclass(party.Crash, Exception)
    assert invariants.BrokenInvariant is BrokenInvariant
