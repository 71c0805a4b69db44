"""Identities, enrolment and the signed roster.

A party has an Ed25519 key (signatures) and a static X25519 key (pair roots). The federation's coordinator
checks a proof of possession of both, off-line, and signs the ordered list with a serial, a validity period
and a beacon: 32 random bytes drawn after all keys are in, so that no member can choose its key to steer the
graphs derived from it. The server is no coordinator: it cannot add, replace or reorder members.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from merveil.protocols.errors import AbortCode, Aborted, LocalError, RemoteError
from merveil.protocols.frame import Reader
from merveil.protocols.primitives import sign as signing
from merveil.protocols.primitives.agreement import agree, is_low_order, public_bytes
from merveil.protocols.primitives.kdf import derive_key, equal, hash_fields
from merveil.protocols.primitives.sign import SIGNATURE, sign, verify
from merveil.protocols.rng import Rng, SystemRng

FEDERATION_ID = 32
_ROSTER = "roster/1/sign"
_REQUEST = "enrol/1/sign"
_POSSESSION = "enrol/1/possession"
_MAX_MEMBERS = 65_535


@dataclass(frozen=True, slots=True)
class Member:
    """A roster entry. name: 1..64 bytes of UTF-8; sign_key, agree_key: 32-byte public keys."""

    name: str
    sign_key: bytes
    agree_key: bytes

    def encode(self) -> bytes:
        name = self.name.encode()
        return bytes((len(name),)) + name + self.sign_key + self.agree_key


@dataclass(frozen=True, slots=True, eq=False)
class Identity:
    """A party's private keys. They print as nothing and are compared by object."""

    name: str
    sign_key: Ed25519PrivateKey = field(repr=False)
    agree_key: X25519PrivateKey = field(repr=False)

    @classmethod
    def generate(cls, name: str, rng: Rng | None = None) -> Self:
        source = rng or SystemRng()
        return cls(
            _checked_name(name),
            Ed25519PrivateKey.from_private_bytes(source.draw(32, "identity/sign")),
            X25519PrivateKey.from_private_bytes(source.draw(32, "identity/agree")),
        )

    @property
    def member(self) -> Member:
        return Member(self.name, self.sign_key.public_key().public_bytes_raw(), public_bytes(self.agree_key))

    def request(self, federation: bytes, coordinator_agree: bytes) -> bytes:
        """An enrolment request with proof of possession of both keys.

        federation: 32-byte id; coordinator_agree: the coordinator's X25519 key, 32 bytes. The X25519 key is
        proven by a MAC under the secret shared with the coordinator, the Ed25519 key by the signature.
        """
        entry = self.member.encode()
        secret = agree(self.agree_key, coordinator_agree, 0)
        proof = derive_key(secret, federation, _POSSESSION, entry)
        return entry + proof + sign(self.sign_key, _REQUEST, federation, entry, proof)


def _checked_name(name: str) -> str:
    if not name.isprintable() or not 1 <= len(name.encode()) <= 64:  # printable text has no lone surrogates
        raise LocalError(f"a member's name has 1 to 64 printable bytes of UTF-8, not {name!r}")
    return name


def _read_member(reader: Reader) -> Member:
    raw = reader.take(reader.u8())
    try:
        name = _checked_name(raw.decode())
    except (UnicodeDecodeError, LocalError) as error:
        raise RemoteError("a member's name is not printable UTF-8", (0,), AbortCode.BAD_KEY) from error
    return Member(name, reader.take(32), reader.take(32))


@dataclass(frozen=True, slots=True, eq=False)
class Coordinator:
    """Signs rosters, off-line. sign_key is pinned by every party as its trust anchor."""

    federation: bytes
    sign_key: Ed25519PrivateKey = field(repr=False)
    agree_key: X25519PrivateKey = field(repr=False)

    @classmethod
    def generate(cls, rng: Rng | None = None) -> Self:
        source = rng or SystemRng()
        return cls(
            source.draw(FEDERATION_ID, "coordinator/federation"),
            Ed25519PrivateKey.from_private_bytes(source.draw(32, "coordinator/sign")),
            X25519PrivateKey.from_private_bytes(source.draw(32, "coordinator/agree")),
        )

    @property
    def anchor(self) -> bytes:
        """The 32-byte public key that a Policy pins."""
        return self.sign_key.public_key().public_bytes_raw()

    @property
    def agree_public(self) -> bytes:
        return public_bytes(self.agree_key)

    def admit(self, request: bytes) -> Member:
        """Check an enrolment request; RemoteError (BAD_KEY) where a proof of possession fails."""
        reader = Reader(request, 0)
        member = _read_member(reader)
        proof, signature = reader.take(32), reader.take(SIGNATURE)
        reader.end()
        entry = member.encode()
        if is_low_order(member.agree_key) or signing.is_low_order(member.sign_key):
            raise RemoteError(f"{member.name}: key of low order", (0,), AbortCode.BAD_KEY)
        secret = agree(self.agree_key, member.agree_key, 0)
        expected = derive_key(secret, self.federation, _POSSESSION, entry)
        signed = verify(member.sign_key, signature, _REQUEST, self.federation, entry, proof)
        if not signed or not equal(proof, expected):
            raise RemoteError(f"{member.name}: no proof of possession", (0,), AbortCode.BAD_KEY)
        return member

    def sign(
        self,
        members: Sequence[Member],
        *,
        serial: int,
        not_before: int,
        expires: int,
        max_rounds: int = 10_000,
        rng: Rng | None = None,
    ) -> "Roster":
        """Sign the ordered members. The beacon is drawn now, when every key is fixed.

        serial: higher than every earlier one; not_before, expires: Unix seconds.
        """
        beacon = (rng or SystemRng()).draw(32, "coordinator/beacon")
        _check_members(members)
        if not 0 <= not_before < expires < 2**63 or not (1 <= serial < 2**32 and 1 <= max_rounds < 2**32):
            raise LocalError(
                "a roster needs serial and max_rounds from 1 to 2^32 - 1, and not_before < expires"
            )
        body = b"".join(
            (
                b"MVRO\x01",
                self.federation,
                self.anchor,
                serial.to_bytes(4, "big"),
                not_before.to_bytes(8, "big"),
                expires.to_bytes(8, "big"),
                max_rounds.to_bytes(4, "big"),
                beacon,
                len(members).to_bytes(2, "big"),
                *(m.encode() for m in members),
            )
        )
        return Roster.open(body + sign(self.sign_key, _ROSTER, body), self.anchor)


