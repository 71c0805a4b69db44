"""Suspend and resume in every phase on both sides; rollback, damage and foreign snapshots are refused."""

from typing import Any

import pytest

from merveil.protocols.errors import AbortCode, Aborted, LocalError, SessionSpent
from merveil.protocols.frame import Frame
from merveil.protocols.secagg.messages import Kind
from merveil.protocols.session import Phase

SERVER_KINDS = [Kind.KEYS, Kind.RELAY, Kind.SURVIVORS, Kind.REQUEST]


@pytest.mark.parametrize("scheme", ["small", "sparse"])
def test_everybody_sleeps_after_every_frame(scheme: str, play: Any, request: Any) -> None:
    kit = request.getfixturevalue(scheme)(max_weight=3)
    round_ = play(kit)

    def sleep(index: int) -> None:
        if round_.clients[index].phase is not Phase.DONE:
            round_.clients[index] = kit.client(index, snapshot=round_.clients[index].suspend())

    def tap(frame: Frame) -> tuple[Frame, ...]:
        if frame.sender == 0:
            sleep(frame.to)
        elif round_.server.phase is not Phase.DONE and frame.sender % 4 == 1:
            round_.server = kit.server(snapshot=round_.server.suspend())
        return (frame,)

    round_.tap = tap
    for index in list(round_.clients):
        sleep(index)
        round_.up(round_.clients[index].start())
        sleep(index)
        round_.up(round_.clients[index].submit(kit.codes(index)))
        sleep(index)
    gone = kit.context().cohort[-1]
    round_.tap = lambda f: () if (f.kind, f.sender) == (Kind.MASKED, gone) else tap(f)
    assert round_.finish().survivors == kit.context().cohort[:-1]
    assert not round_.aborts and not round_.refused


@pytest.mark.parametrize("kind", SERVER_KINDS)
def test_a_snapshot_resumes_once_and_only_the_newest(kind: Kind, play: Any, small: Any) -> None:
    kit = small()
    round_ = play(kit).start()
    frame = next(f for f in round_.run(kind) if f.to == 2)
    old = round_.clients[2].suspend()
    with pytest.raises(SessionSpent):
        round_.clients[2].receive(0, frame.encode())
    round_.clients[2] = kit.client(2, snapshot=old)
    new = round_.clients[2].suspend()
    for blob in (
        old,
        new[:-1],
        new + b"\x00",
        bytes(len(new)),
        new[:20] + bytes([new[20] ^ 1]) + new[21:],
        b"",
    ):
        with pytest.raises(Aborted) as error:
            kit.client(2, snapshot=blob)
        assert error.value.code is AbortCode.STATE_ROLLBACK
    for stranger in (kit.client, lambda i, snapshot: kit.client(i, attempt=2, snapshot=snapshot)):
        with pytest.raises(Aborted) as error:
            stranger(3 if stranger == kit.client else 2, snapshot=new)
        assert error.value.code is AbortCode.STATE_ROLLBACK
    round_.clients[2] = kit.client(2, snapshot=new)
    with pytest.raises(Aborted):
        kit.client(2, snapshot=new)
    assert round_.finish().survivors == (1, 2, 3, 4, 5)


def test_a_rolled_back_client_cannot_mask_or_answer_twice(play: Any, small: Any) -> None:
    """A10, A32: the snapshot from before the vector, and from before the answer, after the fact."""
    kit = small()
    round_ = play(kit).start()
    for kind in (Kind.RELAY, Kind.REQUEST):
        frame = next(f for f in round_.run(kind) if f.to == 2)
        blob = round_.clients[2].suspend()
        round_.clients[2] = kit.client(2, snapshot=blob)
        sent = round_.clients[2].receive(0, frame.encode())
        with pytest.raises(Aborted) as error:
            kit.client(2, snapshot=blob)
        assert error.value.code is AbortCode.STATE_ROLLBACK
        round_.down = [f for f in round_.down if f.to != 2]
        round_.up(sent)
    assert round_.finish().survivors == (1, 2, 3, 4, 5)


def test_after_the_vector_a_snapshot_has_no_means_to_mask_again(play: Any, small: Any) -> None:
    """Its plain text holds neither the vector, nor the seed, nor a mask key."""
    from merveil.protocols.secagg.state import ClientState

    kit = small()
    round_ = play(kit).start()
    round_.run(Kind.RELAY)
    state = round_.clients[2]._state
    secrets = [state.seed, *state.masks.values(), state.codes.astype("<i8").tobytes()]
    assert all(s in state.dump(Phase.MASKED) for s in secrets)
    round_.run(Kind.SURVIVORS)
    dump = state.dump(Phase.CHECK)
    assert not any(s in dump for s in secrets)
    assert ClientState.load(dump)[0] is Phase.CHECK


@pytest.mark.parametrize("kind", [None, *SERVER_KINDS])
def test_a_damaged_server_snapshot_is_refused(kind: Kind | None, play: Any, small: Any) -> None:
    """Any cut, and any flipped byte, gives the same state, a whole other one, or STATE_ROLLBACK."""
    kit = small(dim=2)
    round_ = play(kit).start() if kind else play(kit)
    if kind:
        round_.run(kind)
    blob = round_.server.suspend()
    with pytest.raises(SessionSpent):
        round_.server.receive(1, b"")
    again = kit.server(snapshot=blob)
    assert again.suspend() == blob
    for cut in range(0, len(blob), 7):
        with pytest.raises(Aborted) as error:
            kit.server(snapshot=blob[:cut])
        assert error.value.code is AbortCode.STATE_ROLLBACK
    for at in range(len(blob)):
        try:
            kit.server(snapshot=blob[:at] + bytes([blob[at] ^ 0x41]) + blob[at + 1 :])
        except Aborted as error:
            assert error.code is AbortCode.STATE_ROLLBACK
    with pytest.raises(Aborted) as error:
        kit.server(attempt=2, snapshot=blob)
    assert error.value.code is AbortCode.STATE_ROLLBACK


def test_suspending_where_there_is_nothing_to_suspend(play: Any, small: Any) -> None:
    kit = small()
    idle = kit.client(1).suspend()
    client = kit.client(1, snapshot=idle)
    assert client.phase is Phase.IDLE and client.start()
    with pytest.raises(LocalError):
        kit.server().suspend()
    round_ = play(kit, attempt=2).start()
    round_.finish()
    for session in (round_.server, *round_.clients.values()):
        with pytest.raises(SessionSpent):
            session.suspend()


def test_secrets_print_nowhere(play: Any, small: Any) -> None:
    kit = small()
    round_ = play(kit).start()
    round_.run(Kind.RELAY)
    client = round_.clients[2]
    state = client._state
    secrets = [state.seed, *state.masks.values(), *state.incoming.values()]
    secrets += [part for held in state.held.values() for part in held]
    shown = repr(state) + repr(client) + repr(state.held) + repr(client._seat) + repr(round_.server)
    shown += repr(kit.ledger(2)) + str(kit.ledger(2))
    for secret in secrets:
        assert repr(secret)[2:-1] not in shown and secret.hex() not in shown
    assert repr(_some_pair_keys()) == "PairKeys(...)"


def _some_pair_keys() -> Any:
    from merveil.protocols.secagg.keys import pair_keys

    return pair_keys(bytes(32), bytes(32), bytes(32), 1, 2)
