"""Bodies of the messages: what parses encodes to the same bytes, and every damaged byte is noticed."""

from typing import Any

import pytest

from merveil.protocols.errors import Aborted, LocalError, RemoteError, SessionSpent
from merveil.protocols.frame import SERVER, Frame
from merveil.protocols.primitives import merkle
from merveil.protocols.secagg import messages as msg
from merveil.protocols.secagg.messages import Kind
from merveil.protocols.session import Phase
from merveil.protocols.survivors import from_bitmap, to_bitmap

ALL = [Kind.ADVERT, Kind.KEYS, Kind.SHARES, Kind.RELAY, Kind.MASKED, Kind.SURVIVORS, Kind.SIGNED,
       Kind.REQUEST, Kind.ANSWER]  # fmt: skip


def recode(body: bytes, kind: Kind) -> bytes:
    if kind is Kind.KEYS:
        return msg.decode_key_list(body, 5).encode()
    if kind is Kind.RELAY:
        return msg.encode_relay(msg.decode_relay(body, merkle.depth(5)))
    if kind is Kind.SURVIVORS:
        return msg.decode_survivors(body, 5).encode()
    if kind is Kind.REQUEST:
        return msg.encode_request(msg.decode_request(body))
    if kind is Kind.SHARES:
        nodes, boxes = msg.decode_shares(body, 2, 5, [1, 3, 4, 5])
        return msg.encode_shares(b"".join(nodes), boxes)
    if kind is Kind.ANSWER:
        return msg.encode_answer([*msg.decode_answer(body, 2, [1, 2, 3, 4, 5]).values()])
    if kind is Kind.ADVERT:
        fingerprint, advert = msg.decode_advert(body, 2)
        return fingerprint + advert.encode()
    return body


@pytest.mark.parametrize("kind", ALL)
def test_what_parses_encodes_to_the_same_bytes(kind: Kind, play: Any, small: Any) -> None:
    frames: list[Frame] = []
    play(small(), lambda f: (frames.append(f), (f,))[1] if f.kind == kind else (f,)).start().finish()
    assert len(frames) == 5
    for frame in frames:
        assert recode(frame.body, kind) == frame.body


@pytest.mark.parametrize("body", [b"\x00\x02" + b"\x00\x03" + bytes(64) + b"\x00\x03" + bytes(64),
                                  b"\x00\x01" + b"\x00\x00" + bytes(64)])  # fmt: skip
def test_indices_ascend_from_one(body: bytes) -> None:
    with pytest.raises(RemoteError):
        msg.decode_request(body)
    depth = merkle.depth(5)
    size = 32 * depth + msg.BOX
    parts = [body[2:4], body[68:70]] if body[1] == 2 else [body[2:4]]
    with pytest.raises(RemoteError):
        msg.decode_relay(body[:2] + b"".join(p + bytes(size) for p in parts), depth)
    head = bytes(48 + 32 + 2 + 32 * depth)
    with pytest.raises(RemoteError):
        msg.decode_key_list(head + body[:2] + b"".join(p + bytes(128) for p in parts), 5)


def test_a_bitmap_names_nobody_beyond_the_cohort() -> None:
    assert from_bitmap(to_bitmap([0, 4, 8], 9)) == {0, 4, 8}
    tail = bytes(32 + 32 * 3)
    assert msg.decode_survivors(b"\x1f" + tail, 5).bitmap == b"\x1f"
    with pytest.raises(RemoteError):
        msg.decode_survivors(b"\x20" + tail, 5)
    assert msg.decode_survivors(b"\xff" + tail, 8).bitmap == b"\xff"


def test_a_revealed_share_shows_nothing_of_the_other() -> None:
    held = msg.Held(b"\x00" * 33, b"\x01" * 33, b"a" * 16, b"b" * 16)
    for kind, other in ((0, held.key_share), (1, held.seed_share)):
        shown = held.reveal(3, 4, kind)
        assert other not in shown and held.key_salt not in shown if kind == 0 else held.seed_salt not in shown
        assert msg.proves(shown, 3, 4, kind, held.node(3, 4))
        for wrong in ((4, 4, kind), (3, 3, kind), (3, 4, 1 - kind)):
            assert not msg.proves(shown, *wrong, held.node(3, 4))
        for at in range(0, len(shown), 9):
            bad = shown[:at] + bytes([shown[at] ^ 1]) + shown[at + 1 :]
            assert not msg.proves(bad, 3, 4, kind, held.node(3, 4))