def _check_members(members: Sequence[Member]) -> None:
    if not 1 <= len(members) <= _MAX_MEMBERS:
        raise LocalError(f"a roster has 1 to {_MAX_MEMBERS} members, not {len(members)}")
    for what in ("name", "sign_key", "agree_key"):
        if len({getattr(m, what) for m in members}) != len(members):
            raise LocalError(f"two roster members share one {what}", AbortCode.BAD_KEY)
    for m in members:
        _checked_name(m.name)
        if is_low_order(m.agree_key) or signing.is_low_order(m.sign_key):
            raise LocalError(f"{m.name}: key of low order", AbortCode.BAD_KEY)


@dataclass(frozen=True)
class Roster:
    """A verified roster: `open` is the one way to get one. Member i of the protocol is members[i - 1]."""

    federation: bytes
    anchor: bytes
    serial: int
    not_before: int
    expires: int
    max_rounds: int
    beacon: bytes
    members: tuple[Member, ...] = field(repr=False)
    data: bytes = field(repr=False)

    @classmethod
    def open(cls, data: bytes, anchor: bytes) -> Self:
        """Parse and verify. anchor: the coordinator's pinned key.

        Aborts with BAD_SIGNATURE under another key, BAD_KEY for duplicate or low-order keys; RemoteError for
        bytes that are no roster.
        """
        reader = Reader(data, 0)
        if reader.take(5) != b"MVRO\x01":
            raise RemoteError("not a roster of version 1", (0,), AbortCode.MALFORMED_FRAME)
        federation, claimed = reader.take(FEDERATION_ID), reader.take(32)
        serial, not_before, expires = reader.u32(), reader.u64(), reader.u64()
        max_rounds, beacon, count = reader.u32(), reader.take(32), reader.u16()
        members = tuple(_read_member(reader) for _ in range(count))
        signature = reader.take(SIGNATURE)
        reader.end()
        if claimed != anchor or not verify(anchor, signature, _ROSTER, data[:-SIGNATURE]):
            raise Aborted(AbortCode.BAD_SIGNATURE, "the roster is not signed by the pinned coordinator")
        try:
            _check_members(members)
        except LocalError as error:
            raise Aborted(AbortCode.BAD_KEY, str(error)) from error
        return cls(federation, anchor, serial, not_before, expires, max_rounds, beacon, members, data)

    @cached_property
    def hash(self) -> bytes:
        """32 bytes that stand for the roster, signature excluded."""
        return hash_fields("roster/1/hash", self.data[:-SIGNATURE])

    @cached_property
    def _index(self) -> dict[bytes, int]:
        return {m.sign_key: i for i, m in enumerate(self.members, 1)}

    def __len__(self) -> int:
        return len(self.members)

    def member(self, index: int) -> Member:
        """Entry of roster index 1..n."""
        return self.members[index - 1]

    def index_of(self, identity: Identity) -> int:
        """The roster index of an identity; LocalError where it is no member with exactly these keys."""
        own = identity.member
        index = self._index.get(own.sign_key, 0)
        if not index or self.member(index).agree_key != own.agree_key:
            raise LocalError(f"{identity.name!r} is not in roster serial {self.serial} with these keys")
        return index

    def check_time(self, now: int) -> None:
        """Aborts with STALE_ROSTER outside the validity period. now: Unix seconds, from the caller."""
        if not self.not_before <= now <= self.expires:
            raise Aborted(AbortCode.STALE_ROSTER, f"roster serial {self.serial} is not valid at {now}")

    def fingerprint(self) -> str:
        """Sixteen hex digits for humans to compare."""
        return hashlib.sha256(self.hash).hexdigest()[:16]
