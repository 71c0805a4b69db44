"""What a malicious server, or a damaged channel, can make an honest client do: nothing but stop."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from merveil.protocols.errors import AbortCode, Aborted, LocalError, RemoteError, SessionSpent
from merveil.protocols.frame import Frame
from merveil.protocols.ledger import Ledger, MemoryStore, RoundState
from merveil.protocols.primitives import merkle
from merveil.protocols.secagg import messages as msg
from merveil.protocols.secagg.messages import Kind
from merveil.protocols.session import Phase
from merveil.protocols.survivors import to_bitmap

SERVER_KINDS = [Kind.KEYS, Kind.RELAY, Kind.SURVIVORS, Kind.REQUEST]


def to(round_: Any, kind: Kind, index: int = 2) -> Frame:
    """The server's frame of a kind for one client, not handed out yet."""
    return next(f for f in round_.run(kind) if f.to == index)


def refuse(round_: Any, frame: Frame, code: AbortCode, index: int = 2) -> Aborted:
    """The client aborts, answers nothing, is spent, and blames nobody but the server."""
    with pytest.raises(Aborted) as error:
        round_.clients[index].receive(0, frame.encode())
    assert error.value.code is code, error.value
    assert error.value.culprits <= {0} and not error.value.released
    assert round_.clients[index].phase is Phase.ABORTED
    with pytest.raises(SessionSpent):
        round_.clients[index].receive(0, frame.encode())
    return error.value


def key_list(frame: Frame, cohort: int) -> msg.KeyList:
    return msg.decode_key_list(frame.body, cohort)


# KEYS


def rebuilt(round_: Any, frame: Frame, **changes: Any) -> Frame:
    listed = key_list(frame, round_.context.cohort[-1])
    fields = {
        "fingerprint": listed.fingerprint,
        "root": listed.root,
        "joined": listed.joined,
        "path": listed.path,
        "adverts": listed.adverts,
    }
    return replace(frame, body=msg.KeyList(**{**fields, **changes}).encode())


@pytest.mark.parametrize(
    "part, code",
    [
        (0, AbortCode.ROSTER_MISMATCH),
        (8, AbortCode.PARAMS_MISMATCH),
        (16, AbortCode.MODEL_MISMATCH),
        (24, AbortCode.MODEL_MISMATCH),
    ],
)
def test_another_model_roster_or_parameters(part: int, code: AbortCode, play: Any, small: Any) -> None:
    round_ = play(small()).start()
    frame = to(round_, Kind.KEYS)
    print_ = bytearray(round_.context.fingerprint)
    print_[part] ^= 1
    refuse(round_, rebuilt(round_, frame, fingerprint=bytes(print_)), code)


def test_a_context_that_differs_behind_an_equal_fingerprint(play: Any, small: Any) -> None:
    round_ = play(small()).start()
    frame = to(round_, Kind.KEYS)
    refuse(round_, replace(frame, session=bytes(16)), AbortCode.PARAMS_MISMATCH)


@pytest.mark.parametrize("changes", [{"attempt": 2}, {"round": 2}])
def test_frames_of_another_attempt_or_round_change_nothing(changes: Any, play: Any, small: Any) -> None:
    old = play(small()).start()
    kept = [to(old, kind) for kind in SERVER_KINDS]
    kit = small()
    new = play(kit, **changes).start()
    for kind in SERVER_KINDS:
        to(new, kind)
        for frame in kept:
            with pytest.raises(RemoteError) as error:
                new.clients[2].receive(0, frame.encode())
            assert error.value.culprits == {0}
    assert new.finish().survivors == (1, 2, 3, 4, 5)
    assert not new.aborts


def test_own_advert_missing_or_replaced(play: Any, small: Any) -> None:
    for other in (1, 3):
        round_ = play(small()).start()
        frame = to(round_, Kind.KEYS)
        wrong = key_list(to(round_, Kind.KEYS, other), 5)
        refuse(round_, rebuilt(round_, frame, path=wrong.path), AbortCode.ROSTER_MISMATCH)
    round_ = play(small()).start()
    refuse(round_, rebuilt(round_, to(round_, Kind.KEYS), root=bytes(32)), AbortCode.ROSTER_MISMATCH)


