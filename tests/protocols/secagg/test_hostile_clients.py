"""What malicious clients can do to a round: fall out of it, or end it under their own name."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from merveil.protocols.errors import AbortCode, Aborted, LocalError, RemoteError, SessionSpent
from merveil.protocols.frame import Frame
from merveil.protocols.primitives import merkle
from merveil.protocols.primitives.shamir import PRIME, SHARE
from merveil.protocols.secagg import messages as msg
from merveil.protocols.secagg.dealing import Dealing
from merveil.protocols.secagg.messages import Kind
from merveil.protocols.session import Phase

CLIENT_KINDS = [Kind.ADVERT, Kind.SHARES, Kind.MASKED, Kind.SIGNED, Kind.ANSWER]


def spoil(play: Any, kit: Any, kind: Kind, sender: int, change: Callable[[Any, Frame], Frame]) -> Any:
    """A round in which one client's frame of a kind is changed and signed again by that client."""
    round_ = play(kit)

    def tap(frame: Frame) -> Iterable[Frame]:
        if (frame.kind, frame.sender) == (kind, sender):
            return (change(round_, frame),)
        return (frame,)

    round_.tap = tap
    return round_.start()


def with_body(change: Callable[[bytes], bytes]) -> Callable[[Any, Frame], Frame]:
    return lambda round_, frame: round_.sign(frame, body=change(frame.body))


def flipped(at: int) -> Callable[[bytes], bytes]:
    return lambda body: body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]


# ADVERT


@pytest.mark.parametrize("key", [bytes(32), (2**255 - 19).to_bytes(32, "little"), b"\xff" * 32])
def test_an_advert_with_a_low_order_or_second_encoding_of_a_key(key: bytes, play: Any, small: Any) -> None:
    at = 48 + msg.NONCE
    change = with_body(lambda body: body[:at] + key + body[at + 32 :])
    outcome = spoil(play, small(), Kind.ADVERT, 2, change).finish()
    assert outcome.excluded == {2: AbortCode.BAD_KEY} and outcome.survivors == (1, 3, 4, 5)


@pytest.mark.parametrize("size", [0, 47, 175, 177])
def test_an_advert_of_another_length(size: int, play: Any, small: Any) -> None:
    change = with_body(lambda body: (body + bytes(9))[:size])
    outcome = spoil(play, small(), Kind.ADVERT, 2, change).finish()
    assert outcome.excluded == {2: AbortCode.MALFORMED_FRAME}


def test_an_advert_whose_fingerprint_and_session_disagree(play: Any, small: Any) -> None:
    outcome = spoil(play, small(), Kind.ADVERT, 2, with_body(flipped(3))).finish()
    assert outcome.excluded == {2: AbortCode.MALFORMED_FRAME}


@pytest.mark.parametrize(
    "changes, code",
    [
        ({"model_hash": b"m" * 32}, AbortCode.MODEL_MISMATCH),
        ({"config_hash": b"c" * 32}, AbortCode.MODEL_MISMATCH),
        ({"round": 2}, AbortCode.STALE_KEY),
        ({"attempt": 2}, AbortCode.STALE_KEY),
    ],
)
def test_a_client_of_another_context_is_named_and_left_out(
    changes: Any, code: AbortCode, play: Any, small: Any
) -> None:
    kit = small()
    round_ = play(kit)
    round_.clients[2] = kit.client(2, **changes)
    round_.start()
    (error,) = round_.refused
    assert (error.code, error.culprits) == (code, {2})
    outcome = round_.finish()
    assert outcome.survivors == (1, 3, 4, 5) and not outcome.excluded


def test_a_client_with_other_parameters(play: Any, small: Any) -> None:
    kit = small()
    round_ = play(kit)
    round_.clients[2] = kit.client(2, params=replace(kit.params, bits=12))
    (frame,) = round_.clients[2].start()
    with pytest.raises(RemoteError) as error:
        round_.server.receive(2, frame.encode())
    assert error.value.code is AbortCode.PARAMS_MISMATCH


# SHARES


@pytest.mark.parametrize("at", [0, 32 * 4])
def test_nodes_that_contradict_the_advert(at: int, play: Any, small: Any) -> None:
    outcome = spoil(play, small(), Kind.SHARES, 2, with_body(flipped(at))).finish()
    assert outcome.excluded == {2: AbortCode.BAD_SHARE} and outcome.survivors == (1, 3, 4, 5)


