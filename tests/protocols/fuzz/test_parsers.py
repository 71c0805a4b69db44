"""Any bytes give a value or the documented error; what parses re-encodes to the same bytes."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from merveil.protocols.errors import Aborted, LocalError, RemoteError
from merveil.protocols.frame import HEAD, Frame
from merveil.protocols.identity import Coordinator, Identity, Roster
from merveil.protocols.ledger import Ledger, MemoryStore
from merveil.protocols.params import Params
from merveil.protocols.plain.messages import body_size, decode_vector, encode_vector
from merveil.protocols.rng import SeededRng
from merveil.protocols.snapshot import pack_fields, unpack_fields

RNG = SeededRng(4)
COORDINATOR = Coordinator.generate(RNG.child("c"))
PEOPLE = [Identity.generate(f"m{i}", RNG.child(str(i))) for i in range(3)]
ROSTER = COORDINATOR.sign([p.member for p in PEOPLE], serial=1, not_before=1, expires=2, rng=RNG).data
REQUEST = PEOPLE[0].request(COORDINATOR.federation, COORDINATOR.agree_public)
FRAME = Frame(0, 1, bytes(16), 7, 0, b"some body").signed(PEOPLE[0].sign_key, bytes(32)).encode()
PARAMS = Params("plain", 3, 5, bits=7, max_weight=2)  # 54 bits, so that two are padding
BODY = bytes(80) + b"\x01\x02\x03\x04\x05\x06\x07"
FIELDS = pack_fields([b"a", b"", b"ccc"])


def _frame(data: bytes) -> bytes:
    return Frame.decode(data, 7, 64).encode()


def _body(data: bytes) -> bytes:
    nonce, fingerprint, codes = decode_vector(PARAMS, data, 7)

    class Fake:
        pass

    fake: Any = Fake()
    fake.fingerprint = fingerprint
    return encode_vector(PARAMS, fake, nonce, codes)


def _roster(data: bytes) -> bytes:
    return Roster.open(data, COORDINATOR.anchor).data


def _request(data: bytes) -> bytes:
    return COORDINATOR.admit(data).encode() + data[-96:]


PARSERS: dict[str, tuple[Callable[[bytes], bytes], bytes, tuple[type[Exception], ...]]] = {
    "frame": (_frame, FRAME, (RemoteError,)),
    "plain body": (_body, BODY, (RemoteError,)),
    "roster": (_roster, ROSTER, (RemoteError, Aborted)),
    "request": (_request, REQUEST, (RemoteError,)),
    "snapshot fields": (lambda d: pack_fields(unpack_fields(d)), FIELDS, (Aborted,)),
}


@st.composite
def spoilt(draw: st.DrawFn, good: bytes) -> bytes:
    """The good bytes after a few cuts, flips, insertions and swapped stretches."""
    data = bytearray(good)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        how = draw(st.sampled_from(["flip", "cut", "insert", "append", "remove", "huge"]))
        if how == "flip" and at < len(data):
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif how == "cut":
            del data[at:]
        elif how == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=8))
        elif how == "append":
            data += draw(st.binary(min_size=1, max_size=70))
        elif how == "remove":
            del data[at : at + draw(st.integers(1, 8))]
        else:
            data[at : at + 4] = b"\xff\xff\xff\xff"
    return bytes(data)


def check(name: str, data: bytes) -> None:
    parse, _, errors = PARSERS[name]
    try:
        again = parse(data)
    except errors:
        return
    assert again == data


@pytest.mark.parametrize("name", PARSERS)
def test_the_good_bytes_parse_and_re_encode(name: str) -> None:
    parse, good, _ = PARSERS[name]
    assert parse(good) == good


@pytest.mark.parametrize("name", PARSERS)
def test_every_truncation_and_extension_is_refused(name: str) -> None:
    parse, good, errors = PARSERS[name]
    for data in [*(good[:n] for n in range(len(good))), good + b"\x00", good + good]:
        with pytest.raises(errors):
            parse(data)


@pytest.mark.parametrize("name", PARSERS)
def test_every_flipped_bit(name: str) -> None:
    good = PARSERS[name][1]
    for at in range(len(good)):
        for bit in range(8):
            data = bytearray(good)
            data[at] ^= 1 << bit
            check(name, bytes(data))


@pytest.mark.parametrize("name", PARSERS)
@settings(max_examples=300)
@given(data=st.data())
def test_any_bytes(name: str, data: st.DataObject) -> None:
    good = PARSERS[name][1]
    check(name, data.draw(st.one_of(st.binary(max_size=300), spoilt(good))))


@given(st.binary(max_size=400), st.integers(0, 65_535), st.integers(0, 100))
@example(b"MV\x01" + bytes(22) + b"\xff\xff\xff\xff", 0, 100)
def test_a_frame_is_bounded_before_it_is_cut(data: bytes, sender: int, limit: int) -> None:
    try:
        frame = Frame.decode(data, sender, limit)
    except RemoteError as error:
        assert error.culprits == {sender}
        return
    assert len(frame.body) <= limit and frame.sender == sender
    assert len(frame.signature) == (64 if sender else 0) and len(data) >= HEAD.size


def test_the_body_limit_is_the_exact_size() -> None:
    assert body_size(PARAMS) == len(BODY)
    assert np.array_equal(decode_vector(PARAMS, BODY, 7)[2], decode_vector(PARAMS, BODY, 8)[2])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=5), x, max_size=3),
    max_leaves=8,
)


PARTS = dict.fromkeys(("serials", "rounds", "snapshots", "chains", "answered", "key"), JSON)
STATES = st.fixed_dictionaries(PARTS, optional={"format": JSON}).map(lambda v: {"format": 1, **v})


@given(st.one_of(st.binary(max_size=60), st.one_of(JSON, STATES).map(lambda v: json.dumps(v).encode())))
def test_a_ledger_is_read_or_named_as_damaged(data: bytes) -> None:
    store = MemoryStore()
    store.save(data)
    try:
        Ledger(store)
    except LocalError as error:
        assert "damaged" in str(error)