def test_a_leaf_names_its_kind_and_both_ends() -> None:
    base = msg.share_leaf(1, 2, 0, bytes(16), bytes(33))
    others = [
        msg.share_leaf(1, 2, 1, bytes(16), bytes(33)),
        msg.share_leaf(2, 1, 0, bytes(16), bytes(33)),
        msg.share_leaf(1, 3, 0, bytes(16), bytes(33)),
        msg.share_leaf(1, 2, 0, b"x" * 16, bytes(33)),
    ]
    assert len({base, *others}) == 5


@pytest.mark.parametrize("kind", ALL)
def test_no_flipped_byte_is_accepted(kind: Kind, play: Any, small: Any) -> None:
    """Bytes of one frame of each kind, as the network might damage them: refused, an abort, or harmless.

    A client's frame is signed, so every flip is refused and the true frame still counts. A server's frame
    may end the session of the client that got it; whatever happens, a sum that comes out is right.
    """
    kit = small(dim=2)
    probe: list[int] = []

    def measure(frame: Frame) -> tuple[Frame, ...]:
        if frame.kind == kind and 2 in (frame.sender, frame.to):
            probe.append(len(frame.encode()))
        return (frame,)

    play(kit, measure).start().finish()
    if kind in (Kind.ADVERT, Kind.SHARES, Kind.MASKED, Kind.SIGNED, Kind.ANSWER):
        _flip_upwards(kind, probe[0], play(small(dim=2)))
    else:
        for at in (*range(31), *range(31, probe[0], 11)):
            _flip_downwards(kind, at, play(small(dim=2)))


def _flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :]


def _flip_upwards(kind: Kind, size: int, round_: Any) -> None:
    def tap(frame: Frame) -> tuple[Frame, ...]:
        if (frame.kind, frame.sender) == (kind, 2):
            assert size == len(frame.encode())
            for at in range(size):
                with pytest.raises(RemoteError) as error:
                    round_.server.receive(2, _flip(frame.encode(), at))
                assert error.value.culprits == {2}
        return (frame,)

    round_.tap = tap
    assert round_.start().finish().survivors == (1, 2, 3, 4, 5)
    assert not round_.server.excluded


def _flip_downwards(kind: Kind, at: int, round_: Any) -> None:
    def tap(frame: Frame) -> tuple[Frame, ...]:
        if (frame.kind, frame.to) != (kind, 2):
            return (frame,)
        try:
            answers = round_.clients[2].receive(SERVER, _flip(frame.encode(), at))
        except RemoteError:
            return (frame,)
        except Aborted as error:
            assert round_.clients[2].phase is Phase.ABORTED and not error.frames
            assert error.culprits <= {0}
            return ()
        round_.up(answers)
        return ()

    round_.tap = tap
    try:
        outcome = round_.start().finish()
    except Aborted as error:
        assert not error.culprits
        return
    assert not outcome.excluded and set(outcome.survivors) >= {1, 3, 4, 5}


@pytest.mark.parametrize("size", [0, 1, 28, 29, 30, 93, 400])
def test_noise_raises_nothing_but_remote_errors(size: int, play: Any, small: Any) -> None:
    round_ = play(small()).start()
    for kind in (Kind.KEYS, Kind.RELAY, Kind.SURVIVORS, Kind.REQUEST):
        round_.run(kind)
        head = Frame(1, kind, bytes(16), 0, 2, bytes(size)).encode()
        for data in (bytes(size), b"\xff" * size, head, head[:-1]):
            with pytest.raises(RemoteError):
                round_.clients[2].receive(SERVER, data)
            with pytest.raises(RemoteError):
                round_.server.receive(2, data)
    assert round_.finish().survivors == (1, 2, 3, 4, 5)
    for index in round_.clients:
        with pytest.raises((RemoteError, SessionSpent, LocalError)):
            round_.clients[index].receive(SERVER, bytes(size))
