"""Properties of framing, field encoding and sealed state."""

from hypothesis import given
from hypothesis import strategies as st

from merveil.protocols.errors import Aborted
from merveil.protocols.frame import Frame
from merveil.protocols.ledger import Ledger
from merveil.protocols.primitives.kdf import encode_fields
from merveil.protocols.rng import SeededRng
from merveil.protocols.snapshot import pack_fields, unpack_fields

FIELDS = st.lists(st.binary(max_size=40), max_size=6)


@given(FIELDS, FIELDS, st.sampled_from(["a/1/x", "a/1/xy", "b/1/x"]), st.sampled_from(["a/1/x", "a/1/xy"]))
def test_field_encoding_is_injective(one: list[bytes], two: list[bytes], p: str, q: str) -> None:
    assert (encode_fields(p, *one) == encode_fields(q, *two)) is ((p, one) == (q, two))


@given(FIELDS)
def test_snapshot_fields_invert(fields: list[bytes]) -> None:
    assert unpack_fields(pack_fields(fields)) == fields
    assert unpack_fields(pack_fields(fields), len(fields)) == fields
    try:
        unpack_fields(pack_fields(fields), len(fields) + 1)
    except Aborted:
        return
    raise AssertionError("another number of fields was accepted")


@given(
    st.integers(0, 255), st.integers(0, 255), st.binary(min_size=16, max_size=16), st.integers(0, 65_535),
    st.integers(0, 65_535), st.binary(max_size=99), st.binary(min_size=64, max_size=64),
)  # fmt: skip
def test_frames_invert(
    suite: int, kind: int, session: bytes, sender: int, to: int, body: bytes, signature: bytes
) -> None:
    frame = Frame(suite, kind, session, sender, to, body, signature if sender else b"")
    assert Frame.decode(frame.encode(), sender, len(body)) == frame


@given(st.lists(st.tuples(st.binary(max_size=50), st.booleans()), min_size=1, max_size=8))
def test_only_the_last_sealed_snapshot_ever_opens(steps: list[tuple[bytes, bool]]) -> None:
    ledger, context = Ledger(rng=SeededRng(1)), bytes(32)
    blobs: list[bytes] = []
    live = False
    for text, take in steps:
        blobs.append(ledger.seal_snapshot(context, b"aad", text))
        live = True
        for old in blobs[:-1]:
            try:
                ledger.take_snapshot(context, b"aad", old)
            except Aborted:
                continue
            raise AssertionError("an old snapshot opened")
        if take:
            assert ledger.take_snapshot(context, b"aad", blobs[-1]) == text
            live = False
    if not live:
        try:
            ledger.take_snapshot(context, b"aad", blobs[-1])
        except Aborted:
            return
        raise AssertionError("a snapshot opened twice")