@pytest.mark.parametrize("stranger", [2, 6, 60_000])
def test_clients_that_are_no_neighbours(stranger: int, play: Any, small: Any) -> None:
    """Itself, one outside the cohort, one outside the roster."""
    round_ = play(small()).start()
    frame = to(round_, Kind.KEYS)
    adverts = {**key_list(frame, 5).adverts}
    adverts[stranger] = adverts[3]
    refuse(round_, rebuilt(round_, frame, adverts=adverts), AbortCode.ROSTER_MISMATCH)


@pytest.mark.parametrize("scheme, least", [("small", 3), ("sparse", 6)])
def test_too_few_holders(scheme: str, least: int, play: Any, request: Any) -> None:
    """In the complete graph the client is a holder too; one fewer than the threshold is refused."""
    for kept, refused in ((least, False), (least - 1, True)):
        round_ = play(request.getfixturevalue(scheme)()).start()
        frame = to(round_, Kind.KEYS)
        listed = msg.decode_key_list(frame.body, len(round_.context.cohort)).adverts
        adverts = dict(list(listed.items())[:kept])
        body = replace(frame, body=replace_adverts(frame, len(round_.context.cohort), adverts))
        if refused:
            refuse(round_, body, AbortCode.BELOW_THRESHOLD)
        else:
            assert round_.clients[2].receive(0, body.encode())


def replace_adverts(frame: Frame, cohort: int, adverts: dict[int, msg.Advert]) -> bytes:
    listed = msg.decode_key_list(frame.body, cohort)
    return msg.KeyList(listed.fingerprint, listed.root, listed.joined, listed.path, adverts).encode()


@pytest.mark.parametrize("key", [bytes(32), (1).to_bytes(32, "little"), (2**255 - 20).to_bytes(32, "little")])
def test_low_order_keys_are_the_servers_fault(key: bytes, play: Any, small: Any) -> None:
    round_ = play(small()).start()
    frame = to(round_, Kind.KEYS)
    adverts = dict(key_list(frame, 5).adverts)
    adverts[3] = adverts[3]._replace(mask_key=key)
    refuse(round_, rebuilt(round_, frame, adverts=adverts), AbortCode.BAD_KEY)


def test_a_substituted_ephemeral_key_opens_nothing(play: Any, small: Any) -> None:
    """A07: the server plays the other side to both; neither box opens, and no share is revealed."""
    from merveil.protocols.primitives.agreement import private_key, public_bytes

    mine = public_bytes(private_key(b"s" * 32))

    def tap(frame: Frame) -> tuple[Frame, ...]:
        if frame.kind != Kind.KEYS or frame.to not in (2, 3):
            return (frame,)
        adverts = dict(key_list(frame, 5).adverts)
        other = 5 - frame.to
        adverts[other] = adverts[other]._replace(mask_key=mine)
        return (rebuilt(round_, frame, adverts=adverts),)

    round_ = play(small())
    round_.tap = tap
    round_.start()
    with pytest.raises(Aborted) as error:
        round_.finish()
    assert {i: e.code for i, e in round_.aborts.items()} == {2: AbortCode.BAD_KEY, 3: AbortCode.BAD_KEY}
    assert not any(e.frames or e.culprits for e in round_.aborts.values())
    assert error.value.code is AbortCode.BELOW_THRESHOLD


@pytest.mark.parametrize("field", ["nonce", "seed_commitment", "share_root"])
def test_another_commitment_of_a_dealer_opens_nothing(field: str, play: Any, small: Any) -> None:
    """The server changes what 2 sees of 3's advert: no box opens, so there is no false complaint."""
    round_ = play(small()).start()
    frame = to(round_, Kind.KEYS)
    adverts = dict(key_list(frame, 5).adverts)
    adverts[3] = adverts[3]._replace(**{field: b"x" * 32})
    wrong = rebuilt(round_, frame, adverts=adverts)
    round_.down = [wrong if f.to == 2 else f for f in round_.down]
    with pytest.raises(Aborted):
        round_.finish()
    for one, other in ((2, 3), (3, 2)):
        error = round_.aborts[one]
        assert error.code is AbortCode.BAD_KEY and not error.frames and not error.culprits
        assert f"shares of {other} " in str(error)


# RELAY


