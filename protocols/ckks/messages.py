"""Bodies of the messages of `ckks`; docs/wire.md lists the layouts. Integers are big-endian.

Every body has one length, given by the parameters and by who takes part, and decodes to one value.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise

from merveil.protocols.ckks.constants import CIPHERTEXT_BYTES, PUBLIC_BYTES
from merveil.protocols.context import FINGERPRINT, Context
from merveil.protocols.frame import Reader, malformed
from merveil.protocols.primitives.aead import OVERHEAD
from merveil.protocols.primitives.kdf import hash_fields
from merveil.protocols.primitives.sign import SIGNATURE

SUITE = 3
SALT = 32
DIGEST = 32
ADVERT = 96
REPEATS = 2  # of the check that shares lie on a polynomial: 36 bits each
SCALARS = 8 * REPEATS * 2  # a value of the check for each repeat and data prime
BOX = CIPHERTEXT_BYTES + SCALARS + SALT + OVERHEAD  # a sealed key share, its mask and the salt of its node


class Kind(IntEnum):
    """Message kinds; odd ones come from clients, even ones from the server."""

    ADVERT = 1
    KEYS = 2
    SHARES = 3
    RELAY = 4
    UPLOAD = 5
    SURVIVORS = 6
    SIGNED = 7
    REQUEST = 8
    ANSWER = 9
    COMPLAINT = 11


def index_bytes(indices: Iterable[int]) -> bytes:
    return b"".join(i.to_bytes(2, "big") for i in indices)


def _ascending(indices: Sequence[int], sender: int) -> None:
    if any(a >= b for a, b in pairwise(indices)) or 0 in indices:
        raise malformed("indices are not ascending", sender)


@dataclass(frozen=True)
class Advert:
    """nonce: freshness. share_key: ephemeral X25519 key that key shares are sealed to. commitment: to b."""

    nonce: bytes
    share_key: bytes
    commitment: bytes

    def encode(self) -> bytes:
        return self.nonce + self.share_key + self.commitment


def read_advert(reader: Reader) -> Advert:
    return Advert(reader.take(32), reader.take(32), reader.take(32))


def encode_advert(context: Context, advert: Advert) -> bytes:
    return context.fingerprint + advert.encode()


def decode_advert(body: bytes, sender: int) -> tuple[bytes, Advert]:
    reader = Reader(body, sender)
    fingerprint, advert = reader.take(FINGERPRINT), read_advert(reader)
    reader.end()
    return fingerprint, advert


def commitment(context: bytes, index: int, salt: bytes, public: bytes) -> bytes:
    """What a client says of its b before it sees another's. salt: 32 bytes; public: b's wire form."""
    return hash_fields("ckks/1/commit", context, index.to_bytes(2, "big"), salt, public)


def encode_keys(context: Context, adverts: Mapping[int, Advert]) -> bytes:
    entries = (i.to_bytes(2, "big") + adverts[i].encode() for i in sorted(adverts))
    return context.fingerprint + len(adverts).to_bytes(2, "big") + b"".join(entries)


def decode_keys(body: bytes) -> tuple[bytes, dict[int, Advert]]:
    reader = Reader(body, 0)
    fingerprint, count = reader.take(FINGERPRINT), reader.u16()
    adverts: dict[int, Advert] = {}
    indices = []
    for _ in range(count):
        indices.append(reader.u16())
        adverts[indices[-1]] = read_advert(reader)
    reader.end()
    _ascending(indices, 0)
    return fingerprint, adverts


def session_id(context: bytes, adverts: Mapping[int, Advert]) -> bytes:
    """32 bytes over the context and every advert: fresh whatever else repeats."""
    listed = b"".join(i.to_bytes(2, "big") + adverts[i].encode() for i in sorted(adverts))
    return hash_fields("ckks/1/sid", context, listed)


def box_aad(sid: bytes, dealer: int, holder: int, proof: bytes) -> bytes:
    """The proof is bound too: a relay that changed it gets no complaint, which would show a share."""
    return hash_fields("ckks/1/box", sid, index_bytes((dealer, holder)), proof)


def proof_size(holders: int, threshold: int) -> int:
    """Bytes of a dealer's proof: a node for each holder, then the response's coefficients."""
    return DIGEST * holders + SCALARS * threshold


def encode_complaint(dealer: int, key: bytes) -> bytes:
    """key: of the box that the dealer sealed for the complaining client, 32 bytes."""
    return index_bytes((dealer,)) + key


def decode_complaint(body: bytes, sender: int) -> tuple[int, bytes]:
    reader = Reader(body, sender)
    dealer, key = reader.u16(), reader.take(32)
    reader.end()
    return dealer, key


@dataclass(frozen=True)
class Dealt:
    """A dealer's opening of its commitment, and one sealed share. public: b on the wire."""

    salt: bytes
    public: bytes
    proof: bytes
    box: bytes


def encode_shares(salt: bytes, public: bytes, proof: bytes, boxes: Mapping[int, bytes]) -> bytes:
    return salt + public + proof + b"".join(boxes[i] for i in sorted(boxes))


