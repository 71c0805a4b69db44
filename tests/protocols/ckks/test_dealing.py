"""A bad dealing convicts its dealer, a false complaint its holder, and a meddling relay reads no share."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from merveil.protocols.ckks import dealing, encryption, ring
from merveil.protocols.ckks import messages as msg
from merveil.protocols.ckks import proof as proofs
from merveil.protocols.ckks.constants import CIPHERTEXT_BYTES, DATA, PRIMES
from merveil.protocols.ckks.messages import Kind
from merveil.protocols.errors import AbortCode, Aborted
from merveil.protocols.rng import SeededRng

DEALER, VICTIM = 2, 4


def play(
    kit: Any, on_relay: Callable[..., Any] | None = None
) -> tuple[Any, Any, dict[int, Any], Aborted | None]:
    """A round up to its uploads: (kit, server, sessions, what the victim ended with)."""
    k = kit("ckks", cohort=6, dim=9)
    sessions, server = {i: k.client(i) for i in k.context().cohort}, k.server()
    queue, ended = list(server.start()), None
    for i, s in sessions.items():
        queue += [*s.start(), *s.submit(k.codes(i))]
    while queue:
        f = queue.pop(0)
        if f.kind == Kind.RELAY and f.to == VICTIM and on_relay:
            f = on_relay(k, f)
        if f.kind == Kind.SURVIVORS:
            continue
        if not f.to:
            queue += server.receive(f.sender, f.encode())
            continue
        try:
            queue += sessions[f.to].receive(0, f.encode())
        except Aborted as error:
            ended = error
            queue += error.frames
    return k, server, sessions, ended


def cheat(monkeypatch: pytest.MonkeyPatch, spoil: Callable[[dict[int, Any]], Any]) -> None:
    """The dealer deals shares of its own making to the victim; commitments and proof are made over these."""
    true = encryption.share_at
    first = {"dealer": 0}

    def share_at(f: Any, x: int) -> Any:
        share = true(f, x)
        return spoil(share) if first["dealer"] == DEALER and x == VICTIM else share

    prove = dealing._prove

    def marked(seat: Any, *rest: Any) -> Any:
        first["dealer"] = seat.index
        return prove(seat, *rest)

    monkeypatch.setattr(encryption, "share_at", share_at)
    monkeypatch.setattr(dealing, "_prove", marked)


def one_coefficient(share: Any) -> Any:
    share[0, 1, 77] = (share[0, 1, 77] + 1) % PRIMES[1]
    return share


@pytest.mark.parametrize(
    "spoil", [one_coefficient, np.zeros_like, lambda s: ring.negate(s)], ids=["one", "zeros", "negated"]
)
def test_a_share_off_the_polynomial_convicts_its_dealer(
    kit: Any, monkeypatch: pytest.MonkeyPatch, spoil: Any
) -> None:
    """Both the holder and, by its complaint, the server name the dealer; nothing has been released."""
    cheat(monkeypatch, spoil)
    with pytest.raises(Aborted) as caught:
        play(kit)
    assert caught.value.code is AbortCode.BAD_SHARE and not caught.value.released
    assert set(caught.value.culprits) == {DEALER} and f"client {DEALER} dealt" in str(caught.value)


def test_the_holder_says_who_it_was(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from merveil.protocols.ckks.server import CkksServer

    cheat(monkeypatch, one_coefficient)
    monkeypatch.setattr(CkksServer, "_take_complaint", lambda *_: None)
    _, _, _, ended = play(kit)
    assert ended is not None and ended.code is AbortCode.BAD_SHARE and set(ended.culprits) == {DEALER}


def test_what_was_committed_must_be_what_is_dealt(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A box whose content is another than its node says, on the polynomial or not."""
    true = dealing._prove

    def prove(seat: Any, *rest: Any) -> Any:
        plains, proof = true(seat, *rest)
        if seat.index == DEALER:
            plains[VICTIM] = plains[VICTIM][: -msg.SALT] + bytes(msg.SALT)
        return plains, proof

    monkeypatch.setattr(dealing, "_prove", prove)
    with pytest.raises(Aborted) as caught:
        play(kit)
    assert caught.value.code is AbortCode.BAD_SHARE and set(caught.value.culprits) == {DEALER}


def test_an_honest_dealing_convicts_nobody(kit: Any) -> None:
    _, server, _, ended = play(kit)
    assert ended is None and not server.excluded and len(server._book.parts) == 6


