"""Who is on the committee, and the keys of the boxes that carry shares to it.

Members are those of the cohort that come first in an order drawn from the roster's beacon. The order does not
depend on the round: one draw for a roster, so that the chance of too many corrupt members is not taken anew
in every round, and a retry meets the same committee.
"""

from functools import lru_cache
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from merveil.protocols.cohort import shuffled
from merveil.protocols.identity import Roster
from merveil.protocols.lattice.params import LatticeParams
from merveil.protocols.primitives.agreement import agree
from merveil.protocols.primitives.kdf import derive_key, hash_fields


@lru_cache(maxsize=16)
def _members(beacon: bytes, roster_hash: bytes, cohort: tuple[int, ...], size: int) -> tuple[int, ...]:
    return tuple(sorted(shuffled(beacon, roster_hash, "committee", 0, cohort)[:size]))


def committee(params: LatticeParams, roster: Roster, cohort: tuple[int, ...]) -> tuple[int, ...]:
    """Roster indices, ascending; the j-th member, from 0, has the point j + 1."""
    return _members(roster.beacon, roster.hash, cohort, params.members)


def committee_digest(roster: Roster, members: tuple[int, ...]) -> bytes:
    """32 bytes that stand for the members' keys, whatever the roster's serial."""
    return hash_fields("lattice/1/committee", b"".join(roster.member(i).encode() for i in members))


class Ends(NamedTuple):
    """What a box is bound to. ephemeral: the dealer's public key of this session, 32 bytes."""

    context: bytes
    dealer: int
    member: int
    ephemeral: bytes

    def fields(self) -> tuple[bytes, ...]:
        return (self.dealer.to_bytes(2, "big") + self.member.to_bytes(2, "big"), self.ephemeral)

    def aad(self) -> bytes:
        return hash_fields("lattice/1/box", self.context, *self.fields())


def _box_key(ends: Ends, ephemeral: bytes, static: bytes) -> bytes:
    return derive_key(ephemeral + static, ends.context, "lattice/1/box-key", *ends.fields())


def dealer_key(ends: Ends, scalar: X25519PrivateKey, own: X25519PrivateKey, member_key: bytes) -> bytes:
    """The key of one box, as its dealer derives it: both its keys with the member's static one."""
    return _box_key(ends, agree(scalar, member_key, ends.member), agree(own, member_key, ends.member))


def member_key(ends: Ends, own: X25519PrivateKey, dealer_static: bytes) -> bytes:
    """The same key, as its member derives it. Aborts with BAD_KEY for an ephemeral key of low order."""
    return _box_key(ends, agree(own, ends.ephemeral, ends.dealer), agree(own, dealer_static, ends.dealer))