@pytest.mark.parametrize("change", [lambda b: b[:-1], lambda b: b + b"\x00", lambda b: b""])
def test_shares_of_another_length_are_refused(change: Any, play: Any, small: Any) -> None:
    """Nobody is excluded: a damaged KEYS frame may stand behind it. The true frame is still welcome."""
    round_ = spoil(play, small(), Kind.SHARES, 2, with_body(change))
    outcome = round_.finish()
    assert outcome.survivors == (1, 3, 4, 5) and not outcome.excluded
    assert [e.culprits for e in round_.refused] == [{2}]
    truth: list[Frame] = []

    def both(round_: Any, frame: Frame) -> Frame:
        truth.append(frame)
        return round_.sign(frame, body=change(frame.body))

    round_ = spoil(play, small(), Kind.SHARES, 2, both)
    for frame in round_.run(Kind.KEYS):
        round_.hand(frame)
    assert round_.server.phase is Phase.SHARES
    round_.down = []
    round_.put(truth[0])
    assert round_.finish().survivors == (1, 2, 3, 4, 5)


def _spoil_held(holder: int, **changes: Any) -> Callable[[Dealing], Dealing]:
    def change(dealing: Dealing) -> Dealing:
        return replace(dealing, held={**dealing.held, holder: dealing.held[holder]._replace(**changes)})

    return change


@pytest.mark.parametrize(
    "changes",
    [
        {"seed_share": bytes(SHARE)},
        {"key_share": bytes(SHARE)},
        {"seed_salt": bytes(16)},
        {"key_share": PRIME.to_bytes(SHARE, "big")},
    ],
)
def test_a_bad_share_in_a_box_convicts_its_dealer(
    changes: Any, play: Any, small: Any, corrupt_dealing: Any
) -> None:
    """The holder complains before it masks anything; the server opens the box and names the dealer."""
    corrupt_dealing(_spoil_held(4, **changes), 2)
    round_ = play(small()).start()
    with pytest.raises(Aborted) as error:
        round_.finish()
    assert (error.value.code, error.value.culprits) == (AbortCode.BAD_SHARE, {2})
    assert not error.value.released
    own = round_.aborts[4]
    assert (own.code, own.culprits, own.released) == (AbortCode.BAD_SHARE, {2}, False)
    assert not [f for f in round_.log if (f.kind, f.sender) == (Kind.MASKED, 4)]


def test_a_committed_share_that_is_no_field_element(play: Any, small: Any, corrupt_dealing: Any) -> None:
    """The tree fits, so only the share's form tells."""

    def change(dealing: Dealing) -> Dealing:
        held = {**dealing.held, 4: dealing.held[4]._replace(seed_share=PRIME.to_bytes(SHARE, "big"))}
        tree = merkle.flat_tree([held[h].node(2, h) for h in sorted(held)])
        advert = dealing.advert._replace(share_root=merkle.root(tree))
        return replace(dealing, held=held, tree=tree, advert=advert)

    corrupt_dealing(change, 2)
    round_ = play(small()).start()
    with pytest.raises(Aborted) as error:
        round_.finish()
    assert (error.value.code, error.value.culprits) == (AbortCode.BAD_SHARE, {2})


def test_garbage_in_a_box_names_nobody(play: Any, small: Any) -> None:
    """It may be the server's garbage; the receiver falls out, the others go on."""
    round_ = spoil(play, small(), Kind.SHARES, 2, with_body(flipped(32 * 5 + 7)))
    outcome = round_.finish()
    (index,) = round_.aborts
    assert (round_.aborts[index].code, round_.aborts[index].culprits) == (AbortCode.BAD_KEY, frozenset())
    assert outcome.survivors == tuple(i for i in range(1, 6) if i != index) and not outcome.excluded


# MASKED and COMPLAINT


@pytest.mark.parametrize(
    "change, code",
    [
        (lambda b: b[:-1], AbortCode.SHAPE_MISMATCH),
        (lambda b: b + b"\x00", AbortCode.SHAPE_MISMATCH),
        (lambda b: b"", AbortCode.SHAPE_MISMATCH),
        (lambda b: b[:-1] + bytes([b[-1] | 0x80]), AbortCode.MALFORMED_FRAME),
    ],
)
def test_a_vector_of_another_form(change: Any, code: AbortCode, play: Any, small: Any) -> None:
    """dim 7 at 19 bits: 133 bits in 17 bytes, so the last byte has three bits of padding."""
    outcome = spoil(play, small(), Kind.MASKED, 2, with_body(change)).finish()
    assert outcome.excluded == {2: code} and outcome.survivors == (1, 3, 4, 5)


