"""What each party of `ckks` refuses, check by check; attacks are in tests/attacks and audits."""

from typing import Any

import numpy as np
import pytest

from merveil.protocols.ckks import ring, seal
from merveil.protocols.ckks.constants import DATA
from merveil.protocols.ckks.params import CkksParams
from merveil.protocols.ckks.wire import encode_polynomials
from merveil.protocols.errors import AbortCode, Aborted, RemoteError
from merveil.protocols.ledger import RoundState
from merveil.protocols.simulation.driver import Traffic

P = CkksParams("ckks", 5, 4096, threshold=4, corrupt=1)


def test_no_secret_key_crosses(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """No frame of a round holds a secret key in clear, in NTT form as it would be sent."""
    from merveil.protocols.ckks import encryption

    true, secrets = encryption.key_pair, []

    def key_pair(common: Any, rng: Any) -> Any:
        secrets.append(true(common, rng))
        return secrets[-1]

    monkeypatch.setattr(encryption, "key_pair", key_pair)
    traffic = Traffic(frames=[])
    kit("ckks", cohort=5, dim=8).run(traffic=traffic)
    assert len(secrets) == 5
    bodies = b"".join(f.body for f in traffic.frames or ())
    for secret, public in secrets:
        assert encode_polynomials(public) in bodies, "what is public crosses as it is encoded here"
        for form in (ring.forward(ring.residues(secret, DATA)), ring.residues(secret, DATA)):
            assert encode_polynomials(form)[:64] not in bodies


# A31, A34: decryption oracles


@pytest.fixture
def asked(kit: Any) -> Any:
    """A round up to the request: (kit, sessions, server, requests by client)."""
    from merveil.protocols.ckks import messages as msg

    k = kit("ckks", cohort=6, dim=9)
    sessions = {i: k.client(i) for i in k.context().cohort}
    server, requests = k.server(), {}
    queue = list(server.start())
    for i, s in sessions.items():
        queue += [*s.start(), *s.submit(k.codes(i))]
    while queue:
        f = queue.pop(0)
        if f.kind == msg.Kind.REQUEST:
            requests[f.to] = f
        elif f.to:
            queue += sessions[f.to].receive(0, f.encode())
        else:
            queue += server.receive(f.sender, f.encode())
    return k, sessions, server, requests


def lying(k: Any, server: Any, requests: Any, to: int, parts: Any, signers: Any = None) -> bytes:
    """A request of the server's own making to one decryptor."""
    from dataclasses import replace

    from merveil.protocols.ckks import messages as msg

    book = server._book
    signed = {i: book.signatures[i] for i in (signers or book.decryptors)}
    return replace(requests[to], body=msg.encode_request(signed, parts(book))).encode()


@pytest.mark.parametrize(
    ("what", "parts"),
    [
        ("one client's ciphertext for all", lambda book: [book.parts[2]] * len(book.alive)),
        ("two parts swapped", lambda book: [book.parts[i] for i in (2, 1, *book.alive[2:])]),
        (
            "a part that was never signed",
            lambda book: [(bytes(64), book.parts[1][1]), *[book.parts[i] for i in book.alive[1:]]],
        ),
    ],
)
def test_the_servers_choice_of_ciphertext_is_refused(asked: Any, what: str, parts: Any) -> None:
    k, sessions, server, requests = asked
    victim = server._book.decryptors[0]
    with pytest.raises(Aborted) as caught:
        sessions[victim].receive(0, lying(k, server, requests, victim, parts))
    assert caught.value.code is AbortCode.BAD_CIPHERTEXT and not caught.value.released
    assert k.ledger(victim).state(k.roster.federation, 1)[1] is RoundState.MASKED


def test_fewer_or_forged_signatures_are_refused(asked: Any) -> None:
    k, sessions, server, requests = asked
    book = server._book
    full = lambda book: [book.parts[i] for i in book.alive]  # noqa: E731
    first, second = book.decryptors[:2]
    with pytest.raises(Aborted) as caught:
        sessions[first].receive(0, lying(k, server, requests, first, full, book.decryptors[:-1]))
    assert caught.value.code is AbortCode.BELOW_THRESHOLD
    book.signatures[book.decryptors[-1]] = bytes(64)
    with pytest.raises(Aborted) as caught:
        sessions[second].receive(0, lying(k, server, requests, second, full))
    assert caught.value.code is AbortCode.BAD_SIGNATURE


def test_one_subset_a_ciphertext_ever(asked: Any) -> None:
    """A34: after its answer a decryptor answers no other subset, under no attempt; a repeat gives nothing."""
    k, sessions, server, requests = asked
    book = server._book
    i = book.decryptors[0]
    (answer,) = sessions[i].receive(0, requests[i].encode())
    assert sessions[i]._state.share is None, "the key share is gone"
    assert sessions[i].receive(0, requests[i].encode()) == () and sessions[i].late == 1
    others = sorted(set(book.signatures) - {book.decryptors[-1]})[: k.params.threshold]
    full = lambda book: [book.parts[i] for i in book.alive]  # noqa: E731
    with pytest.raises(RemoteError):
        sessions[i].receive(0, lying(k, server, requests, i, full, others))
    for attempt in (1, 2):
        with pytest.raises(Aborted) as caught:
            k.client(i, attempt=attempt).start()
        assert caught.value.code is AbortCode.ROUND_REUSED and caught.value.released
    assert len(answer.body) > 1000


def test_a_lost_decryptor_burns_the_round(asked: Any) -> None:
    _, sessions, server, requests = asked
    for i in server._book.decryptors[1:]:
        (answer,) = sessions[i].receive(0, requests[i].encode())
        server.receive(i, answer.encode())
    with pytest.raises(Aborted) as caught:
        server.close_phase()
    assert caught.value.code is AbortCode.BELOW_THRESHOLD and caught.value.released
    assert str(server._book.decryptors[0]) in str(caught.value)


def test_those_who_do_not_decrypt_close_the_round_too(asked: Any) -> None:
    """Everyone's share is destroyed: a server that kept a share's holder waiting could ask again later."""
    k, sessions, server, requests = asked
    outside = sorted(set(requests) - set(server._book.decryptors))
    assert outside
    for i in outside:
        (frame,) = sessions[i].receive(0, requests[i].encode())
        assert len(frame.body) == 32 and sessions[i]._state.share is None
        assert k.ledger(i).state(k.roster.federation, 1)[1] is RoundState.ANSWERED


def test_a_wrong_answer_is_noticed(asked: Any) -> None:
    """One decryptor lies: the sum is uniform noise and the server says so instead of returning it."""
    from dataclasses import replace

    k, sessions, server, requests = asked
    with pytest.raises(Aborted) as caught:
        for n, i in enumerate(requests):
            (answer,) = sessions[i].receive(0, requests[i].encode())
            if n == 2 and len(answer.body) > 32:
                body = answer.body[:32] + answer.body[40:] + answer.body[32:40]
                key = k.federation.identities[i - 1].sign_key
                answer = replace(answer, body=body).signed(key, server._book.sid)
            server.receive(i, answer.encode())
    assert caught.value.code in (AbortCode.BAD_SHARE, AbortCode.BELOW_THRESHOLD) and caught.value.released


def test_ten_clients_with_three_gone_before_the_choice(kit: Any) -> None:
    """n = 10, d = 100,000: three decryptors lost before the subset is chosen cost nothing."""
    from merveil.protocols.session import Phase

    k = kit("ckks", cohort=10, dim=100_000)
    outcome = k.run({2: Phase.CHECK, 5: Phase.CHECK, 9: Phase.CHECK})
    assert len(outcome.survivors) == 10 and np.array_equal(outcome.codes, k.total(outcome.survivors))


def test_ten_clients_with_one_decryptor_lost_while_answering(kit: Any) -> None:
    """n = 10, t = 7: six of seven answers are in. A typed abort that says so; nobody answers again."""
    from merveil.protocols.session import Phase

    k = kit("ckks", cohort=10, dim=100_000)
    with pytest.raises(Aborted) as caught:
        k.run({4: Phase.UNMASK})
    assert caught.value.code is AbortCode.BELOW_THRESHOLD and caught.value.released
    assert "1 of 7 decryptors did not answer; missing: [4]" in str(caught.value)
    for i in range(1, 11):
        if i != 4:
            assert k.ledger(i).state(k.roster.federation, 1)[1] is RoundState.ANSWERED
            with pytest.raises(Aborted) as again:
                k.client(i, attempt=2).start()
            assert again.value.code is AbortCode.ROUND_REUSED


def test_a_tenseal_context_with_the_joint_key_has_no_secret(keys: Any) -> None:
    pytest.importorskip("tenseal", reason="needs the ckks extra")
    k = keys(P)
    assert not seal.context(k.joint, k.common, 2.0**40).has_secret_key()