def relay(frame: Frame, holders: int) -> dict[int, tuple[bytes, bytes]]:
    return msg.decode_relay(frame.body, merkle.depth(holders))


def test_a_wrong_path_draws_no_complaint(play: Any, small: Any) -> None:
    """A server that spoils the path must not make a holder reveal an honest dealer's shares."""
    round_ = play(small()).start()
    frame = to(round_, Kind.RELAY)
    entries = relay(frame, 5)
    path, box = entries[4]
    entries[4] = (bytes([path[0] ^ 1]) + path[1:], box)
    error = refuse(round_, replace(frame, body=msg.encode_relay(entries)), AbortCode.BAD_KEY)
    assert not error.frames


def test_boxes_of_others_do_not_open(play: Any, small: Any) -> None:
    """Another holder's box, another dealer's, one's own sent back, and a changed one."""
    for change in ("holder", "dealer", "own", "bit"):
        round_ = play(small()).start()
        frame = to(round_, Kind.RELAY)
        entries = relay(frame, 5)
        path, box = entries[4]
        if change == "holder":
            box = relay(to(round_, Kind.RELAY, 3), 5)[4][1]
        elif change == "dealer":
            box = entries[5][1]
        elif change == "own":
            box = relay(to(round_, Kind.RELAY, 4), 5)[2][1]
        else:
            box = box[:40] + bytes([box[40] ^ 1]) + box[41:]
        entries[4] = (path, box)
        error = refuse(round_, replace(frame, body=msg.encode_relay(entries)), AbortCode.BAD_KEY)
        assert not error.frames


def test_shares_of_clients_that_never_advertised(play: Any, small: Any) -> None:
    round_ = play(small(cohort=6)).start()
    keys = to(round_, Kind.KEYS)
    adverts = {i: a for i, a in msg.decode_key_list(keys.body, 6).adverts.items() if i != 6}
    without = replace(keys, body=replace_adverts(keys, 6, adverts))
    round_.down = [without if f.to == 2 else f for f in round_.down]
    round_.clients[2].receive(0, without.encode())
    frame = Frame(
        1, Kind.RELAY, round_.sid[:16], 0, 2, msg.encode_relay(dict.fromkeys((1, 3, 4, 6), _entry()))
    )
    refuse(round_, frame, AbortCode.ROSTER_MISMATCH)


def _entry() -> tuple[bytes, bytes]:
    return bytes(32 * merkle.depth(6)), bytes(msg.BOX)


def test_too_few_shared(play: Any, small: Any) -> None:
    round_ = play(small()).start()
    frame = to(round_, Kind.RELAY)
    entries = dict(list(relay(frame, 5).items())[:2])
    refuse(round_, replace(frame, body=msg.encode_relay(entries)), AbortCode.BELOW_THRESHOLD)


def test_a_withheld_box_never_gives_a_wrong_sum(play: Any, small: Any) -> None:
    """The server's own server refuses a vector whose masks it could not remove (a damaged channel)."""

    def tap(frame: Frame) -> tuple[Frame, ...]:
        if (frame.kind, frame.to) != (Kind.RELAY, 2):
            return (frame,)
        entries = relay(frame, 5)
        del entries[4]
        return (replace(frame, body=msg.encode_relay(entries)),)

    round_ = play(small(), tap).start()
    outcome = round_.finish()
    assert outcome.survivors == (1, 3, 4, 5) and not outcome.excluded
    assert [e.code for e in round_.refused] == [AbortCode.ROSTER_MISMATCH]


# SURVIVORS


def survivors(frame: Frame, cohort: int) -> msg.SurvivorList:
    return msg.decode_survivors(frame.body, cohort)


def test_left_off_the_list(play: Any, small: Any) -> None:
    round_ = play(small()).start()
    frame = to(round_, Kind.SURVIVORS)
    listed = survivors(frame, 5)._replace(bitmap=to_bitmap([0, 2, 3, 4], 5))
    refuse(round_, replace(frame, body=listed.encode()), AbortCode.ROSTER_MISMATCH)


@pytest.mark.parametrize("field", ["path", "entries_root"])
def test_another_vector_or_advert_of_this_client(field: str, play: Any, small: Any) -> None:
    round_ = play(small()).start()
    frame = to(round_, Kind.SURVIVORS)
    value = getattr(survivors(frame, 5), field)
    listed = survivors(frame, 5)._replace(**{field: bytes([value[0] ^ 1]) + value[1:]})
    refuse(round_, replace(frame, body=listed.encode()), AbortCode.ROSTER_MISMATCH)


