"""Dropouts at every phase boundary and inside phases; below the threshold the missing are named."""

from collections.abc import Callable
from typing import Any

import pytest

from merveil.protocols.errors import AbortCode, Aborted
from merveil.protocols.frame import Frame
from merveil.protocols.secagg.messages import Kind, decode_key_list, decode_relay
from merveil.protocols.session import Phase
from merveil.protocols.simulation.driver import Traffic

PHASES = [Phase.KEYS, Phase.SHARES, Phase.MASKED, Phase.CHECK, Phase.UNMASK]


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("scheme, gone", [("small", (2,)), ("sparse", (3, 17))])
def test_a_dropout_at_a_boundary(phase: Phase, scheme: str, gone: tuple[int, ...], request: Any) -> None:
    kit = request.getfixturevalue(scheme)(max_weight=4)
    outcome = kit.run(drop=dict.fromkeys(gone, phase))
    late = phase in (Phase.CHECK, Phase.UNMASK)
    expected = [i for i in kit.context().cohort if late or i not in gone]
    assert outcome.survivors == tuple(expected) and not outcome.excluded
    assert (outcome.codes == kit.total(outcome.survivors)).all()


@pytest.mark.parametrize("phase", PHASES)
def test_one_dropout_too_many_aborts_and_names_the_missing(phase: Phase, small: Callable[..., Any]) -> None:
    with pytest.raises(Aborted) as error:
        small().run(drop={2: phase, 4: phase})
    assert error.value.code is AbortCode.BELOW_THRESHOLD and not error.value.culprits
    assert "missing: [2, 4]" in str(error.value)
    assert error.value.released is (phase is Phase.UNMASK)


@pytest.mark.parametrize("kind", [Kind.KEYS, Kind.RELAY, Kind.SURVIVORS, Kind.REQUEST])
def test_a_dropout_inside_a_phase(kind: Kind, play: Any, small: Callable[..., Any]) -> None:
    """The server's frame never arrives, so the client stays silent after the phase began."""

    def tap(frame: Frame) -> tuple[Frame, ...]:
        return () if (frame.kind, frame.to) == (kind, 3) else (frame,)

    round_ = play(small(), tap).start()
    outcome = round_.finish()
    assert (3 in outcome.survivors) is (kind in (Kind.SURVIVORS, Kind.REQUEST))


def _lonely(kit: Any) -> tuple[int, tuple[int, ...]]:
    """A client and so many of its neighbours that it alone lacks a holder.

    On a ring that takes the two next to it and two at either end of its neighbourhood: whoever else stays
    then misses two of them. Otherwise the loss of one client takes the next with it.
    """
    order, half = kit.client(1)._graph._order, kit.params.neighbours // 2
    near = [-1, 1, -half, 1 - half, half - 1, half, *range(3, half - 1, 2)]
    gone = near[: kit.params.neighbours - kit.params.threshold + 1]
    return order[half], tuple(order[half + at] for at in gone)


@pytest.mark.parametrize("phase", [Phase.KEYS, Phase.SHARES])
def test_one_unlucky_client_does_not_end_the_round(phase: Phase, sparse: Callable[..., Any]) -> None:
    """It becomes a dropout while nothing of it is masked; after MASKED that is no longer possible."""
    kit = sparse(cohort=100, dim=3)
    victim, gone = _lonely(kit)
    traffic = Traffic(frames=[])
    outcome = kit.run(drop=dict.fromkeys(gone, phase), traffic=traffic)
    assert set(outcome.survivors) == set(kit.context().cohort) - {victim, *gone}
    for frame in traffic.frames or ():
        if frame.kind == Kind.KEYS and phase is Phase.KEYS:
            assert victim not in decode_key_list(frame.body, 100).adverts
        if frame.kind == Kind.RELAY:
            assert victim not in decode_relay(frame.body, 5)
    assert (outcome.codes == kit.total(outcome.survivors)).all() and not outcome.excluded


def test_after_masking_an_unlucky_client_ends_the_round(sparse: Callable[..., Any]) -> None:
    kit = sparse(cohort=100, dim=3)
    victim, gone = _lonely(kit)
    with pytest.raises(Aborted) as error:
        kit.run(drop=dict.fromkeys(gone, Phase.MASKED))
    assert error.value.code is AbortCode.BELOW_THRESHOLD
    assert f"client {victim} has 21 holders that sent a vector" in str(error.value)
    assert not error.value.released


def test_a_late_vector_is_never_added(play: Any, small: Callable[..., Any]) -> None:
    held: list[Frame] = []

    def tap(frame: Frame) -> tuple[Frame, ...]:
        if (frame.kind, frame.sender) == (Kind.MASKED, 2):
            held.append(frame)
            return ()
        return (frame,)

    round_ = play(small(), tap).start()
    round_.run(Kind.REQUEST)
    before = round_.server.late
    round_.put(held[0])
    assert round_.server.late == before + 1
    assert 2 not in round_.finish().survivors


def test_frames_that_are_built_late_are_whole(play: Any, small: Callable[..., Any]) -> None:
    """The deadline of SHARES passes while relays still wait to be sent."""
    round_ = play(small()).start()
    round_.run(Kind.KEYS)
    batch, round_.down = round_.down, []
    server, relays = round_.server, []
    for frame in batch:
        for sent in round_.clients[frame.to].receive(0, frame.encode()):
            relays = server.receive(sent.sender, sent.encode()) or relays
    for at in range(4):
        for sent in round_.clients[relays[at].to].receive(0, relays[at].encode()):
            server.receive(sent.sender, sent.encode())
    server.close_phase()
    assert relays[4].body and len(relays[4].body) == len(relays[0].body)


def test_without_dropouts_no_phase_waits_for_a_deadline(play: Any, sparse: Callable[..., Any]) -> None:
    round_ = play(sparse()).start()
    closed: list[int] = []
    round_.server.close_phase, original = lambda: (closed.append(1), original())[1], round_.server.close_phase
    assert len(round_.finish().survivors) == 24