def test_a_vector_that_names_other_masks_is_refused(play: Any, small: Any) -> None:
    round_ = spoil(play, small(), Kind.MASKED, 2, with_body(flipped(0)))
    outcome = round_.finish()
    assert outcome.survivors == (1, 3, 4, 5) and not outcome.excluded
    assert [(e.code, e.culprits) for e in round_.refused] == [(AbortCode.ROSTER_MISMATCH, {2})]


def test_a_false_word_makes_its_receiver_stop_and_convicts_nobody(play: Any, sparse: Any) -> None:
    round_ = spoil(play, sparse(), Kind.MASKED, 2, with_body(flipped(msg.VIEW)))
    victim = round_.clients[2]._neighbours[0]
    outcome = round_.finish()
    assert round_.aborts[victim].code is AbortCode.ROSTER_MISMATCH and not round_.aborts[victim].culprits
    assert victim in outcome.survivors and not outcome.excluded


def complaint(round_: Any, sender: int, dealer: int, key: bytes) -> Frame:
    return round_.forge(Kind.COMPLAINT, sender, msg.encode_complaint(dealer, key))


def before_masking(play: Any, kit: Any) -> Any:
    round_ = play(kit).start()
    round_.run(Kind.RELAY)
    return round_


def test_a_complaint_about_good_shares_excludes_the_complainer(play: Any, small: Any) -> None:
    round_ = before_masking(play, small())
    round_.put(complaint(round_, 4, 2, round_.clients[4]._state.incoming[2]))
    outcome = round_.finish()
    assert outcome.excluded == {4: AbortCode.BAD_SHARE} and outcome.survivors == (1, 2, 3, 5)


def test_a_complaint_with_a_key_that_opens_nothing(play: Any, small: Any) -> None:
    round_ = before_masking(play, small())
    round_.put(complaint(round_, 4, 2, bytes(32)))
    outcome = round_.finish()
    assert outcome.excluded == {4: AbortCode.BAD_KEY} and outcome.survivors == (1, 2, 3, 5)


@pytest.mark.parametrize("dealer", [0, 4, 6, 60_000])
def test_a_complaint_about_shares_that_were_never_relayed(dealer: int, play: Any, small: Any) -> None:
    """About the server, about oneself, about strangers."""
    round_ = before_masking(play, small())
    round_.put(complaint(round_, 4, dealer, bytes(32)))
    assert round_.finish().excluded == {4: AbortCode.MALFORMED_FRAME}


def test_a_complaint_of_another_length(play: Any, small: Any) -> None:
    round_ = before_masking(play, small())
    round_.put(round_.forge(Kind.COMPLAINT, 4, bytes(33)))
    assert round_.finish().excluded == {4: AbortCode.MALFORMED_FRAME}


def test_no_complaint_after_the_vector(play: Any, small: Any) -> None:
    """Its vector is in the sum, so it cannot be left out any more: the complaint is refused."""
    round_ = before_masking(play, small())
    first, *_ = round_.down
    key = round_.clients[first.to]._state.incoming[2 if first.to != 2 else 3]
    round_.hand(first)
    round_.put(complaint(round_, first.to, 2 if first.to != 2 else 3, key))
    assert [e.culprits for e in round_.refused] == [{first.to}]
    round_.down = round_.down[1:]
    assert round_.finish().survivors == (1, 2, 3, 4, 5)


def test_after_the_phase_a_complaint_is_late(play: Any, small: Any) -> None:
    round_ = before_masking(play, small())
    key = round_.clients[4]._state.incoming[2]
    round_.down = [f for f in round_.down if f.to != 4]
    round_.run(Kind.SURVIVORS)
    before = round_.server.late
    round_.put(complaint(round_, 4, 2, key))
    assert round_.server.late == before + 1 and round_.finish().survivors == (1, 2, 3, 5)


# SIGNED