def test_survivors_that_never_shared(play: Any, small: Any) -> None:
    gone: list[Frame] = []

    def tap(frame: Frame) -> tuple[Frame, ...]:
        if (frame.kind, frame.sender) == (Kind.SHARES, 4):
            gone.append(frame)
            return ()
        return (frame,)

    round_ = play(small(), tap).start()
    frame = to(round_, Kind.SURVIVORS)
    listed = survivors(frame, 5)._replace(bitmap=to_bitmap(range(5), 5))
    refuse(round_, replace(frame, body=listed.encode()), AbortCode.ROSTER_MISMATCH)


def test_fewer_survivors_than_the_threshold(play: Any, small: Any) -> None:
    round_ = play(small()).start()
    frame = to(round_, Kind.SURVIVORS)
    listed = survivors(frame, 5)._replace(bitmap=to_bitmap([0, 1, 2], 5))
    refuse(round_, replace(frame, body=listed.encode()), AbortCode.BELOW_THRESHOLD)


def test_a_neighbour_that_did_not_mask_with_this_client(play: Any, sparse: Any) -> None:
    """The server withholds 2's shares from one neighbour, yet names both as survivors: 2 signs nothing."""
    round_ = play(sparse()).start()
    frame = to(round_, Kind.SURVIVORS)
    listed = survivors(frame, 24)
    wrong = listed._replace(words=bytes(8) + listed.words[8:])
    error = refuse(round_, replace(frame, body=wrong.encode()), AbortCode.ROSTER_MISMATCH)
    assert not error.culprits


def test_words_of_another_number(play: Any, sparse: Any, small: Any) -> None:
    for kit, change in ((sparse(), -8), (sparse(), 8), (small(), 8)):
        round_ = play(kit).start()
        frame = to(round_, Kind.SURVIVORS)
        listed = survivors(frame, len(round_.context.cohort))
        words = listed.words[:change] if change < 0 else listed.words + bytes(change)
        with pytest.raises(RemoteError):
            round_.clients[2].receive(0, replace(frame, body=listed._replace(words=words).encode()).encode())
        assert round_.clients[2].receive(0, frame.encode()), "nothing had changed"


def test_a_minimum_difference_to_the_last_set(play: Any, small: Any) -> None:
    """Equal sets, and sets that differ enough, pass; the check is made again when the answer is due."""
    for last, ok in (({1, 2, 3, 4, 5}, True), ({1, 2, 3, 4}, False), ({1, 2, 3}, True)):
        kit = small()
        kit.policy = replace(kit.policy, min_difference=2)
        ledger = kit.ledger(2)
        ledger.open_round(kit.roster.federation, 9, 1)
        ledger.answer(kit.roster.federation, 9, 1, to_bitmap(sorted(last), 6))
        round_ = play(kit).start()
        frame = to(round_, Kind.SURVIVORS)
        if ok:
            assert round_.clients[2].receive(0, frame.encode())
        else:
            refuse(round_, frame, AbortCode.COHORT_TOO_SMALL)
    kit = small()
    kit.policy = replace(kit.policy, min_difference=2)
    round_ = play(kit).start()
    frame = to(round_, Kind.REQUEST)
    ledger = kit.ledger(2)
    ledger.open_round(kit.roster.federation, 9, 1)
    ledger.answer(kit.roster.federation, 9, 1, to_bitmap([1, 2, 3, 4], 6))
    refuse(round_, frame, AbortCode.COHORT_TOO_SMALL)


# REQUEST


def request(frame: Frame) -> dict[int, bytes]:
    return msg.decode_request(frame.body)


def changed(frame: Frame, signatures: dict[int, bytes]) -> Frame:
    return replace(frame, body=msg.encode_request(signatures))


def test_fewer_signatures_than_the_threshold(play: Any, small: Any) -> None:
    round_ = play(small()).start()
    frame = to(round_, Kind.REQUEST)
    fewer = dict(list(request(frame).items())[:3])
    refuse(round_, changed(frame, fewer), AbortCode.BELOW_THRESHOLD)


