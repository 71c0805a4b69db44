"""A hostile server, hostile members and unlucky ones: what opens a sum, and what nobody gets."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from merveil.protocols.errors import AbortCode, Aborted, LocalError, RemoteError, SessionSpent
from merveil.protocols.frame import SERVER, Frame
from merveil.protocols.lattice import messages as msg
from merveil.protocols.lattice import packed
from merveil.protocols.lattice.committee import Ends, committee, dealer_key
from merveil.protocols.lattice.encryption import Key, mask
from merveil.protocols.lattice.messages import SUITE, Kind
from merveil.protocols.ledger import Ledger, RoundState
from merveil.protocols.primitives.aead import seal_once
from merveil.protocols.primitives.agreement import private_key, public_bytes
from merveil.protocols.rng import SeededRng
from merveil.protocols.session import Phase
from merveil.protocols.survivors import to_bitmap


class Stage:
    """A round stopped where a test wants it: uploads, lists, signatures and requests of the server."""

    def __init__(self, k: Any, **changes: Any) -> None:
        self.k = k
        self.context = k.context(**changes)
        self.members = committee(k.params, changes.get("roster", k.roster), self.context.cohort)
        self.clients = {i: k.client(i, **changes) for i in self.context.cohort}
        self.uploads: dict[int, msg.Upload] = {}
        for i, c in self.clients.items():
            assert c.start() == ()
            (frame,) = c.submit(k.codes(i))
            self.uploads[i] = msg.decode_upload(k.params, frame.body, i)

    def list_for(self, member: int, alive: tuple[int, ...], **swap: Mapping[int, bytes]) -> bytes:
        """A SURVIVORS frame. swap: boxes or ephemeral keys to show instead of the true ones."""
        size, j = msg.box_size(self.k.params), self.members.index(member)
        dealt = []
        for i in sorted(alive):
            box = self.uploads[i].boxes[j * size : (j + 1) * size]
            dealt.append(
                msg.Dealt(
                    swap.get("ephemeral", {}).get(i, self.uploads[i].ephemeral),
                    swap.get("box", {}).get(i, box),
                )
            )
        bitmap = to_bitmap([self.context.cohort.index(i) for i in sorted(alive)], len(self.context.cohort))
        return self.frame(Kind.SURVIVORS, member, msg.encode_survivors(bitmap, dealt))

    def frame(self, kind: Kind, to: int, body: bytes) -> bytes:
        return Frame(SUITE, kind, self.context.digest[:16], SERVER, to, body).encode()

    def sign(self, alive: tuple[int, ...], members: tuple[int, ...] | None = None) -> dict[int, bytes]:
        """What the members sign when they are shown a list."""
        found = {}
        for m in members or self.members:
            (frame,) = self.clients[m].receive(SERVER, self.list_for(m, alive))
            found[m] = frame.signature
        return found

    def request(self, member: int, signatures: Mapping[int, bytes]) -> bytes:
        return self.frame(Kind.REQUEST, member, msg.encode_request(signatures))


@pytest.fixture
def stage(kit: Any) -> Any:
    return lambda cohort=8, **options: Stage(kit("lattice", cohort=cohort, dim=9, **options))


def refused(call: Any, code: AbortCode) -> Aborted:
    with pytest.raises(Aborted) as caught:
        call()
    assert caught.value.code is code, caught.value
    return caught.value


# One list a round


def test_a_member_signs_one_list_and_ends_when_it_is_shown_another(stage: Any) -> None:
    s = stage()
    everyone = s.context.cohort
    m = s.members[0]
    s.sign(everyone, (m,))
    refused(lambda: s.clients[m].receive(SERVER, s.list_for(m, everyone[:-1])), AbortCode.ROSTER_MISMATCH)
    assert s.clients[m].phase is Phase.ABORTED


def test_two_lists_never_both_have_a_quorum(stage: Any) -> None:
    """The server shows one list to some members and another to the rest: no split gives two quorums, and
    without a quorum on its own list no member answers."""
    s = stage()
    everyone, fewer, t = s.context.cohort, s.context.cohort[:-1], s.k.params.quorum
    spared = [m for m in s.members if m in fewer]
    first = s.sign(everyone, tuple(s.members[:4]))
    second = s.sign(fewer, tuple(m for m in spared if m not in s.members[:4]))
    assert len(first) < t and len(second) < t
    for m, own in [(m, first) for m in first] + [(m, second) for m in second]:
        both = {**first, **second}
        refused(
            lambda m=m, both=both: s.clients[m].receive(SERVER, s.request(m, both)), AbortCode.BAD_SIGNATURE
        )
        assert own


@pytest.mark.parametrize("resigned", [False, True])
def test_a_round_whose_list_was_signed_is_never_tried_again(stage: Any, resigned: bool) -> None:
    """Whoever signed refuses every later attempt, whether it answered or not; so an attempt that was opened
    in part leaves no quorum for another (docs/lattice.md)."""
    s = stage()
    signatures = s.sign(s.context.cohort)
    if resigned:
        m = s.members[0]
        s.clients[m].receive(SERVER, s.request(m, signatures))
    for m in s.members:
        again = s.k.client(m, attempt=2)
        error = refused(again.start, AbortCode.ROUND_REUSED)
        assert error.released and again.phase is Phase.ABORTED


def test_the_signature_is_durable_before_it_leaves(stage: Any) -> None:
    s = stage()
    m = s.members[1]
    ledger = s.k.ledger(m)

    class Full:
        def load(self) -> bytes | None:
            return None

        def save(self, data: bytes) -> None:
            raise OSError(28, "No space left on device")

    ledger._store = Full()
    with pytest.raises(OSError):
        s.clients[m].receive(SERVER, s.list_for(m, s.context.cohort))
    assert s.clients[m].phase is Phase.ABORTED


def test_another_committee_never_gets_the_vector_of_the_same_round(kit: Any) -> None:
    """A roster renewed within a round has other members; who masked before refuses to do so again."""
    k = kit("lattice", cohort=40, dim=3, spare=2)
    members = [i.member for i in k.federation.identities]
    renewed = k.federation.coordinator.sign(
        members, serial=2, not_before=k.roster.not_before, expires=k.roster.expires, rng=SeededRng(9)
    )
    old = set(committee(k.params, k.roster, k.context().cohort))
    new = set(committee(k.params, renewed, k.context(roster=renewed).cohort))
    assert old != new
    i = next(i for i in k.context().cohort if i in k.context(roster=renewed, attempt=2).cohort)
    first = k.client(i)
    first.start()
    first.submit(k.codes(i))
    again = k.client(i, roster=renewed, attempt=2)
    again.start()
    error = refused(lambda: again.submit(k.codes(i)), AbortCode.ROUND_REUSED)
    assert error.released
    other = k.client(i, roster=renewed, round=2)
    other.start()
    assert len(other.submit(k.codes(i))) == 1


def test_the_committee_stays_over_rounds_and_attempts(kit: Any) -> None:
    k = kit("lattice", cohort=40, dim=3)
    found = {
        committee(k.params, k.roster, k.context(round=r, attempt=a).cohort) for r in (1, 9) for a in (1, 3)
    }
    assert len(found) == 1 and len(next(iter(found))) == 30


# What a list must hold


def test_a_list_below_the_floor_is_refused(stage: Any) -> None:
    s = stage()
    m = s.members[0]
    few = tuple(sorted({m, *s.context.cohort[: s.k.params.threshold - 1]}))[: s.k.params.threshold - 1]
    few = few if m in few else (*few[:-1], m)
    refused(lambda: s.clients[m].receive(SERVER, s.list_for(m, few)), AbortCode.BELOW_THRESHOLD)


def test_a_list_without_the_member_itself_is_refused(stage: Any) -> None:
    s = stage()
    m = s.members[0]
    others = tuple(i for i in s.context.cohort if i != m)
    refused(lambda: s.clients[m].receive(SERVER, s.list_for(m, others)), AbortCode.ROSTER_MISMATCH)


BOXES = ("another member's box", "another dealer's box", "another key", "a forged box", "an old round's box")


@pytest.mark.parametrize("what", BOXES)
def test_a_box_that_its_dealer_did_not_seal_for_this_member_here(stage: Any, what: str) -> None:
    s = stage()
    m, victim, size = s.members[0], s.context.cohort[-1], msg.box_size(s.k.params)
    boxes = s.uploads[victim].boxes
    swap: dict[str, dict[int, bytes]] = {}
    if what == "another member's box":
        swap = {"box": {victim: boxes[size : 2 * size]}}
    elif what == "another dealer's box":
        swap = {"box": {victim: s.uploads[s.context.cohort[0]].boxes[:size]}}
    elif what == "another key":
        swap = {"ephemeral": {victim: public_bytes(private_key(b"k" * 32))}}
    elif what == "a forged box":  # by the server: it knows an ephemeral key, but not the dealer's static one
        scalar = private_key(b"k" * 32)
        ends = Ends(s.context.digest, victim, m, public_bytes(scalar))
        own = private_key(b"z" * 32)
        key = dealer_key(ends, scalar, own, s.k.roster.member(m).agree_key)
        share = packed.encode(s.k.params, np.zeros(s.k.params.blocks, dtype=np.int64))
        swap = {"box": {victim: seal_once(key, share, ends.aad())}, "ephemeral": {victim: ends.ephemeral}}
    else:
        late = Stage(s.k, round=2)
        swap = {"box": {victim: late.uploads[victim].boxes[:size]},
                "ephemeral": {victim: late.uploads[victim].ephemeral}}  # fmt: skip
    refused(lambda: s.clients[m].receive(SERVER, s.list_for(m, s.context.cohort, **swap)), AbortCode.BAD_KEY)
    assert s.k.ledger(m).state(s.k.roster.federation, 1) == (1, RoundState.MASKED)


def test_an_ephemeral_key_of_low_order_is_refused(stage: Any) -> None:
    s = stage()
    m = s.members[0]
    low = {"ephemeral": {s.context.cohort[-1]: bytes(32)}}
    refused(lambda: s.clients[m].receive(SERVER, s.list_for(m, s.context.cohort, **low)), AbortCode.BAD_KEY)


# What a request must hold


@pytest.mark.parametrize("what", ["one too few", "a stranger", "a forgery", "nobody"])
def test_a_request_without_a_quorum_on_the_own_list(stage: Any, what: str) -> None:
    s = stage(cohort=32)
    signatures, t = s.sign(s.context.cohort), s.k.params.quorum
    m = s.members[0]
    shown, code = dict(list(signatures.items())[: t - 1]), AbortCode.BELOW_THRESHOLD
    if what == "a stranger":
        stranger = next(i for i in s.context.cohort if i not in s.members)
        key = s.k.federation.identities[stranger - 1].sign_key
        root = s.clients[m]._state.root
        frame = Frame(SUITE, Kind.SIGNED, s.context.digest[:16], stranger, 0, root)
        shown[stranger] = frame.signed(key, s.context.digest).signature
        code = AbortCode.BAD_SIGNATURE
    elif what == "a forgery":
        shown[s.members[t]] = bytes(64)
        code = AbortCode.BAD_SIGNATURE
    elif what == "nobody":
        shown = {}
    refused(lambda: s.clients[m].receive(SERVER, s.request(m, shown)), code)
    assert s.k.ledger(m).state(s.k.roster.federation, 1) == (1, RoundState.MASKED)


def test_an_answer_is_given_once_and_then_nothing_is_left(stage: Any) -> None:
    s = stage()
    signatures = s.sign(s.context.cohort)
    m = s.members[0]
    client = s.clients[m]
    assert client._state.share and client._state.secret is None and not client._state.boxes
    (answer,) = client.receive(SERVER, s.request(m, signatures))
    assert answer.kind == Kind.ANSWER and client.phase is Phase.DONE
    state = client._state
    assert (state.secret, state.boxes, state.share, state.root) == (None, b"", b"", b"")
    assert client.receive(SERVER, s.request(m, signatures)) == () and client.late == 1
    with pytest.raises(SessionSpent):
        client.suspend()
    assert s.k.ledger(m).state(s.k.roster.federation, 1) == (1, RoundState.ANSWERED)


def test_min_difference_holds_for_lists_and_requests(kit: Any) -> None:
    k = kit("lattice", cohort=8, dim=4)
    k.policy = replace(k.policy, min_difference=2)
    k.run(round=1)
    last = k.context().cohort[-1]
    with pytest.raises(Aborted) as caught:
        k.run({last: Phase.MASKED}, round=2)
    assert caught.value.code is AbortCode.COHORT_TOO_SMALL
    k.run(dict.fromkeys(k.context().cohort[-2:], Phase.MASKED), round=3)


# Keys


def test_a_key_masks_once(make: Any, rng: SeededRng) -> None:
    p = make(5)
    key, codes = Key.draw(p.degree, rng), np.zeros(p.size, dtype=np.int64)
    mask(p, bytes(32), key, codes, rng)
    for again in (lambda: mask(p, b"c" * 32, key, codes, rng), key.peek, key.take):
        with pytest.raises(LocalError) as caught:
            again()
        assert caught.value.code is AbortCode.KEY_REUSE
    assert repr(key) == "Key(used)"


def test_no_session_masks_twice(stage: Any) -> None:
    s = stage()
    i = s.context.cohort[0]
    for move in (lambda: s.clients[i].submit(s.k.codes(i)), s.clients[i].start):
        with pytest.raises(LocalError):
            move()
    with pytest.raises(Aborted):
        s.k.client(i).start()


def test_a_snapshot_before_the_vector_masks_once_only(kit: Any) -> None:
    k = kit("lattice")
    i = k.context().cohort[0]
    session = k.client(i)
    session.start()
    blob = session.suspend()
    assert len(k.client(i, snapshot=blob).submit(k.codes(i))) == 1
    refused(lambda: k.client(i, snapshot=blob), AbortCode.STATE_ROLLBACK)


# Wrong shares


def served(k: Any, spoil: Any, drop: tuple[int, ...] = ()) -> Any:
    """A round in which `spoil(frame)` may change what a client sends; the server is returned."""
    clients = {i: k.client(i) for i in k.context().cohort if i not in drop}
    server, queue = k.server(), []
    queue += server.start()
    for i, c in clients.items():
        queue += [*c.start(), *c.submit(k.codes(i))]
    for _ in range(1_000):
        if server.phase in (Phase.DONE, Phase.ABORTED):
            return server
        if not queue:
            queue += server.close_phase()
            continue
        f = queue.pop(0)
        if f.to == SERVER:
            f = spoil(f)
            queue += server.receive(f.sender, f.encode())
        elif f.to in clients:
            queue += clients[f.to].receive(SERVER, f.encode())
    raise AssertionError("the round does not end")


def resigned(k: Any, f: Frame, body: bytes) -> Frame:
    key = k.federation.identities[f.sender - 1].sign_key
    return replace(f, body=body).signed(key, k.context().digest)


def test_a_dealer_whose_shares_are_of_another_key_stops_the_sum(kit: Any) -> None:
    """Consistent shares of a wrong key: no vote of the members tells, the residual does."""
    k = kit("lattice", cohort=8, dim=9)
    bad = k.context().cohort[2]
    members = committee(k.params, k.roster, k.context().cohort)

    def spoil(f: Frame) -> Frame:
        if f.kind != Kind.UPLOAD or f.sender != bad:
            return f
        upload = msg.decode_upload(k.params, f.body, bad)
        scalar = private_key(b"q" * 32)
        shares = packed.share(k.params, np.ones(k.params.degree, dtype=np.int64), SeededRng(4))
        boxes = []
        for j, m in enumerate(members):
            ends = Ends(k.context().digest, bad, m, public_bytes(scalar))
            own = k.federation.identities[bad - 1].agree_key
            key = dealer_key(ends, scalar, own, k.roster.member(m).agree_key)
            boxes.append(seal_once(key, packed.encode(k.params, shares[j]), ends.aad()))
        body = upload._replace(ephemeral=public_bytes(scalar), boxes=b"".join(boxes)).encode()
        return resigned(k, f, body)

    error = refused(lambda: served(k, spoil), AbortCode.BAD_SHARE)
    assert error.released and not error.culprits


@pytest.mark.parametrize("dim", [1, 9, 3_000])
def test_a_key_sum_that_is_off_by_one_coefficient_is_caught(kit: Any, dim: int) -> None:
    k = kit("lattice", cohort=5, dim=dim)
    members = committee(k.params, k.roster, k.context().cohort)
    liar = members[0]

    def spoil(f: Frame) -> Frame:
        if f.kind != Kind.ANSWER or f.sender != liar:
            return f
        elements = packed.decode(k.params, f.body)
        assert elements is not None
        elements[17] = (elements[17] + 1) % k.params.field
        return resigned(k, f, packed.encode(k.params, elements))

    # all others stay silent but for the quorum, so that nothing can be corrected
    quorum = k.params.quorum
    error = refused(lambda: served(k, spoil, drop=members[quorum:]), AbortCode.BAD_SHARE)
    assert error.released


@pytest.mark.parametrize(("silent", "liars"), [(0, 5), (8, 1), (9, 0)])
def test_wrong_answers_are_corrected_as_far_as_t_plus_2e_tell(kit: Any, silent: int, liars: int) -> None:
    """k = 30, t = 20: e wrong answers of t + 2e are found; one more is not, and stops the sum."""
    k = kit("lattice", cohort=30, dim=9)
    members = committee(k.params, k.roster, k.context().cohort)
    drop, rest = members[:silent], members[silent:]

    def spoiler(bad: tuple[int, ...], what: int) -> Any:
        def spoil(f: Frame) -> Frame:
            if f.kind != Kind.ANSWER or f.sender not in bad:
                return f
            elements = packed.decode(k.params, f.body)
            assert elements is not None
            where = slice(None) if what else slice(f.sender, f.sender + 1)
            elements[where] = (elements[where] + f.sender) % k.params.field
            return resigned(k, f, packed.encode(k.params, elements))

        return spoil

    for what in (0, 1):
        k.ledgers.clear()
        outcome = served(k, spoiler(rest[-liars:] if liars else (), what), drop).result()
        assert np.array_equal(outcome.codes, k.total(outcome.survivors)) and not outcome.excluded
        k.ledgers.clear()
        refused(lambda what=what: served(k, spoiler(rest[: liars + 1], what), drop), AbortCode.BAD_SHARE)


# Members that drop, and late ones


@pytest.mark.parametrize("phase", [Phase.MASKED, Phase.CHECK, Phase.UNMASK])
def test_members_may_drop_down_to_the_quorum(kit: Any, phase: Phase) -> None:
    k = kit("lattice", cohort=40, dim=9)
    members = committee(k.params, k.roster, k.context().cohort)
    spare = len(members) - k.params.quorum
    assert spare == 10
    outcome = k.run(dict.fromkeys(members[:spare], phase), round=1)
    assert np.array_equal(outcome.codes, k.total(outcome.survivors))
    error = refused(
        lambda: k.run(dict.fromkeys(members[: spare + 1], phase), round=2), AbortCode.BELOW_THRESHOLD
    )
    assert error.released is (phase is Phase.UNMASK) and "members" in str(error)


def test_who_is_on_no_committee_speaks_once_and_is_done(kit: Any) -> None:
    k = kit("lattice", cohort=40, dim=9)
    members = committee(k.params, k.roster, k.context().cohort)
    i = next(i for i in k.context().cohort if i not in members)
    client = k.client(i)
    client.start()
    assert len(client.submit(k.codes(i))) == 1 and client.phase is Phase.DONE
    assert k.ledger(i).state(k.roster.federation, 1) == (1, RoundState.MASKED)
    with pytest.raises(RemoteError):
        client.receive(SERVER, Frame(SUITE, Kind.SURVIVORS, k.context().digest[:16], 0, i, b"").encode())
    refused(lambda: k.client(i).start(), AbortCode.ROUND_REUSED)
    k.ledgers[i] = Ledger()


def test_a_late_upload_stays_unopened(kit: Any) -> None:
    k = kit("lattice", cohort=8, dim=9)
    late = k.context().cohort[5]
    session = k.client(late)
    (frame,) = [*session.start(), *session.submit(k.codes(late))]
    server = k.server()
    server.start()
    for i in k.context().cohort:
        if i != late:
            c = k.client(i)
            c.start()
            for f in c.submit(k.codes(i)):
                server.receive(i, f.encode())
    lists = server.close_phase()
    assert server.receive(late, frame.encode()) == () and server.late == 1
    assert late not in [f.to for f in lists]
    bitmap, _ = msg.decode_survivors(k.params, k.context().cohort, lists[0].body)
    position = k.context().cohort.index(late)
    assert not bitmap[position >> 3] >> (position & 7) & 1


# What a server takes


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda u, p: u._replace(ephemeral=bytes(32)), AbortCode.BAD_KEY),
        (lambda u, p: u._replace(ciphertext=b"\xff" * len(u.ciphertext)), AbortCode.BAD_CIPHERTEXT),
        (lambda u, p: u._replace(boxes=u.boxes[:-1]), AbortCode.MALFORMED_FRAME),
        (lambda u, p: u._replace(boxes=u.boxes + u.boxes), AbortCode.MALFORMED_FRAME),
    ],
    ids=["low order", "residues", "short", "long"],
)
def test_a_bad_upload_excludes_its_signer_and_the_rest_goes_on(kit: Any, spoil: Any, code: AbortCode) -> None:
    k = kit("lattice", cohort=8, dim=9)
    bad = k.context().cohort[7]

    def change(f: Frame) -> Frame:
        if f.sender != bad or f.kind != Kind.UPLOAD:
            return f
        return resigned(k, f, spoil(msg.decode_upload(k.params, f.body, bad), k.params).encode())

    if code is AbortCode.MALFORMED_FRAME:
        try:
            server = served(k, change)
        except RemoteError as error:  # longer than any body of this round: refused before it is parsed
            assert error.code is code and error.culprits == {bad}
            return
    else:
        server = served(k, change)
    outcome = server.result()
    assert outcome.excluded == {bad: code} and bad not in outcome.survivors
    assert np.array_equal(outcome.codes, k.total(outcome.survivors))


def test_another_root_is_refused_and_a_wrong_answer_excluded(kit: Any) -> None:
    k = kit("lattice", cohort=8, dim=9)
    members = committee(k.params, k.roster, k.context().cohort)
    server = k.server()
    server.start()
    clients = {i: k.client(i) for i in k.context().cohort}
    lists: list[Frame] = []
    for i, c in clients.items():
        c.start()
        for f in c.submit(k.codes(i)):
            lists += server.receive(i, f.encode())
    signed = {f.to: clients[f.to].receive(SERVER, f.encode())[0] for f in lists}
    m = members[0]
    with pytest.raises(RemoteError) as caught:
        server.receive(m, resigned(k, signed[m], bytes(32)).encode())
    assert caught.value.code is AbortCode.ROSTER_MISMATCH and not server.excluded
    requests: list[Frame] = []
    for i, f in signed.items():
        requests += server.receive(i, f.encode())
    answers = {f.to: clients[f.to].receive(SERVER, f.encode())[0] for f in requests}
    server.receive(m, resigned(k, answers[m], answers[m].body[:-1]).encode())
    assert server.excluded == {m: AbortCode.MALFORMED_FRAME}
    for i, f in answers.items():
        server.receive(i, f.encode())
    outcome = server.result()
    assert np.array_equal(outcome.codes, k.total(outcome.survivors)) and m in outcome.survivors
