"""Enrolment and roster: only what the coordinator signed, in the order and with the keys it signed."""

from dataclasses import replace
from typing import Any

import pytest
from Crypto.PublicKey import ECC
from Crypto.Signature import eddsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from merveil.protocols.errors import AbortCode, Aborted, LocalError, RemoteError
from merveil.protocols.identity import Coordinator, Identity, Member, Roster
from merveil.protocols.primitives.agreement import agree, public_bytes
from merveil.protocols.primitives.kdf import derive_key
from merveil.protocols.primitives.sign import sign
from merveil.protocols.rng import SeededRng

RNG = SeededRng(11)
COORDINATOR = Coordinator.generate(RNG.child("coordinator"))
PEOPLE = tuple(Identity.generate(f"member-{i}", RNG.child(str(i))) for i in range(4))
MEMBERS = [p.member for p in PEOPLE]
TIMES: dict[str, Any] = {"serial": 3, "not_before": 1000, "expires": 2000}
ROSTER = COORDINATOR.sign(MEMBERS, **TIMES, rng=RNG)
ANCHOR = COORDINATOR.anchor


def resign(body: bytes, coordinator: Coordinator = COORDINATOR) -> bytes:
    """A roster whose body a faulty or malicious coordinator signed without its own checks."""
    return body + sign(coordinator.sign_key, "roster/1/sign", body)


def forge(members: list[Member], **header: bytes) -> bytes:
    parts = {
        "magic": b"MVRO\x01", "federation": COORDINATOR.federation, "anchor": ANCHOR,
        "serial": (3).to_bytes(4, "big"), "not_before": (1000).to_bytes(8, "big"),
        "expires": (2000).to_bytes(8, "big"), "max_rounds": (10).to_bytes(4, "big"), "beacon": bytes(32),
        "count": len(members).to_bytes(2, "big"), **header,
    }  # fmt: skip
    return b"".join(parts.values()) + b"".join(m.encode() for m in members)


def refused(data: bytes, code: AbortCode, anchor: bytes = ANCHOR) -> None:
    with pytest.raises((Aborted, RemoteError)) as caught:
        Roster.open(data, anchor)
    assert caught.value.code is code


# Rosters


def test_a_signed_roster_opens_and_says_what_was_signed() -> None:
    again = Roster.open(ROSTER.data, ANCHOR)
    assert again == ROSTER and list(again.members) == MEMBERS and len(again) == 4
    assert (again.serial, again.not_before, again.expires, again.max_rounds) == (3, 1000, 2000, 10_000)
    assert again.member(1) == MEMBERS[0] and again.member(4) == MEMBERS[3]
    assert [again.index_of(p) for p in PEOPLE] == [1, 2, 3, 4]
    assert again.hash == ROSTER.hash and len(again.hash) == 32
    assert again.fingerprint() == ROSTER.fingerprint() and len(again.fingerprint()) == 16


def test_the_layout_and_signature_are_the_documented_ones() -> None:
    body = forge(MEMBERS, beacon=ROSTER.beacon, max_rounds=(10_000).to_bytes(4, "big"))
    assert ROSTER.data[:-64] == body
    tag = b"merveil/roster/1/sign"
    message = len(tag).to_bytes(4, "big") + tag + len(body).to_bytes(4, "big") + body
    own = ECC.construct(curve="Ed25519", seed=COORDINATOR.sign_key.private_bytes_raw())
    assert eddsa.new(own, "rfc8032").sign(message) == ROSTER.data[-64:]


@pytest.mark.parametrize("at", range(0, len(ROSTER.data), 3))
def test_no_byte_can_be_changed(at: int) -> None:
    spoilt = bytearray(ROSTER.data)
    spoilt[at] ^= 1
    with pytest.raises((Aborted, RemoteError)):
        Roster.open(bytes(spoilt), ANCHOR)


def test_another_coordinator_cannot_sign() -> None:
    other = Coordinator.generate(SeededRng(12))
    refused(other.sign(MEMBERS, **TIMES).data, AbortCode.BAD_SIGNATURE)
    refused(resign(ROSTER.data[:-64], other), AbortCode.BAD_SIGNATURE)
    refused(ROSTER.data, AbortCode.BAD_SIGNATURE, other.anchor)


def test_the_anchor_inside_must_be_the_pinned_one() -> None:
    other = Coordinator.generate(SeededRng(12))
    refused(resign(forge(MEMBERS, anchor=other.anchor)), AbortCode.BAD_SIGNATURE)