@pytest.mark.parametrize("how", ["forged", "swapped", "empty", "stranger", "dead", "no-holder"])
def test_signatures_that_do_not_count(how: str, play: Any, small: Any, sparse: Any) -> None:
    """Each with the full number of true ones beside it: a server that sends any bad one is not answered."""
    gone = 5 if how == "dead" else 0

    def tap(frame: Frame) -> tuple[Frame, ...]:
        return () if (frame.kind, frame.sender) == (Kind.MASKED, gone) else (frame,)

    round_ = play(sparse() if how == "no-holder" else small(), tap).start()
    frame = to(round_, Kind.REQUEST)
    signatures = request(frame)
    if how == "forged":
        signatures[1] = bytes(64)
    elif how == "swapped":
        signatures[1], signatures[3] = signatures[3], signatures[1]
    elif how == "empty":
        signatures = dict.fromkeys(signatures, bytes(64))
    elif how == "stranger":
        signatures[6] = signatures[1]
    elif how == "dead":
        body = round_.clients[2]._state.root
        signatures[5] = round_.forge(Kind.SIGNED, 5, body).signature
    else:
        far = next(i for i in round_.context.cohort if i not in round_.clients[2]._holders and i != 2)
        signatures[far] = round_.server._book.signatures[far]
    refuse(round_, changed(frame, signatures), AbortCode.BAD_SIGNATURE)


def test_one_signer_counted_twice_is_no_frame(play: Any, small: Any) -> None:
    round_ = play(small()).start()
    frame = to(round_, Kind.REQUEST)
    (index, signature), *_ = request(frame).items()
    one = index.to_bytes(2, "big") + signature
    with pytest.raises(RemoteError):
        round_.clients[2].receive(0, replace(frame, body=b"\x00\x04" + 4 * one).encode())
    assert round_.clients[2].receive(0, frame.encode())


def test_signatures_on_another_list_or_session(play: Any, small: Any) -> None:
    """A04, A05: t signers of a list that says 4 is dead do not open anything at one who signed another."""
    round_ = play(small()).start()
    frame = to(round_, Kind.REQUEST)
    other = msg.survivor_root(round_.sid, to_bitmap([0, 1, 2, 4], 5), bytes(32))
    signed = {i: round_.forge(Kind.SIGNED, i, other).signature for i in (1, 3, 4, 5)}
    refuse(round_, changed(frame, signed), AbortCode.BAD_SIGNATURE)


def test_equivocation_never_gives_both_shares_of_one_client(play: Any, small: Any) -> None:
    """Two groups are told of two lists; whoever answers, no client's two seeds both come together."""
    round_ = play(small()).start()
    round_.run(Kind.SURVIVORS)
    batch, round_.down = round_.down, []
    book = round_.server._book
    roots: dict[int, bytes] = {}
    for frame in batch:
        listed = survivors(frame, 5)
        if frame.to in (1, 2, 3):
            listed = listed._replace(bitmap=to_bitmap([0, 1, 2, 3], 5))
        (signed,) = round_.clients[frame.to].receive(0, replace(frame, body=listed.encode()).encode())
        roots[frame.to], book.signatures[frame.to] = signed.body, signed.signature
    assert len(set(roots.values())) == 2
    for index, client in round_.clients.items():
        same = {i: book.signatures[i] for i in roots if roots[i] == roots[index]}
        frame = Frame(1, Kind.REQUEST, round_.sid[:16], 0, index, msg.encode_request(same))
        with pytest.raises(Aborted) as error:
            client.receive(0, frame.encode())
        assert error.value.code is AbortCode.BELOW_THRESHOLD


# All kinds


@pytest.mark.parametrize("kind", SERVER_KINDS)
def test_identical_frames_are_late_and_different_ones_end_the_session(
    kind: Kind, play: Any, small: Any
) -> None:
    round_ = play(small()).start()
    frame = to(round_, kind)
    client = round_.clients[2]
    first = client.receive(0, frame.encode())
    assert first and not client.receive(0, frame.encode()) and client.late == 1
    other = replace(frame, body=frame.body + b"\x00")
    if kind is Kind.REQUEST:
        with pytest.raises(RemoteError) as error:
            client.receive(0, other.encode())
        assert error.value.culprits == {0} and client.phase is Phase.DONE
    else:
        refuse(round_, other, AbortCode.ROSTER_MISMATCH)


