"""`key_release="secagg+"`: the sum of the keys by that scheme, on a complete and on a sparse graph."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from merveil.protocols.errors import AbortCode, Aborted, LocalError, RemoteError, SessionSpent
from merveil.protocols.frame import SERVER, Frame
from merveil.protocols.lattice import Lattice
from merveil.protocols.ledger import RoundState
from merveil.protocols.registry import get
from merveil.protocols.secagg.messages import Kind
from merveil.protocols.session import Phase
from merveil.protocols.simulation.faults import NAMED
from merveil.protocols.simulation.network import simulate

PHASES = get("secagg+").phases
SPARSE = replace(
    Lattice().params(9, 5, max_weight=3, key_release="secagg+"), threshold=4, corrupt=1, neighbours=6
)


@pytest.fixture
def keyed(kit: Any) -> Any:
    def build(cohort: int = 6, dim: int = 9, **options: Any) -> Any:
        k = kit("lattice", cohort=cohort, dim=dim, **options)
        k.params = Lattice().params(cohort, dim, bits=k.bits, max_weight=k.max_weight, key_release="secagg+")
        k.phases = PHASES
        return k

    return build


@pytest.mark.parametrize(
    ("cohort", "dim", "bits", "weight"), [(5, 1, 16, 1), (7, 65, 40, 1), (24, 900, 8, 5)]
)
def test_equals_the_clear_sum(keyed: Any, cohort: int, dim: int, bits: int, weight: int) -> None:
    k = keyed(cohort, dim, bits=bits, max_weight=weight)
    assert bool(k.params.neighbours) is (cohort >= 20) and k.params.members == 0
    for round_ in (1, 2):
        outcome = k.run(round=round_)
        assert outcome.survivors == k.context().cohort and outcome.excluded == {}
        assert np.array_equal(outcome.codes, k.total(outcome.survivors))


@pytest.mark.parametrize("phase", PHASES)
def test_clients_may_drop_at_every_phase_down_to_the_threshold(keyed: Any, phase: Phase) -> None:
    k = keyed(8)
    most = 8 - k.params.threshold
    who = k.context().cohort
    outcome = k.run(dict.fromkeys(who[:most], phase), round=1)
    assert np.array_equal(outcome.codes, k.total(outcome.survivors))
    late = PHASES.index(phase) > PHASES.index(Phase.MASKED)
    assert len(outcome.survivors) == (8 if late else 8 - most)
    with pytest.raises(Aborted) as caught:
        k.run(dict.fromkeys(who[: most + 1], phase), round=2)
    assert caught.value.code is AbortCode.BELOW_THRESHOLD


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize(
    "params", [Lattice().params(5, 4, key_release="secagg+"), SPARSE], ids=["all", "ring"]
)
def test_every_invariant_holds_under_faults(params: Any, name: str, seed: int) -> None:
    simulate("lattice", params=params, seed=seed, faults=NAMED[name], attempts=2, rounds=2)


def test_weak_parameters_are_refused(keyed: Any) -> None:
    k = keyed(9)
    for weak in (
        replace(k.params, threshold=4),
        replace(k.params, corrupt=0),
        replace(k.params, threshold=1, corrupt=0),
    ):
        with pytest.raises(Aborted) as caught:
            k.client(1, params=weak)
        assert caught.value.code is AbortCode.PARAMS_BELOW_FLOOR


def test_both_sides_may_sleep_at_any_time(keyed: Any) -> None:
    k = keyed(5)
    clients, server, queue = {i: k.client(i) for i in k.context().cohort}, k.server(), []
    server.start()

    def nap(i: int) -> None:
        blob = clients[i].suspend()
        with pytest.raises(SessionSpent):
            clients[i].suspend()
        clients[i] = k.client(i, snapshot=blob)
        with pytest.raises(Aborted) as caught:
            k.client(i, snapshot=blob)
        assert caught.value.code is AbortCode.STATE_ROLLBACK

    for i in clients:
        queue += clients[i].start()
        nap(i)
        queue += clients[i].submit(k.codes(i))
        nap(i)
    while server.phase is not Phase.DONE:
        f = queue.pop(0)
        if f.to == SERVER:
            server = k.server(snapshot=server.suspend())
            queue += server.receive(f.sender, f.encode())
        else:
            queue += clients[f.to].receive(SERVER, f.encode())
            if clients[f.to].phase is not Phase.DONE:
                nap(f.to)
    assert np.array_equal(server.result().codes, k.total(k.context().cohort))
    assert all(k.ledger(i).state(k.roster.federation, 1) == (1, RoundState.ANSWERED) for i in clients)


def uploads(k: Any) -> tuple[Any, dict[int, Any], dict[int, Frame]]:
    """A round stopped before the server has seen the masked frames."""
    clients, server, queue = {i: k.client(i) for i in k.context().cohort}, k.server(), []
    server.start()
    masked: dict[int, Frame] = {}
    for i, c in clients.items():
        queue += [*c.start(), *c.submit(k.codes(i))]
    while queue:
        f = queue.pop(0)
        if f.kind == Kind.MASKED:
            masked[f.sender] = f
        elif f.to == SERVER:
            queue += server.receive(f.sender, f.encode())
        else:
            queue += clients[f.to].receive(SERVER, f.encode())
    return server, clients, masked


def finish(k: Any, server: Any, clients: dict[int, Any], frames: list[Frame]) -> Any:
    queue = list(frames)
    for _ in range(1_000):
        if server.phase is Phase.DONE:
            return server.result()
        if not queue:
            queue += server.close_phase()
            continue
        f = queue.pop(0)
        party = server if f.to == SERVER else clients[f.to]
        queue += party.receive(f.sender, f.encode())
    raise AssertionError("the round does not end")


@pytest.mark.parametrize("what", ["residue", "short", "none"])
def test_a_bad_ciphertext_makes_its_signer_a_dropout(keyed: Any, what: str) -> None:
    k = keyed(6)
    server, clients, masked = uploads(k)
    bad = k.context().cohort[1]
    frame, size = masked[bad], k.params.layout.size
    body = {
        "residue": frame.body[:-size] + b"\xff" * size,
        "short": frame.body[:-4],
        "none": frame.body[:-size],
    }
    key = k.federation.identities[bad - 1].sign_key
    masked[bad] = replace(frame, body=body[what]).signed(key, clients[bad]._state.sid)
    outcome = finish(k, server, clients, list(masked.values()))
    assert bad in outcome.excluded and bad not in outcome.survivors
    assert np.array_equal(outcome.codes, k.total(outcome.survivors))


def test_a_ciphertext_under_another_key_stops_the_sum(keyed: Any) -> None:
    k = keyed(6)
    server, clients, masked = uploads(k)
    one, two = k.context().cohort[:2]
    size = k.params.layout.size
    swapped = masked[one].body[:-size] + masked[two].body[-size:]
    key = k.federation.identities[one - 1].sign_key
    frame = replace(masked[one], body=swapped).signed(key, clients[one]._state.sid)
    clients[one]._state.masked = frame.digest()
    masked[one] = frame
    with pytest.raises(Aborted) as caught:
        finish(k, server, clients, list(masked.values()))
    assert caught.value.code is AbortCode.BAD_SHARE and caught.value.released
    assert server.phase is Phase.ABORTED


def test_the_signed_list_commits_to_the_ciphertext(keyed: Any) -> None:
    """A client whose ciphertext was replaced finds another digest under its name, and signs nothing."""
    k = keyed(6)
    server, clients, masked = uploads(k)
    one = k.context().cohort[0]
    key = k.federation.identities[one - 1].sign_key
    body = masked[one].body[:-4] + bytes(4)
    if body == masked[one].body:
        body = masked[one].body[:-4] + b"\x01" + bytes(3)
    masked[one] = replace(masked[one], body=body).signed(key, clients[one]._state.sid)
    lists = []
    for f in masked.values():
        lists += server.receive(f.sender, f.encode())
    if one not in server.excluded:
        mine = next(f for f in lists if f.to == one)
        with pytest.raises(Aborted) as caught:
            clients[one].receive(SERVER, mine.encode())
        assert caught.value.code is AbortCode.ROSTER_MISMATCH


def test_secrets_go_with_the_vector(keyed: Any) -> None:
    k = keyed(5)
    _, clients, masked = uploads(k)
    assert len(masked) == 5
    for c in clients.values():
        assert c._vector is None and c._state.codes is None
    spoiled = k.client(1, round=2)
    spoiled.start()
    spoiled.submit(k.codes(1))
    with pytest.raises(RemoteError):
        spoiled.receive(SERVER, b"")
    assert spoiled._vector is not None


def test_bytes_and_options() -> None:
    p = Lattice().params(100, 1_000_000, key_release="secagg+")
    assert (p.neighbours, p.threshold, p.members, p.degree) == (32, 22, 0, 8192)
    whole = p.layout.size + 8192 * 15 // 8 + 16 + 8 * 32 + 93
    assert whole / 1_000_000 < 3.01
    with pytest.raises(LocalError, match="key_release"):
        Lattice().params(5, 5, key_release="authority")