def test_members_cannot_be_reordered_added_or_removed() -> None:
    body, entry = ROSTER.data[:-64], MEMBERS[3].encode()
    for members in (MEMBERS[::-1], MEMBERS[:3], [*MEMBERS, Identity.generate("x", RNG).member]):
        start = forge(members, beacon=ROSTER.beacon, max_rounds=(10_000).to_bytes(4, "big"))
        refused(start + ROSTER.data[-64:], AbortCode.BAD_SIGNATURE)
    refused(body + entry + ROSTER.data[-64:], AbortCode.MALFORMED_FRAME)


@pytest.mark.parametrize("what", ["name", "sign_key", "agree_key"])
def test_duplicates_are_refused_by_whoever_signs_and_whoever_opens(what: str) -> None:
    twin = replace(MEMBERS[3], **{what: getattr(MEMBERS[0], what)})
    with pytest.raises(LocalError, match=what) as caught:
        COORDINATOR.sign([*MEMBERS[:3], twin], **TIMES)
    assert caught.value.code is AbortCode.BAD_KEY
    refused(resign(forge([*MEMBERS[:3], twin])), AbortCode.BAD_KEY)


LOW_KEYS = {
    "agree_key": [bytes(32), b"\x01" + bytes(31), bytes(31) + b"\x80",
                  MEMBERS[0].agree_key[:31] + bytes((MEMBERS[0].agree_key[31] | 0x80,))],
    "sign_key": [bytes(32), b"\x01" + bytes(31), b"\xec" + b"\xff" * 30 + b"\x7f", b"\xff" * 32],
}  # fmt: skip


@pytest.mark.parametrize(("what", "key"), [(w, k) for w, keys in LOW_KEYS.items() for k in keys])
def test_weak_keys_are_refused_by_whoever_signs_and_whoever_opens(what: str, key: bytes) -> None:
    weak = replace(MEMBERS[3], **{what: key})
    with pytest.raises(LocalError) as caught:
        COORDINATOR.sign([*MEMBERS[:3], weak], **TIMES)
    assert caught.value.code is AbortCode.BAD_KEY
    refused(resign(forge([*MEMBERS[:3], weak])), AbortCode.BAD_KEY)


def test_an_empty_roster_is_none() -> None:
    with pytest.raises(LocalError):
        COORDINATOR.sign([], **TIMES)
    refused(resign(forge([])), AbortCode.BAD_KEY)


@pytest.mark.parametrize("name", ["", "x" * 65, "a\nb", "\x00"])
def test_a_signer_and_a_reader_refuse_names_that_do_not_print(name: str) -> None:
    with pytest.raises(LocalError):
        COORDINATOR.sign([replace(MEMBERS[0], name=name)], **TIMES)
    refused(resign(forge([replace(MEMBERS[0], name=name)])), AbortCode.BAD_KEY)


def test_a_name_is_utf8() -> None:
    raw = b"\x02\xff\xfe" + MEMBERS[0].sign_key + MEMBERS[0].agree_key
    refused(resign(forge([], count=b"\x00\x01") + raw), AbortCode.BAD_KEY)
    with pytest.raises(LocalError):
        Identity.generate("\ud800")


@pytest.mark.parametrize(
    "change",
    [{"serial": 0}, {"serial": 2**32}, {"not_before": -1}, {"not_before": 2000}, {"expires": 2**63},
     {"max_rounds": 0}, {"max_rounds": 2**32}],
)  # fmt: skip
def test_a_roster_needs_sensible_numbers(change: dict[str, int]) -> None:
    with pytest.raises(LocalError):
        COORDINATOR.sign(MEMBERS, **{**TIMES, **change})


def test_every_signing_draws_a_new_beacon() -> None:
    again = COORDINATOR.sign(MEMBERS, **TIMES)
    assert again.beacon != ROSTER.beacon and len(again.beacon) == 32 and again.hash != ROSTER.hash
    assert COORDINATOR.sign(MEMBERS, **TIMES).beacon != again.beacon


@pytest.mark.parametrize(("now", "valid"), [(999, False), (1000, True), (2000, True), (2001, False)])
def test_a_roster_is_valid_in_its_period(now: int, valid: bool) -> None:
    if valid:
        ROSTER.check_time(now)
        return
    with pytest.raises(Aborted) as caught:
        ROSTER.check_time(now)
    assert caught.value.code is AbortCode.STALE_ROSTER


def test_a_member_is_known_by_both_of_its_keys() -> None:
    stranger = Identity.generate("member-0", SeededRng(99))
    with pytest.raises(LocalError, match="not in roster"):
        ROSTER.index_of(stranger)
    mixed = Identity("member-0", PEOPLE[0].sign_key, stranger.agree_key)
    with pytest.raises(LocalError, match="not in roster"):
        ROSTER.index_of(mixed)
    for person in PEOPLE:  # the last one too: index 0 must not count from the end
        mixed = Identity("member-0", stranger.sign_key, person.agree_key)
        with pytest.raises(LocalError, match="not in roster"):
            ROSTER.index_of(mixed)


