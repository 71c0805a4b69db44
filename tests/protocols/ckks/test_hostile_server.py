"""A server that lies to one client of `ckks`: each check of `checks.py` fires by name, none answers."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from merveil.protocols.ckks import messages as msg
from merveil.protocols.ckks.dealing import checked_sum
from merveil.protocols.ckks.messages import Kind
from merveil.protocols.ckks.state import split
from merveil.protocols.errors import AbortCode, Aborted, RemoteError, SessionSpent
from merveil.protocols.frame import Frame
from merveil.protocols.primitives.sign import sign
from merveil.protocols.session import Phase
from merveil.protocols.survivors import to_bitmap

HOLDER = 3


@dataclass
class Held:
    """A round up to the victim's frame of one kind. `victim` waits for it."""

    kit: Any
    frame: Frame
    client: Any
    server: Any
    victim: int

    def refuse(
        self, body: bytes | None = None, *, code: AbortCode, match: str | None = None, **changes: Any
    ) -> None:
        """The bent frame ends the session with this code, blames the server alone, and leaves it spent."""
        bent = replace(self.frame, body=self.frame.body if body is None else body, **changes)
        with pytest.raises(Aborted, match=match) as caught:
            self.client.receive(0, bent.encode())
        assert caught.value.code is code and not caught.value.released and not caught.value.frames
        assert caught.value.culprits <= {0} and self.client.phase is Phase.ABORTED
        with pytest.raises(SessionSpent):
            self.client.receive(0, self.frame.encode())


def held(kit: Any, kind: Kind, victim: int = 1, authority: int = 0, **settings: Any) -> Held:
    k = kit("ckks", **{"cohort": 6, "dim": 9, **settings})
    k.params = replace(k.params, authority=authority)
    k.policy = replace(k.policy, allow_authority=bool(authority), min_difference=2)
    cohort = k.context().cohort
    victim = cohort[victim - 1]
    sessions, server = {i: k.client(i) for i in cohort}, k.server()
    queue = list(server.start())
    for i, session in sessions.items():
        queue += [*session.start(), *session.submit(k.codes(i))]
    while True:
        f = queue.pop(0)
        if f.to == victim and f.kind == kind:
            return Held(k, f, sessions[victim], server, victim)
        to = sessions[f.to] if f.to else server
        queue += to.receive(f.sender, f.encode())


# KEYS


def adverts(h: Held) -> dict[int, msg.Advert]:
    return msg.decode_keys(h.frame.body)[1]


def keys(h: Held, change: Callable[[dict[int, msg.Advert]], object]) -> bytes:
    listed = adverts(h)
    change(listed)
    return msg.encode_keys(h.kit.context(), listed)


def test_keys_of_another_attempt_are_refused_and_change_nothing(kit: Any) -> None:
    h = held(kit, Kind.KEYS)
    body = msg.encode_keys(h.kit.context(attempt=2), adverts(h))
    with pytest.raises(RemoteError) as caught:
        h.client.receive(0, replace(h.frame, body=body).encode())
    assert caught.value.code is AbortCode.STALE_KEY
    assert h.client.receive(0, h.frame.encode()), "the right ones are still taken"


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ({"model_hash": b"m" * 32}, AbortCode.MODEL_MISMATCH),
        ({"config_hash": b"c" * 32}, AbortCode.MODEL_MISMATCH),
    ],
    ids=["model", "config"],
)
def test_keys_of_another_context_end_it(kit: Any, what: dict[str, bytes], code: AbortCode) -> None:
    h = held(kit, Kind.KEYS)
    h.refuse(msg.encode_keys(h.kit.context(**what), adverts(h)), code=code)


def test_keys_under_a_foreign_session_end_it(kit: Any) -> None:
    held(kit, Kind.KEYS).refuse(code=AbortCode.PARAMS_MISMATCH, session=bytes(16))


@pytest.mark.parametrize("what", ["gone", "key", "commitment"])
def test_the_own_advert_must_be_on_the_list_unchanged(kit: Any, what: str) -> None:
    h = held(kit, Kind.KEYS)
    own = adverts(h)[h.victim]
    fields = {"key": {"share_key": b"\x09" * 32}, "commitment": {"commitment": bytes(32)}, "gone": {}}[what]

    def change(listed: dict[int, msg.Advert]) -> None:
        del listed[h.victim]
        if fields:
            listed[h.victim] = replace(own, **fields)

    h.refuse(keys(h, change), code=AbortCode.ROSTER_MISMATCH, match="advert is not on the list")


def test_keys_of_clients_outside_the_cohort_end_it(kit: Any) -> None:
    h = held(kit, Kind.KEYS, spare=3)
    stranger = next(i for i in range(1, 10) if i not in h.kit.context().cohort)
    body = keys(h, lambda listed: listed.update({stranger: adverts(h)[h.victim]}))
    h.refuse(body, code=AbortCode.ROSTER_MISMATCH, match="outside the cohort")


