"""What is particular to `plain`: faults that a member signs, and damaged snapshots of the server."""

from typing import Any

import numpy as np
import pytest

from merveil.protocols.errors import AbortCode, Aborted, RemoteError, SessionSpent
from merveil.protocols.frame import Frame
from merveil.protocols.plain.client import SUITE
from merveil.protocols.plain.messages import VECTOR, encode_vector
from merveil.protocols.primitives.packing import pack
from merveil.protocols.session import Phase
from merveil.protocols.snapshot import pack_fields, unpack_fields


@pytest.fixture
def k(kit: Any) -> Any:
    return kit("plain", cohort=5, dim=4, max_weight=3, threshold=3)


def signed(k: Any, index: int, codes: Any, nonce: bytes = bytes(32)) -> bytes:
    context = k.context()
    body = encode_vector(k.params, context, nonce, np.asarray(codes, dtype=np.int64))
    frame = Frame(SUITE, VECTOR, context.digest[:16], index, 0, body)
    return frame.signed(k.federation.identities[index - 1].sign_key, context.digest).encode()


@pytest.mark.parametrize(
    "codes", [[40_000, 0, 0, 0, 1], [-32_768, 0, 0, 0, 1], [0, 0, 0, 0, 0], [0, 0, 0, 0, 4]]
)
def test_a_vector_out_of_range_excludes_who_signed_it(k: Any, codes: list[int]) -> None:
    server = k.server()
    server.start()
    server.receive(1, signed(k, 1, codes))
    assert server.excluded == {1: AbortCode.INPUT_RANGE}
    server.receive(1, signed(k, 1, k.codes(1)))
    assert server.late == 1, "a second try comes too late"
    for i in (2, 3, 4, 5):
        server.receive(i, signed(k, i, k.codes(i)))
    outcome = server.result()
    assert outcome.survivors == (2, 3, 4, 5) and outcome.excluded == {1: AbortCode.INPUT_RANGE}
    assert np.array_equal(outcome.codes, k.total((2, 3, 4, 5)))


def test_two_different_vectors_are_a_fault_and_change_nothing(k: Any) -> None:
    server = k.server()
    server.start()
    server.receive(1, signed(k, 1, k.codes(1)))
    with pytest.raises(RemoteError) as caught:
        server.receive(1, signed(k, 1, k.codes(1), nonce=b"\x01" * 32))
    assert caught.value.code is AbortCode.ROUND_REUSED and caught.value.culprits == {1}
    for i in (2, 3, 4, 5):
        server.receive(i, signed(k, i, k.codes(i)))
    assert np.array_equal(server.result().codes, k.total((1, 2, 3, 4, 5)))


def test_padding_that_is_not_zero_is_refused(k: Any) -> None:
    context = k.context()
    residues = np.mod(k.codes(1), k.params.modulus).astype(np.uint64)
    packed = bytearray(pack(residues, k.params.modulus_bits))
    packed[-1] |= 0x80
    assert k.params.size * k.params.modulus_bits % 8, "there is padding"
    frame = Frame(SUITE, VECTOR, context.digest[:16], 1, 0, bytes(32) + context.fingerprint + bytes(packed))
    server = k.server()
    server.start()
    with pytest.raises(RemoteError) as caught:
        server.receive(1, frame.signed(k.federation.identities[0].sign_key, context.digest).encode())
    assert caught.value.code is AbortCode.MALFORMED_FRAME


@pytest.mark.parametrize("sent", [0, 1, 2])
def test_below_the_threshold_the_released_vectors_are_told(k: Any, sent: int) -> None:
    server = k.server()
    server.start()
    for i in range(1, sent + 1):
        server.receive(i, signed(k, i, k.codes(i)))
    with pytest.raises(Aborted) as caught:
        server.close_phase()
    assert caught.value.released is (sent > 0) and server.phase is Phase.ABORTED
    with pytest.raises(SessionSpent):
        server.close_phase()


def snapshot(k: Any) -> list[bytes]:
    server = k.server()
    server.start()
    server.receive(1, signed(k, 1, k.codes(1)))
    server.receive(2, signed(k, 2, [40_000, 0, 0, 0, 1]))
    return unpack_fields(server.suspend())


def refused(k: Any, fields: list[bytes]) -> None:
    with pytest.raises(Aborted) as caught:
        k.server(snapshot=pack_fields(fields))
    assert caught.value.code is AbortCode.STATE_ROLLBACK


def test_a_server_snapshot_that_does_not_fit_is_refused(k: Any) -> None:
    context, total, seen, gone = snapshot(k)
    assert k.server(snapshot=pack_fields([context, total, seen, gone])).excluded == {2: AbortCode.INPUT_RANGE}
    refused(k, [bytes(32), total, seen, gone])
    refused(k, [context, total[:-8], seen, gone])
    refused(k, [context, total, seen[:-1], gone])
    refused(k, [context, total, b"\x00\x09" + seen[2:], gone])
    refused(k, [context, total, seen, b"\x00\x09" + gone[2:]])
    refused(k, [context, total, seen, gone[:2] + b"NO_SUCH_CODE".ljust(32)])
    refused(k, [context, total, seen, gone[:2] + b"\xff" * 32])
    refused(k, [context, total, seen])


def test_a_sum_that_no_one_can_have_sent_ends_the_session(k: Any) -> None:
    """A spoilt snapshot is the way to get there: received vectors are checked one by one."""
    context, total, seen, gone = snapshot(k)
    huge = (np.frombuffer(total, dtype="<i8") + 10**6).astype("<i8").tobytes()
    server = k.server(snapshot=pack_fields([context, huge, seen, gone]))
    for i in (3, 4):
        server.receive(i, signed(k, i, k.codes(i)))
    with pytest.raises(Aborted) as caught:
        server.close_phase()
    assert caught.value.code is AbortCode.IMPLAUSIBLE_SUM and server.phase is Phase.ABORTED


def test_a_suspended_server_takes_no_frame(k: Any) -> None:
    server = k.server()
    server.start()
    server.suspend()
    with pytest.raises(SessionSpent):
        server.receive(1, signed(k, 1, k.codes(1)))
