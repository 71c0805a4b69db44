"""Every registered scheme's sessions: any bytes give frames, RemoteError or Aborted; nothing else escapes.

A RemoteError must have changed nothing: afterwards the round goes on to its exact sum.
"""

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from merveil.protocols.errors import Aborted, LocalError, RemoteError
from merveil.protocols.frame import SERVER, Frame
from merveil.protocols.registry import get, names
from merveil.protocols.rng import SeededRng
from merveil.protocols.session import SPENT
from merveil.protocols.simulation.faults import Dice, damage

QUIET = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def fuzzed_round(k: Any, dice: Dice, rate: float) -> tuple[Any, set[int]]:
    """Play a round; before each true frame, its receiver may get a damaged one. Who aborted is returned."""
    clients = {i: k.client(i) for i in k.context().cohort}
    server, gone = k.server(), set()
    queue: list[Frame] = list(server.start())
    for i, c in clients.items():
        queue += [*c.start(), *c.submit(k.codes(i))]
    for _ in range(5_000):
        if server.phase in SPENT:
            return server, gone
        if not queue:
            queue += server.close_phase()
            continue
        f = queue.pop(0)
        data, party = f.encode(), server if f.to == SERVER else clients[f.to]
        if dice.chance(rate):
            try:
                queue += party.receive(f.sender, damage(data, dice))
            except RemoteError as error:
                assert error.culprits
            except Aborted as error:
                assert f.to != SERVER, f"damaged bytes of one client ended the round: {error}"
                queue += error.frames
                gone.add(f.to)
        if f.to == SERVER and server.phase not in SPENT:
            queue += server.receive(f.sender, data)
        elif f.to != SERVER and f.to not in gone:
            queue += party.receive(f.sender, data)
    raise AssertionError("the round does not end")


@pytest.mark.parametrize("scheme", names())
@pytest.mark.parametrize("seed", range(25))
def test_damaged_frames_before_every_true_one(kit: Any, scheme: str, seed: int) -> None:
    k = kit(scheme, cohort=6, dim=5, max_weight=3)
    try:
        server, gone = fuzzed_round(k, Dice(SeededRng(seed)), 0.5)
    except Aborted:
        return
    outcome = server.result()
    assert not outcome.excluded, "nobody is excluded for what the network did"
    assert np.array_equal(outcome.codes, k.total(outcome.survivors))
    assert gone or outcome.survivors == k.context().cohort


@pytest.mark.parametrize("scheme", names())
@QUIET
@given(data=st.data())
def test_any_bytes_at_any_party(kit: Any, scheme: str, data: st.DataObject) -> None:
    k = kit(scheme, cohort=5, dim=3)
    server, client = k.server(), k.client(2)
    server.start()
    client.start()
    suites = st.sampled_from([get(n).suite for n in names()])
    context = k.context().digest[:16]
    for _ in range(5):
        raw = data.draw(st.binary(max_size=200))
        frame = Frame(data.draw(suites), data.draw(st.integers(0, 12)), context, SERVER, 2, raw)
        own = Frame(frame.suite, frame.kind, context, 3, SERVER, raw)
        signed = own.signed(k.federation.identities[2].sign_key, k.context().digest)
        for call in (
            lambda raw=raw: server.receive(3, raw),
            lambda signed=signed: server.receive(3, signed.encode()),
            lambda raw=raw: client.receive(SERVER, raw),
            lambda frame=frame: client.receive(SERVER, frame.encode()),
        ):
            try:
                call()
            except (RemoteError, Aborted):
                continue
            except LocalError:
                assert client.phase in SPENT or server.phase in SPENT


@pytest.mark.parametrize("scheme", names())
def test_signed_nonsense_excludes_its_signer_or_is_ignored(kit: Any, scheme: str) -> None:
    """Bodies that a member signs itself, of every kind: the others' sum comes out all the same."""
    for kind in range(8):
        for body in (b"", bytes(7), b"\xff" * 80, bytes(200)):
            k = kit(scheme, cohort=8, dim=4)
            bad, server = k.context().cohort[0], k.server()
            clients = {i: k.client(i) for i in k.context().cohort}
            queue: list[Frame] = list(server.start())
            nonsense = Frame(get(scheme).suite, kind, k.context().digest[:16], bad, SERVER, body)
            signed = nonsense.signed(k.federation.identities[bad - 1].sign_key, k.context().digest)
            try:
                queue += server.receive(bad, signed.encode())
            except RemoteError as error:
                assert error.culprits == {bad}
            for i, c in clients.items():
                if i != bad:
                    queue += [*c.start(), *c.submit(k.codes(i))]
            for _ in range(5_000):
                if server.phase in SPENT:
                    break
                if not queue:
                    queue += server.close_phase()
                    continue
                f = queue.pop(0)
                party = server if f.to == SERVER else clients[f.to]
                queue += party.receive(f.sender, f.encode())
            outcome = server.result()
            assert bad not in outcome.survivors
            assert np.array_equal(outcome.codes, k.total(outcome.survivors))