@pytest.mark.parametrize("change", [flipped(0), lambda b: b[:-1], lambda b: b""])
def test_another_list_is_not_counted(change: Any, play: Any, small: Any) -> None:
    """The vector stays in the sum; the client is neither asked nor excluded."""
    round_ = spoil(play, small(), Kind.SIGNED, 2, with_body(change))
    outcome = round_.finish()
    assert outcome.survivors == (1, 2, 3, 4, 5) and not outcome.excluded
    assert [(e.code, e.culprits) for e in round_.refused] == [(AbortCode.ROSTER_MISMATCH, {2})]
    assert not [f for f in round_.log if (f.kind, f.to) == (Kind.REQUEST, 2)]


# ANSWER


def spoil_answer(at: int) -> Callable[[Any, Frame], Frame]:
    return with_body(flipped(at))


@pytest.mark.parametrize("at", [SHARE - 1, SHARE, SHARE + 16])
@pytest.mark.parametrize("gone", [None, 4])
def test_a_wrong_share_convicts_its_holder_and_the_sum_is_right(
    at: int, gone: int | None, play: Any, small: Any
) -> None:
    """Share, salt or the other leaf changed; for a survivor's seed and for a dropout's."""
    kit = small(cohort=8)
    round_ = spoil(play, kit, Kind.ANSWER, 1, spoil_answer(at + (msg.REVEALED * 3 if gone else 0)))
    tap = round_.tap
    round_.tap = lambda f: () if (f.kind, f.sender) == (Kind.MASKED, gone) else tap(f)
    outcome = round_.finish()
    wrong_share = at < SHARE
    assert outcome.excluded == ({1: AbortCode.BAD_SHARE} if wrong_share else {})
    assert outcome.survivors == tuple(i for i in range(1, 9) if i != gone)


def test_more_wrong_shares_than_the_threshold_allows(play: Any, small: Any) -> None:
    """Too few good ones left: an abort that names every liar, and no sum."""
    kit = small()
    liars = {1, 2}
    round_ = play(kit)

    def tap(frame: Frame) -> Iterable[Frame]:
        if frame.kind == Kind.ANSWER and frame.sender in liars:
            return (round_.sign(frame, body=flipped(SHARE - 1)(frame.body)),)
        return (frame,)

    round_.tap = tap
    round_.start()
    with pytest.raises(Aborted) as error:
        round_.finish()
    assert (error.value.code, error.value.culprits) == (AbortCode.BELOW_THRESHOLD, liars)
    assert error.value.released
    with pytest.raises(LocalError):
        round_.server.result()


def test_a_share_that_is_no_field_element(play: Any, small: Any) -> None:
    change = with_body(lambda body: PRIME.to_bytes(SHARE, "big") + body[SHARE:])
    round_ = spoil(play, small(), Kind.ANSWER, 2, change)
    assert round_.finish().survivors == (1, 2, 3, 4, 5)
    assert [e.code for e in round_.refused] == [AbortCode.MALFORMED_FRAME]


@pytest.mark.parametrize("change", [lambda b: b[:-1], lambda b: b + b"\x00", lambda b: b""])
def test_an_answer_of_another_length(change: Any, play: Any, small: Any) -> None:
    round_ = spoil(play, small(), Kind.ANSWER, 2, with_body(change))
    assert round_.finish().survivors == (1, 2, 3, 4, 5)
    assert [e.culprits for e in round_.refused] == [{2}]


def _other_commitment(field: str) -> Callable[[Dealing], Dealing]:
    def change(dealing: Dealing) -> Dealing:
        value = b"\x09" + bytes(31) if field == "mask_key" else bytes(32)
        return replace(dealing, advert=dealing.advert._replace(**{field: value}))

    return change


def test_a_dealer_whose_seed_commitment_does_not_fit_is_convicted(
    play: Any, small: Any, corrupt_dealing: Any
) -> None:
    """Every share is the committed one, so the fault is the dealer's; there is no sum."""
    corrupt_dealing(_other_commitment("seed_commitment"), 2)
    round_ = play(small()).start()
    with pytest.raises(Aborted) as error:
        round_.finish()
    assert (error.value.code, error.value.culprits) == (AbortCode.BAD_SHARE, {2})
    assert error.value.released


