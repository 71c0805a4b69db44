"""A member of a `ckks` round that signs wrong frames: what excludes it, and what others may have caused."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from merveil.protocols.ckks import messages as msg
from merveil.protocols.ckks.messages import Kind
from merveil.protocols.errors import AbortCode, Aborted, RemoteError
from merveil.protocols.frame import Frame
from merveil.protocols.primitives.sign import sign
from merveil.protocols.session import Phase

LIAR = 2
Bend = Callable[[Any, Any, Frame], bytes]  # kit, server, frame -> body


def up_to(kit: Any, kind: Kind) -> tuple[Any, dict[int, Any], Any, Frame]:
    """(kit, sessions, server, the liar's frame): a round in which everybody but the liar said `kind`."""
    k = kit("ckks", cohort=6, dim=9)
    sessions, server = {i: k.client(i) for i in k.context().cohort}, k.server()
    queue = list(server.start())
    for i, session in sessions.items():
        queue += [*session.start(), *session.submit(k.codes(i))]
    found = None
    while queue:
        f = queue.pop(0)
        if (f.sender, f.kind) == (LIAR, kind):
            found = f
            continue
        to = sessions[f.to] if f.to else server
        queue += to.receive(f.sender, f.encode())
    assert found is not None
    return k, sessions, server, found


def signed(k: Any, server: Any, frame: Frame, body: bytes, kind: Kind | None = None) -> bytes:
    """The liar's own frame with another body, under its own key."""
    kind = Kind(frame.kind) if kind is None else kind
    binding = k.context().digest if kind is Kind.ADVERT else server._book.sid
    bent = replace(frame, kind=kind, session=binding[:16], body=body)
    return bent.signed(k.federation.identities[LIAR - 1].sign_key, binding).encode()


def advert(k: Any, frame: Frame, **changes: Any) -> bytes:
    _, own = msg.decode_advert(frame.body, LIAR)
    return msg.encode_advert(k.context(), replace(own, **changes))


def upload(server: Any, frame: Frame, **changes: Any) -> bytes:
    own = msg.decode_upload(frame.body, LIAR, server._params.layout.ciphertexts)
    return msg.encode_upload(replace(own, **changes))


def transparent(k: Any, server: Any, frame: Frame) -> bytes:
    """c1 = 0, under a stamp that holds: the message would lie in clear in c0."""
    own = msg.decode_upload(frame.body, LIAR, server._params.layout.ciphertexts)
    zero = bytes(len(own.c1))
    fields = msg.stamp_fields(server._book.sid, LIAR, own.view, msg.c1_digest(zero))
    stamp = sign(k.federation.identities[LIAR - 1].sign_key, msg.STAMP, *fields)
    return msg.encode_upload(replace(own, c1=zero, stamp=stamp))


EXCLUDES: dict[str, tuple[Kind, Bend, AbortCode]] = {
    "another fingerprint": (
        Kind.ADVERT,
        lambda k, s, f: msg.encode_advert(k.context(attempt=2), msg.decode_advert(f.body, LIAR)[1]),
        AbortCode.MALFORMED_FRAME,
    ),
    "a share key of low order": (
        Kind.ADVERT,
        lambda k, s, f: advert(k, f, share_key=bytes(32)),
        AbortCode.BAD_KEY,
    ),
    "another salt": (
        Kind.SHARES,
        lambda k, s, f: bytes((f.body[0] ^ 1,)) + f.body[1:],
        AbortCode.BAD_KEY,
    ),
    "a stamp that does not hold": (
        Kind.UPLOAD,
        lambda k, s, f: upload(s, f, stamp=bytes(64)),
        AbortCode.BAD_SIGNATURE,
    ),
    "a transparent ciphertext": (Kind.UPLOAD, transparent, AbortCode.BAD_CIPHERTEXT),
}


@pytest.mark.parametrize("what", EXCLUDES)
def test_what_it_signed_excludes_it_and_the_round_goes_on(kit: Any, what: str) -> None:
    kind, bend, code = EXCLUDES[what]
    k, sessions, server, frame = up_to(kit, kind)
    queue = list(server.receive(LIAR, signed(k, server, frame, bend(k, server, frame))))
    assert server.excluded == {LIAR: code}
    while queue:
        f = queue.pop(0)
        if LIAR not in (f.to, f.sender):
            to = sessions[f.to] if f.to else server
            queue += to.receive(f.sender, f.encode())
    outcome = server.result()
    assert outcome.survivors == (1, 3, 4, 5, 6) and (outcome.codes == k.total(outcome.survivors)).all()


DOUBTFUL: dict[str, tuple[Kind, Bend]] = {
    "another joint key": (Kind.UPLOAD, lambda k, s, f: upload(s, f, view=bytes(32))),
    "another list": (Kind.SIGNED, lambda k, s, f: bytes(32)),
    "another request": (Kind.ANSWER, lambda k, s, f: bytes(32) + f.body[32:]),
}


@pytest.mark.parametrize("what", DOUBTFUL)
def test_what_others_may_have_caused_is_refused_and_excludes_nobody(kit: Any, what: str) -> None:
    kind, bend = DOUBTFUL[what]
    k, _, server, frame = up_to(kit, kind)
    with pytest.raises(RemoteError) as caught:
        server.receive(LIAR, signed(k, server, frame, bend(k, server, frame)))
    assert caught.value.code is AbortCode.ROSTER_MISMATCH and not server.excluded
    phase = server.phase
    server.receive(LIAR, frame.encode())
    assert server.phase is not phase, "the right frame is still taken"


@pytest.mark.parametrize("dealer", [LIAR, 9, 65_535])
def test_a_complaint_about_nobodys_share_excludes_its_sender(kit: Any, dealer: int) -> None:
    k, _, server, frame = up_to(kit, Kind.UPLOAD)
    body = msg.encode_complaint(dealer, bytes(32))
    server.receive(LIAR, signed(k, server, frame, body, Kind.COMPLAINT))
    assert server.excluded == {LIAR: AbortCode.MALFORMED_FRAME} and server.phase is not Phase.ABORTED


def test_a_complaint_after_the_vector_excludes_its_sender(kit: Any) -> None:
    k, sessions, server, frame = up_to(kit, Kind.UPLOAD)
    held = server._book.parts.pop(6)  # somebody else is not there yet, so that the phase stays open
    server.receive(LIAR, frame.encode())
    key = next(iter(k.ledger(LIAR)._chains.values()))[1]
    server.receive(LIAR, signed(k, server, frame, msg.encode_complaint(1, key), Kind.COMPLAINT))
    assert server.excluded == {LIAR: AbortCode.MALFORMED_FRAME}
    assert LIAR in server._book.parts and len(held) == 2 and sessions[LIAR].phase is Phase.CHECK


def test_a_sum_that_the_survivors_cannot_have_sent_is_none(kit: Any) -> None:
    """One client's code lies outside the grid: the sum is one step above the largest of six clients."""
    k = kit("ckks", cohort=6, dim=9)
    sessions, server = {i: k.client(i) for i in k.context().cohort}, k.server()
    queue = list(server.start())
    for i, session in sessions.items():
        queue += session.start()
        if i != LIAR:
            queue += session.submit(k.codes(i))
    wild = k.codes(LIAR)
    wild[0] = 6 * k.params.levels + 1 - sum(k.codes(i)[0] for i in sessions if i != LIAR)
    sessions[LIAR]._state.codes = wild
    with pytest.raises(Aborted) as caught:
        while queue:
            f = queue.pop(0)
            to = sessions[f.to] if f.to else server
            queue += to.receive(f.sender, f.encode())
    assert caught.value.code is AbortCode.IMPLAUSIBLE_SUM and server.phase is Phase.ABORTED