def decode_shares(
    body: bytes, sender: int, peers: Sequence[int], proof_bytes: int
) -> tuple[bytes, bytes, bytes, dict[int, bytes]]:
    """(salt, public, proof, boxes by holder); peers: who is to get a box, ascending."""
    reader = Reader(body, sender)
    salt, public, proof = reader.take(SALT), reader.take(PUBLIC_BYTES), reader.take(proof_bytes)
    boxes = {i: reader.take(BOX) for i in peers}
    reader.end()
    return salt, public, proof, boxes


def encode_relay(entries: Mapping[int, Dealt]) -> bytes:
    parts = [len(entries).to_bytes(2, "big")]
    for i in sorted(entries):
        e = entries[i]
        parts += [i.to_bytes(2, "big"), e.salt, e.public, e.proof, e.box]
    return b"".join(parts)


def decode_relay(body: bytes, proof: int, box: int = BOX) -> dict[int, Dealt]:
    """proof, box: bytes of a proof and of a sealed share; 0 where one client holds the key alone."""
    reader = Reader(body, 0)
    entries: dict[int, Dealt] = {}
    indices = []
    for _ in range(reader.u16()):
        indices.append(reader.u16())
        entries[indices[-1]] = Dealt(
            reader.take(SALT), reader.take(PUBLIC_BYTES), reader.take(proof), reader.take(box)
        )
    reader.end()
    _ascending(indices, 0)
    return entries


def view_digest(sid: bytes, dealers: Iterable[int]) -> bytes:
    """Whose keys are in the joint key; what they are is fixed by the adverts behind sid."""
    return hash_fields("ckks/1/view", sid, index_bytes(sorted(dealers)))


@dataclass(frozen=True)
class Upload:
    """A ciphertext on its way. stamp: signature over what a decryptor must check without c0."""

    view: bytes
    stamp: bytes
    c0: bytes
    c1: bytes


def encode_upload(upload: Upload) -> bytes:
    return upload.view + upload.stamp + upload.c0 + upload.c1


def decode_upload(body: bytes, sender: int, ciphertexts: int) -> Upload:
    reader, size = Reader(body, sender), ciphertexts * CIPHERTEXT_BYTES
    upload = Upload(reader.take(DIGEST), reader.take(SIGNATURE), reader.take(size), reader.take(size))
    reader.end()
    return upload


STAMP = "ckks/1/upload"


def stamp_fields(sid: bytes, index: int, view: bytes, c1_digest: bytes) -> tuple[bytes, ...]:
    return sid, index.to_bytes(2, "big"), view, c1_digest


def c1_digest(c1: bytes) -> bytes:
    return hashlib.sha256(c1).digest()


def encode_survivors(entries: Mapping[int, bytes]) -> bytes:
    """entries: survivor -> SHA-256 of its c1 part."""
    return len(entries).to_bytes(2, "big") + b"".join(
        i.to_bytes(2, "big") + entries[i] for i in sorted(entries)
    )


def decode_survivors(body: bytes) -> dict[int, bytes]:
    reader = Reader(body, 0)
    pairs = [(reader.u16(), reader.take(DIGEST)) for _ in range(reader.u16())]
    reader.end()
    _ascending([i for i, _ in pairs], 0)
    return dict(pairs)


def survivor_root(sid: bytes, view: bytes, survivors: bytes) -> bytes:
    """What survivors sign: the session, the joint key and the whole list."""
    return hash_fields("ckks/1/survivors", sid, view, survivors)


def encode_request(signatures: Mapping[int, bytes], parts: Sequence[tuple[bytes, bytes]]) -> bytes:
    """signatures: of the chosen decryptors, on the root. parts: (stamp, c1) of each survivor, or none."""
    head = len(signatures).to_bytes(2, "big")
    signed = (i.to_bytes(2, "big") + signatures[i] for i in sorted(signatures))
    return head + b"".join(signed) + b"".join(stamp + c1 for stamp, c1 in parts)


def decode_request(
    body: bytes, own: int, survivors: int, ciphertexts: int, authority: int = 0
) -> tuple[dict[int, bytes], list[tuple[bytes, bytes]]]:
    """Signatures, and the parts where this client is among the decryptors, or is the authority."""
    reader = Reader(body, 0)
    pairs = [(reader.u16(), reader.take(SIGNATURE)) for _ in range(reader.u16())]
    _ascending([i for i, _ in pairs], 0)
    signatures = dict(pairs)
    size = ciphertexts * CIPHERTEXT_BYTES
    decrypts = own == authority if authority else own in signatures
    parts = [(reader.take(SIGNATURE), reader.take(size)) for _ in range(survivors if decrypts else 0)]
    reader.end()
    return signatures, parts


def subset_digest(root: bytes, decryptors: Iterable[int]) -> bytes:
    return hash_fields("ckks/1/decryptors", root, index_bytes(sorted(decryptors)))


def decode_answer(body: bytes, sender: int, ciphertexts: int) -> tuple[bytes, bytes]:
    """(digest of the decryptors, answer): ciphertexts = 0 for those who only close the round."""
    reader = Reader(body, sender)
    digest, answer = reader.take(DIGEST), reader.take(ciphertexts * CIPHERTEXT_BYTES)
    reader.end()
    return digest, answer
