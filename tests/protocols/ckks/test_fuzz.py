"""Mutated bytes at every parser and party of ckks: no crash, and nothing wrong is accepted in silence.

MERVEIL_FUZZ sets how many mutated frames are tried, 2,000 by default, and a tenth of it dealings besides.
"""

import os
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from merveil.protocols.ckks import messages as msg
from merveil.protocols.ckks.constants import BITS, DEGREE, PRIMES
from merveil.protocols.ckks.dealing import good_share
from merveil.protocols.ckks.sampling import Stream, uniform
from merveil.protocols.ckks.state import ClientState
from merveil.protocols.ckks.wire import check_opaque, decode_polynomials, encode_polynomials
from merveil.protocols.errors import AbortCode, Aborted, RemoteError
from merveil.protocols.frame import Frame
from merveil.protocols.primitives.aead import open_once
from merveil.protocols.rng import SeededRng
from merveil.protocols.simulation.faults import Dice, damage

COUNT = int(os.environ.get("MERVEIL_FUZZ", "2000"))


def test_polynomials_come_back() -> None:
    for count, rows in ((1, 2), (1, 3), (3, 2)):
        x = uniform(Stream(b"x"), count, rows)
        data = encode_polynomials(x)
        assert len(data) == count * DEGREE * sum(BITS[:rows]) // 8
        assert np.array_equal(decode_polynomials(data, count, rows, 1), x)


@pytest.mark.parametrize("value", [PRIMES[0], 2**36 - 1])
def test_a_residue_at_or_above_its_prime_is_refused(value: int) -> None:
    x = uniform(Stream(b"y"), 1, 2)
    x[0, 0, 17] = PRIMES[0] - 1
    assert decode_polynomials(encode_polynomials(x), 1, 2, 1)[0, 0, 17] == PRIMES[0] - 1
    x[0, 0, 17] = value
    with pytest.raises(RemoteError) as caught:
        decode_polynomials(encode_polynomials(x), 1, 2, 4)
    assert caught.value.code is AbortCode.BAD_CIPHERTEXT and caught.value.culprits == {4}


