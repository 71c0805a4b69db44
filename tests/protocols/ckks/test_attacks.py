"""What breaks other uses of CKKS, on real parameters: each attack wins where it should, and fails here."""

from typing import Any

import numpy as np
import pytest

from merveil.protocols.ckks import encoding, ring, seal
from merveil.protocols.ckks.constants import BITS, DATA, DEGREE, PRIMES
from merveil.protocols.ckks.params import CkksParams
from merveil.protocols.errors import AbortCode, Aborted, RemoteError
from merveil.protocols.ledger import RoundState
from merveil.protocols.simulation.driver import Traffic

P = CkksParams("ckks", 5, 4096, threshold=4, corrupt=1)
PRIME = np.array(PRIMES[:DATA])[:, None]


def divide(x: Any, y: Any) -> Any:
    """x / y in NTT form; y is invertible almost surely."""
    inverse = np.array([[pow(int(v), -1, PRIMES[r]) for v in y[0, r]] for r in range(DATA)])[None]
    return ring.multiply(x, inverse)


def solved_key(c0: Any, c1: Any, plain: Any) -> Any:
    """s from c0 + c1*s = plain: what a holder of a ciphertext and its exact raw decryption computes."""
    return ring.inverse(divide(ring.add(plain.copy(), ring.negate(c0)), c1))


def ternary_share(x: Any) -> float:
    """Share of coefficients that are -1, 0 or 1 modulo both primes; 3/p by chance."""
    return float((np.minimum(x, PRIME - x) <= 1).all(axis=1).mean())


def test_raw_floats_give_the_key_away() -> None:
    """IND-CPA-D, positive control: TenSEAL's own key, ciphertext and decoded floats, N = 4096, [36, 36, 34].

    Li and Micciancio, EUROCRYPT 2021: the decoded complex values are m + e; encoding them again gives the
    exact plaintext polynomial, and a division gives the secret key.
    """
    sealapi = pytest.importorskip("tenseal.sealapi", reason="needs the ckks extra")
    settings = sealapi.EncryptionParameters(sealapi.SCHEME_TYPE.CKKS)
    settings.set_poly_modulus_degree(DEGREE)
    settings.set_coeff_modulus(sealapi.CoeffModulus.Create(DEGREE, list(BITS)))
    context = sealapi.SEALContext(settings, True, sealapi.SEC_LEVEL_TYPE.TC128)
    keys, public = sealapi.KeyGenerator(context), sealapi.PublicKey()
    keys.create_public_key(public)
    encoder, plain, sent = sealapi.CKKSEncoder(context), sealapi.Plaintext(), sealapi.Ciphertext()
    encoder.encode([0.25, -1.5, 3.0], 2.0**30, plain)
    sealapi.Encryptor(context, public).encrypt(plain, sent)
    opened = sealapi.Plaintext()
    sealapi.Decryptor(context, keys.secret_key()).decrypt(sent, opened)
    floats = np.array(encoder.decode_complex(opened))  # what is published
    held = sent.dyn_array()
    flat = np.array([held.at(i) for i in range(2 * DATA * DEGREE)], dtype=np.int64)
    c0, c1 = flat.reshape(2, 1, DATA, DEGREE)
    found = solved_key(c0, c1, reencoded(floats, 2.0**30))
    assert ternary_share(found) == 1.0, "every coefficient of the secret key"


def reencoded(slots: Any, scale: float) -> Any:
    where, twist = encoding._roots()
    table = np.zeros(DEGREE, dtype=complex)
    table[where], table[DEGREE - 1 - where] = slots, np.conj(slots)
    polynomial = np.rint((np.fft.fft(table) / DEGREE / twist).real * scale).astype(np.int64)
    return ring.forward(ring.residues(polynomial[None], DATA))


def test_neither_the_sum_nor_the_servers_view_gives_the_key_away(keys: Any) -> None:
    """The same division on what is published (exact integers), and on what the server sees (smudged)."""
    k = keys(P)
    for seed in range(3):
        codes = k.codes(seed)
        c0, c1 = k.encrypt(codes)
        published = encoding.message(P, encoding.to_limbs(P, codes))
        seen = k.open(c0, c1, (1, 2, 3, 5))
        assert ternary_share(solved_key(c0, c1, published)) == 0.0
        assert ternary_share(solved_key(c0, c1, seen)) == 0.0
        exact = ring.multiply_add(c0.copy(), c1, ring.forward(ring.residues(k.secret, DATA)))
        found = solved_key(c0, c1, exact)
        assert (np.minimum(found, PRIME - found) <= 5).all(), "without smudging the same division wins"