@pytest.mark.parametrize("kind", SERVER_KINDS)
def test_frames_out_of_turn_for_others_or_from_others(kind: Kind, play: Any, small: Any) -> None:
    round_ = play(small()).start()
    later = {k: Frame(1, k, bytes(16), 0, 2, b"") for k in Kind}
    frame = to(round_, kind)
    wrong = [
        replace(frame, to=3),
        replace(frame, suite=2),
        replace(frame, suite=0),
        *(f for k, f in later.items() if k != kind),
        replace(frame, kind=77),
        replace(frame, body=b""),
        replace(frame, body=frame.body[:-1]),
    ]
    if kind is not Kind.KEYS:
        wrong.append(replace(frame, session=bytes(16)))
    client = round_.clients[2]
    for bad in wrong:
        with pytest.raises(RemoteError) as error:
            client.receive(0, bad.encode())
        assert error.value.culprits == {0}
    for sender in (1, 3):
        with pytest.raises(RemoteError) as error:
            client.receive(sender, frame.encode())
        assert error.value.culprits == {sender}
    assert client.receive(0, frame.encode()), "nothing had changed"


def test_frames_of_this_session_before_their_phase(play: Any, small: Any) -> None:
    """Survivor lists before the vector, requests before a list was signed."""
    full = play(small()).start()
    kept = {kind: to(full, kind) for kind in (Kind.SURVIVORS, Kind.REQUEST)}
    round_ = play(small()).start(submit=False)
    client = round_.clients[2]
    for kind in (Kind.RELAY, Kind.SURVIVORS):
        frame = to(round_, kind)
        early = [replace(f, session=round_.sid[:16]) for k, f in kept.items() if k is not kind]
        for moment in range(2):
            for bad in early:
                with pytest.raises(RemoteError):
                    client.receive(0, bad.encode())
            if kind is Kind.RELAY and not moment:
                assert not client.receive(0, frame.encode()) and client.phase is Phase.MASKED
        if kind is Kind.RELAY:
            round_.down = [f for f in round_.down if f.to != 2]
            round_.up(client.submit(round_.kit.codes(2)))
            for other in (1, 3, 4, 5):
                round_.up(round_.clients[other].submit(round_.kit.codes(other)))
    assert round_.finish().survivors == (1, 2, 3, 4, 5)


def test_an_oversize_frame_is_refused_by_its_length(play: Any, small: Any) -> None:
    round_ = play(small()).start()
    frame = to(round_, Kind.KEYS)
    with pytest.raises(RemoteError):
        round_.clients[2].receive(0, replace(frame, body=frame.body + bytes(1 << 20)).encode())


def test_before_start_nothing_is_heard(small: Any) -> None:
    with pytest.raises(LocalError):
        small().client(1).receive(0, b"")


# The ledger


def test_one_answer_a_round(play: Any, small: Any) -> None:
    """A03, A32: after an answer no attempt of the round opens again, in any session."""
    kit = small()
    play(kit).start().finish()
    for attempt in (1, 2, 7):
        session = kit.client(3, attempt=attempt)
        with pytest.raises(Aborted) as error:
            session.start()
        assert error.value.code is AbortCode.ROUND_REUSED and error.value.released
        assert session.phase is Phase.ABORTED
    assert kit.ledger(3).state(kit.roster.federation, 1) == (1, RoundState.ANSWERED)


def test_an_attempt_opens_once_and_only_above_the_last(small: Any) -> None:
    kit = small()
    kit.client(1, attempt=3).start()
    for attempt in (3, 2, 1):
        with pytest.raises(Aborted) as error:
            kit.client(1, attempt=attempt).start()
        assert error.value.code is AbortCode.ROUND_REUSED and not error.value.released
    assert kit.client(1, attempt=4).start()