def _other_polynomial(dealing: Dealing) -> Dealing:
    """Committed shares that lie on no polynomial of degree t - 1."""
    held = {h: s._replace(seed_share=(h + 5).to_bytes(SHARE, "big")) for h, s in dealing.held.items()}
    tree = merkle.flat_tree([held[h].node(2, h) for h in sorted(held)])
    return replace(
        dealing, held=held, tree=tree, advert=dealing.advert._replace(share_root=merkle.root(tree))
    )


def test_a_dealer_of_committed_garbage_is_convicted(play: Any, small: Any, corrupt_dealing: Any) -> None:
    corrupt_dealing(_other_polynomial, 2)
    round_ = play(small()).start()
    with pytest.raises(Aborted) as error:
        round_.finish()
    assert (error.value.code, error.value.culprits) == (AbortCode.BAD_SHARE, {2})


def _other_key_seed(dealing: Dealing) -> Dealing:
    return replace(dealing, held={h: s._replace(key_share=s.seed_share) for h, s in dealing.held.items()})


def test_a_dropout_whose_key_seed_does_not_fit_its_key_is_convicted(
    play: Any, small: Any, corrupt_dealing: Any
) -> None:
    def change(dealing: Dealing) -> Dealing:
        held = _other_key_seed(dealing).held
        tree = merkle.flat_tree([held[h].node(2, h) for h in sorted(held)])
        advert = dealing.advert._replace(share_root=merkle.root(tree))
        return replace(dealing, held=held, tree=tree, advert=advert)

    corrupt_dealing(change, 2)
    round_ = play(small(), lambda f: () if (f.kind, f.sender) == (Kind.MASKED, 2) else (f,)).start()
    with pytest.raises(Aborted) as error:
        round_.finish()
    assert (error.value.code, error.value.culprits) == (AbortCode.BAD_SHARE, {2})