def test_less_than_t_keys_open_nothing_and_t_open_everything(keys: Any) -> None:
    """t - 1 = 3 holders pool their shares and every answer, without any smudging."""
    k = keys(P)
    codes = k.codes(7)
    c0, c1 = k.encrypt(codes)
    limbs = encoding.to_limbs(P, codes)
    for pooled, opens in (((1, 2, 4), False), ((1, 2, 3, 4), True)):
        total = c0.copy()
        for i in pooled:
            ring.add(total, k.answer(i, pooled, c1, sigma=1e-9))
        found, quiet = encoding.read(P, total)
        assert quiet is opens and (found == limbs).mean() == (1.0 if opens else pytest.approx(0, abs=0.01))
        if not opens:
            assert abs(np.corrcoef(found.reshape(-1), limbs.reshape(-1))[0, 1]) < 5 / np.sqrt(DEGREE)


def test_where_all_share_one_key_anyone_reads_anyone(keys: Any) -> None:
    """Control: the arrangement of peers, in which every client holds the secret key (`shared`)."""
    k = keys(P)
    codes = k.codes(8)
    c0, c1 = k.encrypt(codes)
    opened = ring.multiply_add(c0.copy(), c1, ring.forward(ring.residues(k.secret, DATA)))
    assert np.array_equal(encoding.from_limbs(P, encoding.read(P, opened)[0]), codes)


def test_no_joint_secret_appears_anywhere(kit: Any) -> None:
    """No frame of a round holds a secret key in clear, in NTT form as it would be sent."""
    k = kit("ckks", cohort=5, dim=8)
    traffic = Traffic(frames=[])
    clients = {i: k.client(i) for i in k.context().cohort}
    secrets = []
    for c in clients.values():
        c.start()
        secrets.append(c._state.secret)
    k.ledgers.clear()
    k.run(traffic=traffic)
    raw = [ring.forward(ring.residues(s, DATA)) for s in secrets]
    assert all(encoded(s) not in f.body for s in raw for f in traffic.frames or ())


def encoded(x: Any) -> bytes:
    from merveil.protocols.ckks.wire import encode_polynomials

    return encode_polynomials(x)[:64]


# A31: decryption oracles


class Crafted:
    """A malicious client: its upload is (0, K), so that the sum holds K times the joint secret."""

    def __init__(self, session: Any, factor: int) -> None:
        self._session, self._factor = session, factor
        self.uploads: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def forge(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from merveil.protocols.ckks import client

        true = client.encryption.encrypt

        def encrypt(joint: Any, common: Any, params: Any, limbs: Any, rng: Any) -> Any:
            if rng is not self._session._seat.rng:
                return true(joint, common, params, limbs, rng)
            constant = np.array([self._factor % p for p in PRIMES[:DATA]], dtype=np.int64)
            c1 = np.broadcast_to(constant[None, :, None], (limbs.shape[0], DATA, DEGREE)).copy()
            return np.zeros_like(c1), c1

        monkeypatch.setattr(client.encryption, "encrypt", encrypt)


def test_a_malicious_client_reads_the_key_off_the_sum(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Declared non-claim (A31): with one crafted ciphertext the announced sum holds the joint secret.

    The others' codes lie on a coarse grid here, so the secret is what is left over; then the attacker, who
    has the traffic, opens a victim's upload.
    """
    from merveil.protocols.ckks import messages as msg
    from merveil.protocols.ckks.wire import decode_polynomials
    from merveil.protocols.simulation.driver import Driver

    k = kit("ckks", cohort=5, dim=4096)
    inputs = {i: np.full(4096, 100 * (7 * i - 20), dtype=np.int64) for i in k.context().cohort}
    inputs[2][:] = 100 * np.random.default_rng(1).integers(-300, 300, 4096)
    sessions = {i: k.client(i) for i in inputs}
    layout = k.params.layout
    Crafted(sessions[5], layout.delta * PRIMES[0] + 1).forge(monkeypatch)
    traffic = Traffic(frames=[])
    outcome = Driver(k.server(), sessions, k.phases, None, traffic).run(inputs)
    secret = (outcome.codes + 50) % 100 - 50  # the joint secret's coefficients, at most 5 in magnitude
    assert np.abs(secret).max() <= 5
    (frame,) = [f for f in traffic.frames or () if f.sender == 2 and f.kind == msg.Kind.UPLOAD]
    upload = msg.decode_upload(frame.body, 2, 1)
    c0, c1 = (decode_polynomials(x, 1, DATA, 2) for x in (upload.c0, upload.c1))
    opened = ring.multiply_add(c0, c1, ring.forward(ring.residues(secret[None], DATA)))
    assert np.array_equal(encoding.from_limbs(k.params, encoding.read(k.params, opened)[0]), inputs[2])


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


def test_a_tenseal_context_with_the_joint_key_has_no_secret(keys: Any) -> None:
    pytest.importorskip("tenseal", reason="needs the ckks extra")
    k = keys(P)
    assert not seal.context(k.joint, k.common, 2.0**40).has_secret_key()