def test_too_few_keys_end_it(kit: Any) -> None:
    h = held(kit, Kind.KEYS)
    least = h.kit.params.threshold

    def keep(count: int) -> bytes:
        others = [i for i in adverts(h) if i != h.victim][: count - 1]
        return keys(h, lambda listed: [listed.pop(i) for i in list(listed) if i not in (h.victim, *others)])

    h.refuse(keep(least - 1), code=AbortCode.BELOW_THRESHOLD, match=f"the threshold is {least}")
    h = held(kit, Kind.KEYS)
    assert h.client.receive(0, replace(h.frame, body=keep(least)).encode()), "that many are enough"


def test_keys_without_the_holder_end_it(kit: Any) -> None:
    h = held(kit, Kind.KEYS, authority=HOLDER)
    body = keys(h, lambda listed: listed.pop(HOLDER))
    h.refuse(body, code=AbortCode.BELOW_THRESHOLD, match="holds the key and is missing")


# SURVIVORS


def survivors(h: Held, change: Callable[[dict[int, bytes]], object]) -> bytes:
    listed = msg.decode_survivors(h.frame.body)
    change(listed)
    return msg.encode_survivors(listed)


@pytest.mark.parametrize("what", ["gone", "another"])
def test_the_own_ciphertext_must_be_on_the_list(kit: Any, what: str) -> None:
    h = held(kit, Kind.SURVIVORS)
    gone = what == "gone"
    body = survivors(h, lambda x: x.pop(h.victim) if gone else x.update({h.victim: bytes(32)}))
    h.refuse(body, code=AbortCode.ROSTER_MISMATCH, match="does not hold this client's ciphertext")


@pytest.mark.parametrize("authority", [0, HOLDER])
def test_survivors_without_a_part_in_the_key_end_it(kit: Any, authority: int) -> None:
    h = held(kit, Kind.SURVIVORS, authority=authority, spare=3)
    stranger = next(i for i in range(1, 10) if i not in h.kit.context().cohort)
    body = survivors(h, lambda x: x.update({stranger: bytes(32)}))
    h.refuse(body, code=AbortCode.ROSTER_MISMATCH, match="no part in the key")


def test_too_few_survivors_end_it(kit: Any) -> None:
    h = held(kit, Kind.SURVIVORS)
    keep = [h.victim, *[i for i in h.kit.context().cohort if i != h.victim]][: h.kit.params.threshold - 1]
    body = survivors(h, lambda x: [x.pop(i) for i in list(x) if i not in keep])
    h.refuse(body, code=AbortCode.BELOW_THRESHOLD, match="survived")


# REQUEST


@pytest.mark.parametrize("kind", [Kind.SURVIVORS, Kind.REQUEST])
def test_survivors_too_near_to_the_last_set_get_no_answer(kit: Any, kind: Kind) -> None:
    """The check is made again when the answer is due: another round may have been answered meanwhile."""
    for last, ok in (({1, 2, 3, 4, 5, 6}, True), ({1, 2, 3, 4, 5}, False), ({1, 2, 3, 4}, True)):
        h = held(kit, kind)
        ledger, federation = h.kit.ledger(h.victim), h.kit.roster.federation
        ledger.open_round(federation, 9, 1)
        ledger.answer(federation, 9, 1, to_bitmap(sorted(last), 7))
        if ok:
            assert h.client.receive(0, h.frame.encode())
        else:
            h.refuse(code=AbortCode.COHORT_TOO_SMALL, match="differ by 1")


def test_a_request_has_exactly_t_signatures(kit: Any) -> None:
    h = held(kit, Kind.REQUEST)
    book = h.server._book
    chosen = [i for i in book.chosen if i != h.victim][: h.kit.params.threshold - 1]
    body = msg.encode_request({i: book.signatures[i] for i in chosen}, ())
    h.refuse(body, code=AbortCode.BELOW_THRESHOLD, match="signatures, not")


def test_a_signature_of_nobody_on_the_list_is_none(kit: Any) -> None:
    h = held(kit, Kind.REQUEST, spare=3)
    book = h.server._book
    stranger = next(i for i in range(1, 10) if i not in h.kit.context().cohort)
    chosen = [i for i in book.chosen if i != h.victim][: h.kit.params.threshold - 1]
    signed = {i: book.signatures[i] for i in chosen} | {stranger: book.signatures[chosen[0]]}
    h.refuse(msg.encode_request(signed, ()), code=AbortCode.BAD_SIGNATURE)


# What is no client's index, and a server's own snapshots


def test_lists_name_members_from_one_on() -> None:
    entry = (0).to_bytes(2, "big") + bytes(32)
    with pytest.raises(RemoteError):
        msg.decode_survivors((1).to_bytes(2, "big") + entry)