def test_lengths_and_transparent_ciphertexts_are_refused() -> None:
    x = uniform(Stream(b"z"), 2, 2)
    data = encode_polynomials(x)
    for bad in (data[:-1], data + b"\x00", b"", data[: len(data) // 2]):
        with pytest.raises(RemoteError):
            decode_polynomials(bad, 2, 2, 1)
    check_opaque(x, 1)
    x[1, 0] = 0
    with pytest.raises(RemoteError) as caught:
        check_opaque(x, 1)
    assert caught.value.code is AbortCode.BAD_CIPHERTEXT


def recorded(kit: Any) -> tuple[Any, list[Frame], dict[str, Any]]:
    """A round's frames, and by (receiver, kind) a frame of or to client 2 with who waits for it.

    The waiting party is the server's snapshot or the client's state. COMPLAINT is a false one, about dealer 3
    with the true key of its box, at the server that waits for client 2's upload.
    """
    k = kit("ckks", cohort=5, dim=5)
    server, sessions = k.server(), {i: k.client(i) for i in k.context().cohort}
    frames: list[Frame] = []
    waiting: dict[str, Any] = {}
    queue = list(server.start())
    for i, s in sessions.items():
        queue += [*s.start(), *s.submit(k.codes(i))]
    while queue:
        f = queue.pop(0)
        frames.append(f)
        party = server if f.to == 0 else sessions[f.to]
        if f.sender == 2 and f.to == 0:
            waiting[0, f.kind] = (f, bytes(server.suspend()))
            server = party = k.server(snapshot=waiting[0, f.kind][1])
        elif f.to == 2:
            waiting[2, f.kind] = (f, party._state.dump(party.phase))
        queue += party.receive(f.sender, f.encode())
    body = msg.encode_complaint(3, relay_state(waiting)[1].incoming[3])
    complaint = sessions[2]._frame(msg.Kind.COMPLAINT, body, server._book.sid)
    waiting[0, msg.Kind.COMPLAINT] = (complaint, waiting[0, msg.Kind.UPLOAD][1])
    return k, frames, waiting


def relay_state(waiting: dict[Any, Any]) -> Any:
    """(phase, a fresh state) of client 2 when it waits for RELAY, its vector not yet handed in."""
    phase, state = ClientState.load(waiting[2, msg.Kind.RELAY][1])
    state.codes = None
    return phase, state


def test_mutated_frames_are_never_taken(kit: Any) -> None:
    """Each mutated frame of a client meets a server that waits for the true one."""
    k, _, waiting = recorded(kit)
    dice = Dice(SeededRng(5))
    kinds = [f for (to, _), (f, _) in waiting.items() if to == 0]
    tried = accepted = 0
    while tried < COUNT // 2:
        true = kinds[tried // 20 % len(kinds)]
        target = k.server(snapshot=waiting[0, true.kind][1])
        for _ in range(20):
            data = damage(true.encode(), dice)
            tried += 1
            if data == true.encode():
                continue
            late = target.late
            try:
                target.receive(2, data)
            except RemoteError as error:
                assert error.culprits == {2}
                continue
            accepted += target.late == late
    assert accepted == 0, "no mutated frame is taken for the true one"


def test_bodies_that_a_member_signs_itself(kit: Any) -> None:
    """A malicious member signs mutated bodies: refused, or excluded by name; the server never crashes."""
    k, _, waiting = recorded(kit)
    dice = Dice(SeededRng(6))
    kinds = [f for (to, _), (f, _) in waiting.items() if to == 0]
    key = k.federation.identities[1].sign_key
    for n in range(COUNT // 4):
        true = kinds[n % len(kinds)]
        server = k.server(snapshot=waiting[0, true.kind][1])
        binding = server._book.sid or k.context().digest
        body = damage(true.body, dice)
        signed = replace(true, body=body).signed(key, binding)
        try:
            server.receive(2, signed.encode())
        except RemoteError as error:
            assert error.culprits == {2}
        except Aborted as error:
            assert error.culprits <= {2}


def test_a_false_complaint_convicts_its_sender_alone(kit: Any) -> None:
    """The true frame of the two tests above: without a change it is taken, and the dealer stays."""
    k, _, waiting = recorded(kit)
    frame, snapshot = waiting[0, msg.Kind.COMPLAINT]
    server = k.server(snapshot=snapshot)
    server.receive(2, frame.encode())
    assert server.excluded == {2: AbortCode.BAD_SHARE}


def spoil(entry: msg.Dealt, dice: Dice) -> msg.Dealt:
    """One of its four fields damaged, at the same or at another length."""
    name = dice.pick(("salt", "public", "proof", "box"))
    return replace(entry, **{name: damage(getattr(entry, name), dice)})


def test_mutated_dealings_are_never_taken_by_a_client(kit: Any) -> None:
    """RELAY: whatever changes, a client refuses it or ends, and makes no complaint: that shows a share."""
    k, _, waiting = recorded(kit)
    dice, session = Dice(SeededRng(8)), k.client(2)
    true, _ = waiting[2, msg.Kind.RELAY]
    entries = msg.decode_relay(true.body, msg.proof_size(5, 4))
    for n in range(COUNT // 20):
        dealer = dice.pick(tuple(entries))
        changed = {**entries, dealer: spoil(entries[dealer], dice)}
        body = damage(true.body, dice) if n % 2 else msg.encode_relay(changed)
        if body == true.body:
            continue
        session._phase, session._state = relay_state(waiting)
        with pytest.raises((RemoteError, Aborted)) as caught:
            session.receive(0, replace(true, body=body).encode())
        assert not isinstance(caught.value, Aborted) or caught.value.frames == ()
    session._phase, session._state = relay_state(waiting)
    session.receive(0, true.encode())
    assert session.phase.name == "MASKED", "the true one is taken"


def test_mutated_box_contents_and_proofs_are_never_good(kit: Any) -> None:
    """A dealer's own bytes, sealed and bound as they should be: nothing but the true share passes."""
    _, _, waiting = recorded(kit)
    dice = Dice(SeededRng(9))
    state = relay_state(waiting)[1]
    entry = msg.decode_relay(waiting[2, msg.Kind.RELAY][0].body, msg.proof_size(5, 4))[3]
    plain = open_once(state.incoming[3], entry.box, msg.box_aad(state.sid, 3, 2, entry.proof))
    assert plain is not None

    def good(content: bytes, proof: bytes) -> bool:
        holders, said = [1, 2, 3, 4, 5], state.adverts[3].commitment
        return good_share(content, state.sid, 3, 2, holders, said, proof) is not None

    assert good(plain, entry.proof)
    for n in range(COUNT // 20):
        content = damage(plain, dice) if n % 2 else plain
        proof = entry.proof if n % 2 else damage(entry.proof, dice)
        if len(proof) == len(entry.proof) and (content, proof) != (plain, entry.proof):  # a proof's is fixed
            assert not good(content, proof)


def test_mutated_server_bodies_parse_or_raise(kit: Any) -> None:
    """Every decoder of a client: any bytes give a value or RemoteError, and a value encodes to the same."""
    k, frames, waiting = recorded(kit)
    dice = Dice(SeededRng(7))
    by_kind = {f.kind: f for f in (*frames, waiting[0, msg.Kind.COMPLAINT][0])}
    peers, proof = [1, 3, 4, 5], msg.proof_size(5, 4)
    parsers = {
        msg.Kind.SHARES: lambda b: msg.encode_shares(*msg.decode_shares(b, 2, peers, proof)) == b,
        msg.Kind.COMPLAINT: lambda b: msg.encode_complaint(*msg.decode_complaint(b, 2)) == b,
        msg.Kind.KEYS: lambda b: msg.encode_keys(k.context(), msg.decode_keys(b)[1])[48:] == b[48:],
        msg.Kind.RELAY: lambda b: msg.encode_relay(msg.decode_relay(b, proof)) == b,
        msg.Kind.SURVIVORS: lambda b: msg.encode_survivors(msg.decode_survivors(b)) == b,
        msg.Kind.REQUEST: lambda b: msg.encode_request(*msg.decode_request(b, 2, 5, 1)) == b,
        msg.Kind.UPLOAD: lambda b: msg.encode_upload(msg.decode_upload(b, 2, 1)) == b,
    }
    parsed = 0
    for n in range(COUNT // 4):
        kind = list(parsers)[n % len(parsers)]
        body = damage(by_kind[kind].body, dice)
        try:
            assert parsers[kind](body)
            parsed += 1
        except RemoteError as error:
            assert error.code in (AbortCode.MALFORMED_FRAME, AbortCode.BAD_CIPHERTEXT)
    assert parsed, "some mutations only change values"
