"""Bodies of the messages of `secagg` and `secagg+`, and the hashes over them; layouts in docs/wire.md."""

import enum
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from merveil.protocols.context import FINGERPRINT, Context
from merveil.protocols.frame import Reader, malformed
from merveil.protocols.primitives import merkle
from merveil.protocols.primitives.aead import OVERHEAD
from merveil.protocols.primitives.kdf import DIGEST, encode_fields, hash_fields
from merveil.protocols.primitives.shamir import SHARE, is_share
from merveil.protocols.primitives.sign import SIGNATURE

NONCE = 32
SALT = 16
VIEW = 16
BOX_PLAIN = 2 * (SHARE + SALT)
BOX = BOX_PLAIN + OVERHEAD
REVEALED = SHARE + SALT + DIGEST


class Kind(enum.IntEnum):
    """Message kinds in a frame's header."""

    ADVERT = 1
    KEYS = 2
    SHARES = 3
    RELAY = 4
    MASKED = 5
    SURVIVORS = 6
    SIGNED = 7
    REQUEST = 8
    ANSWER = 9
    COMPLAINT = 10


class Advert(NamedTuple):
    """What a client commits to before the session id exists.

    nonce: 32 bytes. mask_key: ephemeral X25519 key. seed_commitment: of the self-mask seed. share_root:
    Merkle root over both shares of every holder.
    """

    nonce: bytes
    mask_key: bytes
    seed_commitment: bytes
    share_root: bytes

    def encode(self) -> bytes:
        return self.nonce + self.mask_key + self.seed_commitment + self.share_root

    def digest(self, context: bytes, index: int) -> bytes:
        return hash_fields("secagg/1/advert", context, index.to_bytes(2, "big"), self.encode())


def read_advert(reader: Reader) -> Advert:
    return Advert(reader.take(NONCE), reader.take(32), reader.take(DIGEST), reader.take(DIGEST))


def seed_commitment(context: bytes, index: int, seed: bytes) -> bytes:
    return hash_fields("secagg/1/self-mask-commitment", context, index.to_bytes(2, "big"), seed)


def session_id(context: bytes, root: bytes, joined: int) -> bytes:
    """32 bytes: the context and the Merkle root over the adverts of those who answered KEYS."""
    return hash_fields("secagg/1/sid", context, root, joined.to_bytes(2, "big"))


def view_digest(sid: bytes, dealers: Iterable[int]) -> bytes:
    """16 bytes that stand for the neighbours, ascending, whose masks a vector carries."""
    return hash_fields("secagg/1/view", sid, b"".join(i.to_bytes(2, "big") for i in dealers))[:VIEW]


_LEAF = encode_fields("secagg/1/share-leaf")


def share_leaf(dealer: int, holder: int, kind: int, salt: bytes, share: bytes) -> bytes:
    """Salted commitment to one share; kind 0 self-mask seed, 1 mask-key seed. Fields of fixed length."""
    head = dealer.to_bytes(2, "big") + holder.to_bytes(2, "big") + bytes((kind,))
    return hashlib.sha256(_LEAF + head + salt + share).digest()


# client -> server


def encode_advert(context: Context, advert: Advert) -> bytes:
    return context.fingerprint + advert.encode()


def decode_advert(body: bytes, sender: int) -> tuple[bytes, Advert]:
    reader = Reader(body, sender)
    fingerprint, advert = reader.take(FINGERPRINT), read_advert(reader)
    reader.end()
    return fingerprint, advert


def encode_shares(nodes: bytes, boxes: Mapping[int, bytes]) -> bytes:
    """nodes: 32 bytes a holder, ascending; boxes: one a neighbour that answered KEYS, ascending."""
    return nodes + b"".join(boxes[i] for i in sorted(boxes))


def decode_shares(
    body: bytes, sender: int, holders: int, receivers: Sequence[int]
) -> tuple[list[bytes], dict[int, bytes]]:
    reader = Reader(body, sender)
    nodes = [reader.take(DIGEST) for _ in range(holders)]
    boxes = {i: reader.take(BOX) for i in receivers}
    reader.end()
    return nodes, boxes


class Held(NamedTuple):
    """Both shares that a holder keeps of one dealer, with their salts."""

    seed_share: bytes
    key_share: bytes
    seed_salt: bytes
    key_salt: bytes

    def __repr__(self) -> str:
        return "Held(...)"

    def encode(self) -> bytes:
        return self.seed_share + self.key_share + self.seed_salt + self.key_salt

    @classmethod
    def decode(cls, data: bytes) -> "Held":
        a, b, c = SHARE, 2 * SHARE, 2 * SHARE + SALT
        return cls(data[:a], data[a:b], data[b:c], data[c:])

    def leaves(self, dealer: int, holder: int) -> tuple[bytes, bytes]:
        return (
            share_leaf(dealer, holder, 0, self.seed_salt, self.seed_share),
            share_leaf(dealer, holder, 1, self.key_salt, self.key_share),
        )

    def node(self, dealer: int, holder: int) -> bytes:
        return merkle.node(*self.leaves(dealer, holder))

    def reveal(self, dealer: int, holder: int, kind: int) -> bytes:
        """One share with what proves it, and nothing about the other: share | salt | the other's leaf."""
        leaves = self.leaves(dealer, holder)
        if kind == 0:
            return self.seed_share + self.seed_salt + leaves[1]
        return self.key_share + self.key_salt + leaves[0]

    def canonical(self) -> bool:
        return is_share(self.seed_share) and is_share(self.key_share)