# Enrolment

AGREE = COORDINATOR.agree_public
REQUEST = PEOPLE[0].request(COORDINATOR.federation, AGREE)


def test_a_request_proves_both_keys() -> None:
    assert COORDINATOR.admit(REQUEST) == MEMBERS[0]


def test_the_request_is_the_documented_one() -> None:
    entry = MEMBERS[0].encode()
    assert entry == bytes((8,)) + b"member-0" + MEMBERS[0].sign_key + MEMBERS[0].agree_key
    secret = agree(COORDINATOR.agree_key, MEMBERS[0].agree_key, 0)
    proof = derive_key(secret, COORDINATOR.federation, "enrol/1/possession", entry)
    assert REQUEST[: len(entry) + 32] == entry + proof and len(REQUEST) == len(entry) + 96


@pytest.mark.parametrize("at", range(len(REQUEST)))
def test_no_byte_of_a_request_can_be_changed(at: int) -> None:
    spoilt = bytearray(REQUEST)
    spoilt[at] ^= 4
    with pytest.raises(RemoteError):
        COORDINATOR.admit(bytes(spoilt))


def test_a_request_is_for_one_federation() -> None:
    other = Coordinator(b"o" * 32, COORDINATOR.sign_key, COORDINATOR.agree_key)
    with pytest.raises(RemoteError) as caught:
        other.admit(REQUEST)
    assert caught.value.code is AbortCode.BAD_KEY


def test_nobody_enrols_with_the_agreement_key_of_another() -> None:
    """The thief signs, and owns the signature key, but cannot compute the proof for the other key."""
    thief = Identity.generate("thief", SeededRng(5))
    entry = Member("thief", thief.member.sign_key, MEMBERS[0].agree_key).encode()
    secret = agree(thief.agree_key, AGREE, 0)
    proof = derive_key(secret, COORDINATOR.federation, "enrol/1/possession", entry)
    signature = sign(thief.sign_key, "enrol/1/sign", COORDINATOR.federation, entry, proof)
    with pytest.raises(RemoteError) as caught:
        COORDINATOR.admit(entry + proof + signature)
    assert caught.value.code is AbortCode.BAD_KEY


def test_nobody_enrols_with_the_signature_key_of_another() -> None:
    thief = Identity.generate("thief", SeededRng(5))
    entry = Member("thief", MEMBERS[0].sign_key, thief.member.agree_key).encode()
    secret = agree(thief.agree_key, AGREE, 0)
    proof = derive_key(secret, COORDINATOR.federation, "enrol/1/possession", entry)
    signature = sign(thief.sign_key, "enrol/1/sign", COORDINATOR.federation, entry, proof)
    with pytest.raises(RemoteError):
        COORDINATOR.admit(entry + proof + signature)


def test_a_signature_key_that_anyone_can_sign_for_is_not_admitted() -> None:
    """R = B, S = 1 is a signature of the neutral point over any message."""
    person = Identity.generate("weak", SeededRng(6))
    entry = Member("weak", b"\x01" + bytes(31), person.member.agree_key).encode()
    secret = agree(person.agree_key, AGREE, 0)
    proof = derive_key(secret, COORDINATOR.federation, "enrol/1/possession", entry)
    forged = bytes.fromhex("58" + "66" * 31) + (1).to_bytes(32, "little")
    with pytest.raises(RemoteError) as caught:
        COORDINATOR.admit(entry + proof + forged)
    assert caught.value.code is AbortCode.BAD_KEY


def test_an_agreement_key_of_low_order_is_not_admitted() -> None:
    key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    entry = Member("weak", key.public_key().public_bytes_raw(), bytes(32)).encode()
    proof = derive_key(bytes(32), COORDINATOR.federation, "enrol/1/possession", entry)
    signature = sign(key, "enrol/1/sign", COORDINATOR.federation, entry, proof)
    with pytest.raises(RemoteError, match="low order"):
        COORDINATOR.admit(entry + proof + signature)


def test_private_keys_do_not_print() -> None:
    secrets = [COORDINATOR.sign_key.private_bytes_raw(), PEOPLE[0].sign_key.private_bytes_raw(),
               PEOPLE[0].agree_key.private_bytes_raw()]  # fmt: skip
    text = repr(COORDINATOR) + repr(PEOPLE[0]) + repr(ROSTER)
    assert "member-0" in text and not any(s.hex() in text or repr(s)[2:-1] in text for s in secrets)
    assert "PrivateKey" not in text


def test_an_identity_is_fresh_each_time() -> None:
    one, two = Identity.generate("a"), Identity.generate("a")
    assert one.member.sign_key != two.member.sign_key and one.member.agree_key != two.member.agree_key
    assert public_bytes(one.agree_key) == one.member.agree_key