def test_a_false_complaint_convicts_its_holder(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from merveil.protocols.ckks import client

    true = client.open_share

    def open_share(seat: Any, state: Any, dealer: int, dealt: Any) -> Any:
        found = true(seat, state, dealer, dealt)
        return None if (seat.index, dealer) == (VICTIM, DEALER) else found

    monkeypatch.setattr(client, "open_share", open_share)
    _, server, _, _ = play(kit)
    assert server.excluded == {VICTIM: AbortCode.BAD_SHARE} and len(server._book.parts) == 5


def test_a_complaint_with_a_wrong_key_convicts_its_sender(kit: Any) -> None:
    k, server, sessions, _ = play(kit, on_relay=lambda k, f: replace(f, body=f.body[:-1] + b"\x00"))
    assert len(server._book.parts) == 5
    body = msg.encode_complaint(DEALER, bytes(32))
    frame = sessions[1]._frame(Kind.COMPLAINT, body, server._book.sid)
    forged = replace(frame, sender=VICTIM).signed(
        k.federation.identities[VICTIM - 1].sign_key, server._book.sid
    )
    server.receive(VICTIM, forged.encode())
    assert server.excluded == {VICTIM: AbortCode.BAD_KEY}


def proof_spoilt(k: Any, f: Any) -> Any:
    entries = msg.decode_relay(f.body, msg.proof_size(6, k.params.threshold))
    bad = bytearray(entries[DEALER].proof)
    bad[-1] ^= 1
    entries[DEALER] = replace(entries[DEALER], proof=bytes(bad))
    return replace(f, body=msg.encode_relay(entries))


def test_a_relay_that_changes_a_proof_gets_no_complaint(kit: Any) -> None:
    """A complaint shows a share: a lying server must not be able to call one forth."""
    _, _, _, ended = play(kit, on_relay=proof_spoilt)
    assert ended is not None and ended.code is AbortCode.BAD_KEY and ended.frames == ()


def test_the_response_is_masked_and_the_challenge_depends_on_everything() -> None:
    rng, t = SeededRng(1), 4
    f = encryption.polynomial(np.ones((1, 4096), dtype=np.int64), t, rng)
    mask = proofs.masks(t, rng)
    one = proofs.challenge(bytes(32), 1, bytes(32), b"nodes")
    others = [
        proofs.challenge(b"\x01" * 32, 1, bytes(32), b"nodes"),
        proofs.challenge(bytes(32), 2, bytes(32), b"nodes"),
        proofs.challenge(bytes(32), 1, b"\x01" * 32, b"nodes"),
        proofs.challenge(bytes(32), 1, bytes(32), b"other"),
    ]
    assert all((one != x).mean() > 0.99 for x in others)
    bare, masked = (proofs.respond(f, m, one) for m in ([((0, 0),) * msg.REPEATS] * t, mask))
    assert bare[0] != masked[0] and bare == [
        tuple(tuple(int(v) for v in row) for row in ring.inner(f, one)[k]) for k in range(t)
    ]
    assert proofs.decode_scalars(proofs.encode_scalars(masked)) == masked
    assert proofs.decode_scalars(PRIMES[0].to_bytes(8, "big") * 2 * msg.REPEATS) is None


def test_inner_products_are_exact() -> None:
    rng = np.random.default_rng(0)
    a, b = (np.stack([rng.integers(p - 9, p, (3, 4096)) for p in PRIMES[:DATA]], axis=1) for _ in range(2))
    found = ring.inner(a, b)
    for k in range(3):
        for r, p in enumerate(PRIMES[:DATA]):
            assert found[k, 1, r] == sum(int(x) * int(y) for x, y in zip(a[k, r], b[1, r])) % p
    assert msg.BOX == CIPHERTEXT_BYTES + 32 + 32 + 16


def test_a_key_that_was_not_committed_to_is_refused(kit: Any) -> None:
    """By the client where the relay shows another b, and by the server where the dealer sends one."""

    def other_key(k: Any, f: Any) -> Any:
        entries = msg.decode_relay(f.body, msg.proof_size(6, k.params.threshold))
        entries[DEALER] = replace(entries[DEALER], public=entries[1].public)
        return replace(f, body=msg.encode_relay(entries))

    _, _, _, ended = play(kit, on_relay=other_key)
    assert ended is not None and ended.code is AbortCode.BAD_KEY and "committed" in str(ended)


def test_the_server_refuses_a_key_that_was_not_committed_to(
    kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from merveil.protocols.ckks import client

    true = client.seal_shares

    def seal_shares(seat: Any, state: Any, *rest: Any) -> Any:
        if seat.index == DEALER:
            state.salt = bytes(msg.SALT)
        return true(seat, state, *rest)

    monkeypatch.setattr(client, "seal_shares", seal_shares)
    k = kit("ckks", cohort=6, dim=9)
    sessions, server = {i: k.client(i) for i in k.context().cohort}, k.server()
    server.start()
    keys = [f for s in sessions.values() for g in s.start() for f in server.receive(g.sender, g.encode())]
    for f in keys:
        for g in sessions[f.to].receive(0, f.encode()):
            server.receive(g.sender, g.encode())
    assert server.excluded == {DEALER: AbortCode.BAD_KEY} and DEALER not in server._book.dealt