@pytest.mark.parametrize("kind", SERVER_KINDS)
def test_a_retry_before_any_answer_works(kind: Kind, play: Any, small: Any) -> None:
    """The first attempt stops anywhere before the answers; the next has other masks and the right sum."""
    kit = small()
    first = play(kit).start()
    first.run(kind)
    second = play(kit, attempt=2).start()
    assert second.finish().survivors == (1, 2, 3, 4, 5)
    bodies = [{f.sender: f.body for f in r.log if f.kind == Kind.MASKED} for r in (first, second)]
    assert all(bodies[0][i] != bodies[1][i] for i in bodies[0])
    with pytest.raises(Aborted) as error:
        kit.client(1, attempt=1).start()
    assert error.value.code is AbortCode.ROUND_REUSED


def test_the_older_attempt_cannot_go_on_beside_the_newer(play: Any, small: Any) -> None:
    """A client in two attempts at once masks and answers in the newest only."""
    for kind in (Kind.RELAY, Kind.REQUEST):
        kit = small()
        first = play(kit).start()
        frame = to(first, kind)
        play(kit, attempt=2).start()
        with pytest.raises(Aborted) as error:
            first.clients[2].receive(0, frame.encode())
        assert error.value.code is AbortCode.ROUND_REUSED
        assert first.clients[2].phase is Phase.ABORTED
    kit = small()
    first = play(kit).start(submit=False)
    for frame in first.run(Kind.RELAY):
        first.hand(frame)
    play(kit, attempt=2).start()
    with pytest.raises(Aborted):
        first.clients[2].submit(kit.codes(2))
    assert first.clients[2].phase is Phase.ABORTED


class Failing(MemoryStore):
    """Stops at the n-th write from now, before or after it is durable."""

    left = -1
    durable = False

    def save(self, data: bytes) -> None:
        if self.left == 0:
            if self.durable:
                super().save(data)
            raise OSError("no space left")
        self.left -= 1
        super().save(data)


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("move", ["start", *SERVER_KINDS])
def test_a_ledger_that_fails_ends_the_session_and_no_frame_leaves(
    move: Any, durable: bool, play: Any, small: Any
) -> None:
    kit = small()
    store = Failing()
    kit.ledgers[2] = Ledger(store)
    round_ = play(kit)
    if move == "start":
        store.left, store.durable = 0, durable
        with pytest.raises(OSError):
            round_.clients[2].start()
    else:
        frame = to(round_.start(), move)
        writes = {Kind.KEYS: 1, Kind.RELAY: 1, Kind.SURVIVORS: 0, Kind.REQUEST: 2}[move]
        if not writes:
            return
        store.left, store.durable = writes - 1, durable
        with pytest.raises(OSError):
            round_.clients[2].receive(0, frame.encode())
    assert round_.clients[2].phase is Phase.ABORTED
    kit.ledgers[2] = Ledger(store)  # a restart
    store.left = -1
    again = kit.client(2, attempt=2)
    if move == Kind.REQUEST:
        with pytest.raises(Aborted) as error:
            again.start()
        assert error.value.code is AbortCode.ROUND_REUSED
    else:
        assert again.start()


# The caller's own mistakes


def test_one_vector_a_session(play: Any, small: Callable[..., Any]) -> None:
    kit = small()
    with pytest.raises(LocalError):
        kit.client(1).submit(kit.codes(1))
    round_ = play(kit).start()
    for kind in SERVER_KINDS:
        with pytest.raises(LocalError):
            round_.clients[1].submit(kit.codes(1))
        round_.run(kind)
    with pytest.raises(LocalError):
        round_.clients[1].submit(kit.codes(1))
    round_.finish()
    with pytest.raises(SessionSpent):
        round_.clients[1].submit(kit.codes(1))
    with pytest.raises(LocalError):
        round_.clients[1].start()


def test_a_vector_handed_in_late_and_changed_afterwards(play: Any, small: Any) -> None:
    kit = small()
    round_ = play(kit).start(submit=False)
    for frame in round_.run(Kind.RELAY):
        round_.hand(frame)
    round_.down = []
    for index, client in round_.clients.items():
        codes = kit.codes(index)
        round_.up(client.submit(codes))
        codes[:] = 0
    assert round_.finish().survivors == (1, 2, 3, 4, 5)


def test_a_vector_handed_in_early_is_a_copy(play: Any, small: Any) -> None:
    kit = small()
    round_ = play(kit).start(submit=False)
    for index, client in round_.clients.items():
        codes = kit.codes(index)
        client.submit(codes)
        codes[:] = 0
    assert round_.finish().survivors == (1, 2, 3, 4, 5)