def test_a_server_does_not_resume_another_sessions_snapshot(kit: Any) -> None:
    k = kit("ckks", cohort=6, dim=9)
    server = k.server()
    server.start()
    blob = server.suspend()
    with pytest.raises(Aborted) as caught:
        k.server(attempt=2, snapshot=blob)
    assert caught.value.code is AbortCode.STATE_ROLLBACK
    assert k.server(snapshot=blob).phase is Phase.KEYS


# RELAY


def relay(h: Held, change: Callable[[dict[int, msg.Dealt]], object]) -> bytes:
    authority = h.kit.params.authority
    proof = 0 if authority else msg.proof_size(len(h.client._state.adverts), h.kit.params.threshold)
    entries = msg.decode_relay(h.frame.body, proof, 0 if authority else msg.BOX)
    change(entries)
    return msg.encode_relay(entries)


def test_keys_of_a_client_that_never_advertised_end_it(kit: Any) -> None:
    h = held(kit, Kind.RELAY, spare=3)
    stranger = next(i for i in range(1, 10) if i not in h.kit.context().cohort)
    body = relay(h, lambda entries: entries.update({stranger: next(iter(entries.values()))}))
    h.refuse(body, code=AbortCode.ROSTER_MISMATCH, match="have a part in it")


def test_too_few_dealers_end_it(kit: Any) -> None:
    h = held(kit, Kind.RELAY)
    least = h.kit.params.threshold  # with the client itself
    body = relay(h, lambda entries: [entries.pop(i) for i in sorted(entries)[least - 2 :]])
    h.refuse(body, code=AbortCode.BELOW_THRESHOLD, match=f"{least - 1} clients shared")


@pytest.mark.parametrize("what", ["none", "another", "both"])
def test_the_key_comes_from_its_holder_alone(kit: Any, what: str) -> None:
    h = held(kit, Kind.RELAY, authority=HOLDER)

    def change(entries: dict[int, msg.Dealt]) -> None:
        own = entries[HOLDER] if what == "both" else entries.pop(HOLDER)
        if what != "none":
            entries[5] = own

    h.refuse(relay(h, change), code=AbortCode.ROSTER_MISMATCH, match="have a part in it")


# The parts that a decryptor sums


def test_a_part_that_its_sender_did_not_sign_is_refused_under_its_own_stamp(kit: Any) -> None:
    """The stamp is right, for the digest on the list; the bytes beside it are another's."""
    h = held(kit, Kind.REQUEST, victim=2)
    assert h.victim in h.server._book.chosen
    book = h.server._book
    parts = [book.parts[i] for i in book.alive]
    parts[1] = (parts[1][0], parts[0][1])
    body = msg.encode_request({i: book.signatures[i] for i in book.chosen}, parts)
    h.refuse(body, code=AbortCode.BAD_CIPHERTEXT, match="is not what it signed")


def test_a_transparent_part_that_its_sender_did_sign_is_refused(kit: Any) -> None:
    """A client and the server together: list, stamp and zero polynomial agree. The client is named."""
    h = held(kit, Kind.REQUEST)
    state, seat, params = h.client._state, h.client._seat, h.client._params
    zero = bytes(len(h.server._book.parts[2][1]))
    digest = msg.c1_digest(zero)
    key = h.kit.federation.identities[1].sign_key
    stamp = sign(key, msg.STAMP, *msg.stamp_fields(state.sid, 2, state.view, digest))
    with pytest.raises(Aborted, match="transparent") as caught:
        checked_sum(seat, state, params, {2: digest}, [(stamp, zero)])
    assert caught.value.code is AbortCode.BAD_CIPHERTEXT and caught.value.culprits == {2}


def test_pair_chains_are_durable_before_the_shares_leave(kit: Any) -> None:
    h = held(kit, Kind.RELAY)
    for peer in h.kit.context().cohort:
        chain = h.kit.ledger(h.victim).chain(h.kit.roster.hash, peer)
        assert (chain is None) is (peer == h.victim) and (chain is None or chain[0] == 1)


def test_pair_chains_move_on_with_the_answer(kit: Any) -> None:
    """Whoever steals the ledger afterwards cannot open this round's shares."""
    h = held(kit, Kind.REQUEST)
    peers = [i for i in h.kit.context().cohort if i != h.victim]
    ledger, roster = h.kit.ledger(h.victim), h.kit.roster.hash
    before = {i: ledger.chain(roster, i) for i in peers}
    h.client.receive(0, h.frame.encode())
    for i in peers:
        after = ledger.chain(roster, i)
        assert before[i][0] == 1 and after[0] == 2 and after[1] != before[i][1]


@pytest.mark.parametrize("data", [bytes(1), bytes(33), bytes(35)])
def test_a_snapshots_entries_are_whole(data: bytes) -> None:
    assert list(split(bytes(34), 32)) == [0]
    with pytest.raises(Aborted) as caught:
        split(data, 32)
    assert caught.value.code is AbortCode.STATE_ROLLBACK