def test_a_client_that_masks_with_another_seed_is_seen_in_the_sum(
    play: Any, small: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong self-mask equals adding a random vector: the sum is implausible, and never silently wrong."""
    kit = small(dim=200)
    round_ = play(kit).start()
    round_.run(Kind.RELAY)
    round_.clients[2]._state.seed = bytes(32)
    with pytest.raises(Aborted) as error:
        round_.finish()
    assert error.value.code is AbortCode.IMPLAUSIBLE_SUM and not error.value.culprits


# All kinds


@pytest.mark.parametrize("kind", CLIENT_KINDS)
def test_two_different_frames_for_one_slot(kind: Kind, play: Any, small: Any) -> None:
    """The signer falls out, except after its vector: the first of two vectors stands."""
    kit = small(cohort=7)
    round_ = play(kit)

    def tap(frame: Frame) -> Iterable[Frame]:
        if (frame.kind, frame.sender) != (kind, 2):
            return (frame,)
        return (frame, round_.sign(frame, body=flipped(-2)(frame.body)))

    def flipped(at: int) -> Callable[[bytes], bytes]:
        return lambda body: body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]

    round_.tap = tap
    outcome = round_.start().finish()
    gone = kind in (Kind.ADVERT, Kind.SHARES)
    convicted = kind is not Kind.MASKED
    assert outcome.excluded == ({2: AbortCode.DOUBLE_CLAIM} if convicted else {})
    assert outcome.survivors == tuple(i for i in range(1, 8) if not (gone and i == 2))
    lists = [f for f in round_.log if f.kind == Kind.KEYS and f.to != 2]
    named = [2 in msg.decode_key_list(f.body, 7).adverts for f in lists]
    assert len(named) >= 6 and all(named) is (kind is not Kind.ADVERT) and any(named) is all(named)
    relayed = [2 in msg.decode_relay(f.body, 3) for f in round_.log if f.kind == Kind.RELAY and f.to != 2]
    assert all(relayed) is not gone and any(relayed) is not gone
    if kind is Kind.SIGNED:
        assert not [f for f in round_.log if (f.kind, f.to) == (Kind.REQUEST, 2)]


@pytest.mark.parametrize("kind", CLIENT_KINDS)
def test_an_identical_duplicate_is_late(kind: Kind, play: Any, small: Any) -> None:
    round_ = play(small(), lambda f: (f, f) if (f.kind, f.sender) == (kind, 2) else (f,)).start()
    assert round_.finish().survivors == (1, 2, 3, 4, 5)
    assert round_.server.late == 1 and not round_.server.excluded


@pytest.mark.parametrize("kind", CLIENT_KINDS)
def test_unsigned_foreign_early_or_misdirected_frames_change_nothing(
    kind: Kind, play: Any, small: Any
) -> None:
    kit = small()
    round_ = play(kit)
    seen: list[Frame] = []

    def tap(frame: Frame) -> Sequence[Frame]:
        if (frame.kind, frame.sender) != (kind, 2):
            return (frame,)
        seen.append(frame)
        before = len(round_.refused)
        wrong = [
            replace(frame, signature=bytes(64)),
            replace(frame, body=frame.body[:-1] + bytes([frame.body[-1] ^ 1])),
            replace(frame, session=bytes(16)).signed(kit.federation.identities[1].sign_key, bytes(32)),
            round_.sign(frame, to=3),
            round_.sign(frame, suite=2),
            round_.sign(frame, kind=Kind.KEYS),
            round_.sign(frame, kind=99),
            round_.forge(Kind.ANSWER, 2, b"") if kind is not Kind.ANSWER else frame,
        ]
        wrong = wrong[:-1] if kind is Kind.ANSWER or not round_.sid else wrong
        for bad in wrong:
            round_.put(bad)
        assert len(round_.refused) == before + len(wrong)
        assert all(e.culprits == {2} for e in round_.refused)
        for sender in (1, 6, 70_000):
            with pytest.raises(RemoteError) as error:
                round_.server.receive(sender, frame.encode())
            assert error.value.culprits == {sender}
        return (frame,)

    round_.tap = tap
    assert round_.start().finish().survivors == (1, 2, 3, 4, 5)
    assert seen and not round_.server.excluded


def test_an_excluded_client_is_not_heard_again(play: Any, small: Any) -> None:
    round_ = before_masking(play, small())
    round_.put(complaint(round_, 4, 2, bytes(32)))
    before = round_.server.late
    relay = next(f for f in round_.down if f.to == 4)
    round_.hand(relay)
    assert round_.server.late == before + 1
    round_.down = [f for f in round_.down if f.to != 4]
    assert 4 not in round_.finish().survivors


def test_replays_of_another_attempt_or_round_change_nothing(play: Any, small: Any) -> None:
    """A03, A10: every frame of an earlier attempt, delivered again in each phase of a later one."""
    kit = small()
    old = play(kit).start()
    old.run(Kind.REQUEST)
    frames = [f for f in old.log if f.sender]
    new = play(kit, attempt=2)
    new.start()
    for kind in (Kind.KEYS, Kind.RELAY, Kind.SURVIVORS, Kind.REQUEST):
        new.run(kind)
        before = len(new.refused)
        for frame in frames:
            new.put(frame)
        assert len(new.refused) == before + len(frames)
        assert all(e.code is AbortCode.STALE_KEY for e in new.refused)
    assert new.finish().survivors == (1, 2, 3, 4, 5)
    assert not new.server.excluded


def test_members_outside_the_cohort_are_not_heard(play: Any, small: Any) -> None:
    """A member of the roster signs a good advert, but is not invited to this round."""
    kit = small(spare=1)
    round_ = play(kit).start()
    (outside,) = set(range(1, 7)) - set(round_.context.cohort)
    advert = next(f for f in round_.log if f.kind == Kind.ADVERT)
    frame = round_.forge(Kind.ADVERT, outside, advert.body)
    with pytest.raises(RemoteError) as error:
        round_.server.receive(outside, frame.encode())
    assert (error.value.code, error.value.culprits) == (AbortCode.ROSTER_MISMATCH, {outside})
    assert round_.finish().survivors == round_.context.cohort


def test_an_oversize_frame_is_refused_by_its_length(play: Any, small: Any) -> None:
    round_ = play(small()).start()
    with pytest.raises(RemoteError):
        round_.server.receive(2, bytes(1 << 16))


def test_moves_of_the_server(small: Any) -> None:
    server = small().server()
    for move in (server.close_phase, server.suspend, server.result, lambda: server.receive(1, b"")):
        with pytest.raises(LocalError):
            move()
    server.start()
    with pytest.raises(LocalError):
        server.start()
    with pytest.raises(Aborted):
        server.close_phase()
    for move in (server.start, server.close_phase, server.suspend):
        with pytest.raises(SessionSpent):
            move()
    with pytest.raises(LocalError):
        server.result()
