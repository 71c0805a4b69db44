"""Frames: one canonical encoding, and everything else is its sender's fault."""

import hashlib
import struct

import pytest
from Crypto.PublicKey import ECC
from Crypto.Signature import eddsa

from merveil.protocols.errors import AbortCode, RemoteError
from merveil.protocols.frame import HEAD, Frame, Reader
from merveil.protocols.identity import Identity
from merveil.protocols.rng import SeededRng

KEY = Identity.generate("a", SeededRng(1)).sign_key
OTHER = Identity.generate("b", SeededRng(2)).sign_key
PUBLIC = KEY.public_key().public_bytes_raw()
BINDING = bytes(range(32))
FRAME = Frame(7, 3, bytes(range(16)), 513, 0, b"body").signed(KEY, BINDING)


def test_the_layout_is_the_documented_one() -> None:
    expected = b"MV" + bytes((1, 7, 3)) + bytes(range(16)) + b"\x02\x01" + b"\x00\x00" + b"\x00\x00\x00\x04"
    assert HEAD.size == 29
    assert FRAME.encode() == expected + b"body" + FRAME.signature
    assert FRAME.head() == expected


def test_a_server_frame_has_no_signature() -> None:
    frame = Frame(7, 3, bytes(16), 0, 5, b"x")
    assert len(frame.encode()) == 30
    assert Frame.decode(frame.encode(), 0, 1) == frame


def test_decode_inverts_encode() -> None:
    assert Frame.decode(FRAME.encode(), 513, 4) == FRAME
    assert Frame.decode(FRAME.encode(), 513, 4).encode() == FRAME.encode()


def _header(**changes: object) -> bytes:
    values = {"magic": b"MV", "version": 1, "suite": 7, "kind": 3, "session": bytes(16), "sender": 513,
              "to": 0, "size": 4, **changes}  # fmt: skip
    return struct.pack(">2sBBB16sHHI", *values.values()) + b"body" + bytes(64)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(_header(magic=b"VM"), id="magic"),
        pytest.param(_header(version=2), id="version"),
        pytest.param(_header(sender=514), id="another-sender"),
        pytest.param(_header(sender=0), id="claims-the-server"),
        pytest.param(_header(size=3), id="length-too-small"),
        pytest.param(_header(size=5), id="length-too-large"),
        pytest.param(_header(size=2**32 - 1), id="length-huge"),
        pytest.param(_header() + b"\x00", id="trailing-byte"),
        pytest.param(_header()[:-1], id="cut"),
        pytest.param(b"", id="empty"),
        pytest.param(_header()[:28], id="half-a-header"),
    ],
)
def test_malformed_bytes_blame_their_sender(data: bytes) -> None:
    assert Frame.decode(_header(), 513, 4).body == b"body"  # the unspoilt one parses
    with pytest.raises(RemoteError) as caught:
        Frame.decode(data, 513, 64)
    assert caught.value.culprits == {513}
    assert caught.value.code is AbortCode.MALFORMED_FRAME


def test_a_body_over_the_limit_is_refused() -> None:
    assert Frame.decode(FRAME.encode(), 513, 4)
    with pytest.raises(RemoteError):
        Frame.decode(FRAME.encode(), 513, 3)


def test_a_client_frame_without_signature_is_refused() -> None:
    bare = Frame(7, 3, bytes(16), 513, 0, b"").encode()
    with pytest.raises(RemoteError):
        Frame.decode(bare, 513, 64)


def test_the_signature_is_the_documented_one() -> None:
    """Checked by another implementation over a signature input that is written out here."""
    fields = (BINDING, FRAME.head(), hashlib.sha256(b"body").digest())
    tag = b"merveil/frame/1/sign"
    message = b"".join(len(f).to_bytes(4, "big") + f for f in (tag, *fields))
    key = eddsa.import_public_key(PUBLIC)
    eddsa.new(key, "rfc8032").verify(message, FRAME.signature)
    own = ECC.construct(curve="Ed25519", seed=KEY.private_bytes_raw())
    assert eddsa.new(own, "rfc8032").sign(message) == FRAME.signature


def test_a_signature_holds_for_its_own_frame_and_no_other() -> None:
    assert FRAME.verify(PUBLIC, BINDING)
    assert not FRAME.verify(PUBLIC, bytes(32)), "another context or session"
    assert not FRAME.verify(OTHER.public_key().public_bytes_raw(), BINDING), "another key"
    changed = {"suite": 8, "kind": 4, "session": bytes(16), "sender": 514, "to": 1, "body": b"bodz"}
    for name, value in changed.items():
        fields = {
            f: getattr(FRAME, f) for f in ("suite", "kind", "session", "sender", "to", "body", "signature")
        }
        assert not Frame(**{**fields, name: value}).verify(PUBLIC, BINDING), name
    for at in range(64):
        flipped = bytearray(FRAME.signature)
        flipped[at] ^= 1
        assert not Frame(7, 3, FRAME.session, 513, 0, b"body", bytes(flipped)).verify(PUBLIC, BINDING)
    assert not Frame(7, 3, FRAME.session, 513, 0, b"body").verify(PUBLIC, BINDING)


def test_the_digest_covers_header_and_body_but_not_the_signature() -> None:
    assert FRAME.digest() == hashlib.sha256(FRAME.head() + b"body").digest()
    again = FRAME.signed(KEY, bytes(32))
    assert again.signature != FRAME.signature and again.digest() == FRAME.digest()


def test_the_reader_reads_to_the_end_and_not_beyond() -> None:
    reader = Reader(b"\x01\x00\x02\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\x04rest\x00\x00\x00\x02ab", 9)
    assert (reader.u8(), reader.u16(), reader.u32(), reader.u64(), reader.take(4)) == (1, 2, 3, 4, b"rest")
    with pytest.raises(RemoteError):
        reader.end()
    assert reader.blob(2) == b"ab"
    reader.end()
    for read in (
        reader.u8,
        reader.u16,
        reader.u32,
        reader.u64,
        lambda: reader.take(1),
        lambda: reader.blob(9),
    ):
        with pytest.raises(RemoteError) as caught:
            read()
        assert caught.value.culprits == {9}


def test_the_reader_holds_a_field_to_its_limit() -> None:
    with pytest.raises(RemoteError, match="too long"):
        Reader(b"\x00\x00\x00\x03abc", 1).blob(2)
    with pytest.raises(RemoteError, match="too short"):
        Reader(b"\xff\xff\xff\xff", 1).blob(2**32)
    with pytest.raises(RemoteError, match="too short"):
        Reader(b"abc", 1).take(-1)