def proves(revealed: bytes, dealer: int, holder: int, kind: int, expected: bytes) -> bool:
    """Whether a revealed share belongs under the dealer's committed node of that holder."""
    share, salt, other = revealed[:SHARE], revealed[SHARE : SHARE + SALT], revealed[SHARE + SALT :]
    leaf = share_leaf(dealer, holder, kind, salt, share)
    return expected == (merkle.node(leaf, other) if kind == 0 else merkle.node(other, leaf))


def encode_answer(revealed: Sequence[bytes]) -> bytes:
    return b"".join(revealed)


def decode_answer(body: bytes, sender: int, dealers: Sequence[int]) -> dict[int, bytes]:
    reader = Reader(body, sender)
    found = {i: reader.take(REVEALED) for i in dealers}
    reader.end()
    for revealed in found.values():
        if not is_share(revealed[:SHARE]):
            raise malformed("a share is no field element", sender)
    return found


def encode_complaint(dealer: int, key: bytes) -> bytes:
    return dealer.to_bytes(2, "big") + key


def decode_complaint(body: bytes, sender: int) -> tuple[int, bytes]:
    reader = Reader(body, sender)
    dealer, key = reader.u16(), reader.take(32)
    reader.end()
    return dealer, key


# server -> client


@dataclass(frozen=True, slots=True)
class KeyList:
    """KEYS: who joined, as one client needs it. path: proves the client's own advert under root."""

    fingerprint: bytes
    root: bytes
    joined: int
    path: bytes
    adverts: Mapping[int, Advert]

    def encode(self) -> bytes:
        parts = [self.fingerprint, self.root, self.joined.to_bytes(2, "big"), self.path]
        parts.append(len(self.adverts).to_bytes(2, "big"))
        for i, advert in sorted(self.adverts.items()):
            parts.append(i.to_bytes(2, "big") + advert.encode())
        return b"".join(parts)


def decode_key_list(body: bytes, cohort: int) -> KeyList:
    reader = Reader(body, 0)
    fingerprint, root, joined = reader.take(FINGERPRINT), reader.take(DIGEST), reader.u16()
    path = reader.take(DIGEST * merkle.depth(cohort))
    adverts: dict[int, Advert] = {}
    last = 0
    for _ in range(reader.u16()):
        index = reader.u16()
        if index <= last:
            raise malformed("adverts are not in ascending order", 0)
        adverts[index], last = read_advert(reader), index
    reader.end()
    return KeyList(fingerprint, root, joined, path, adverts)


def encode_relay(entries: Mapping[int, tuple[bytes, bytes]]) -> bytes:
    """dealer -> (path from the holder's node to the dealer's share root, box)."""
    parts = [len(entries).to_bytes(2, "big")]
    for i, (path, box) in sorted(entries.items()):
        parts += (i.to_bytes(2, "big"), path, box)
    return b"".join(parts)


def decode_relay(body: bytes, depth: int) -> dict[int, tuple[bytes, bytes]]:
    reader = Reader(body, 0)
    entries: dict[int, tuple[bytes, bytes]] = {}
    last = 0
    for _ in range(reader.u16()):
        index = reader.u16()
        if index <= last:
            raise malformed("dealers are not in ascending order", 0)
        entries[index] = (reader.take(DIGEST * depth), reader.take(BOX))
        last = index
    reader.end()
    return entries


def survivor_entry(index: int, advert_digest: bytes, frame_digest: bytes) -> bytes:
    return hash_fields("secagg/1/survivor", index.to_bytes(2, "big"), advert_digest, frame_digest)


def survivor_root(sid: bytes, bitmap: bytes, entries_root: bytes) -> bytes:
    """What survivors sign: the whole list, and which advert and vector each entry stands for."""
    return hash_fields("secagg/1/survivors", sid, bitmap, entries_root)


class SurvivorList(NamedTuple):
    """SURVIVORS: the list as one client needs it. words: of its surviving neighbours, ascending (sparse)."""

    bitmap: bytes
    entries_root: bytes
    path: bytes
    words: bytes

    def encode(self) -> bytes:
        return b"".join(self)


def decode_survivors(body: bytes, cohort: int) -> SurvivorList:
    """Splits a body; how many words there must be, the receiver knows."""
    reader = Reader(body, 0)
    bitmap, root = reader.take((cohort + 7) // 8), reader.take(DIGEST)
    path = reader.take(DIGEST * merkle.depth(cohort))
    if cohort % 8 and bitmap[-1] >> (cohort % 8):
        raise malformed("the bitmap names positions beyond the cohort", 0)
    return SurvivorList(bitmap, root, path, reader.rest())


def encode_request(signatures: Mapping[int, bytes]) -> bytes:
    parts = [len(signatures).to_bytes(2, "big")]
    parts += [i.to_bytes(2, "big") + s for i, s in sorted(signatures.items())]
    return b"".join(parts)


def decode_request(body: bytes) -> dict[int, bytes]:
    reader = Reader(body, 0)
    found: dict[int, bytes] = {}
    last = 0
    for _ in range(reader.u16()):
        index = reader.u16()
        if index <= last:
            raise malformed("signers are not in ascending order", 0)
        found[index], last = reader.take(SIGNATURE), index
    reader.end()
    return found
