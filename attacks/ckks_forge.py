"""Frames of `ckks` that no honest party makes: crafted uploads, signed with a corrupted client's own key."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from merveil.attacks.protocol import Round
from merveil.protocols.ckks import messages as msg
from merveil.protocols.ckks.constants import CIPHERTEXT_BYTES, DATA, DEGREE, PRIMES
from merveil.protocols.ckks.messages import Kind, Upload
from merveil.protocols.ckks.ring import Residues
from merveil.protocols.ckks.wire import decode_polynomials, encode_polynomials
from merveil.protocols.frame import Frame
from merveil.protocols.primitives.sign import SIGNATURE, sign

REQUEST = int(Kind.REQUEST)


def session_id(round_: Round, client: int) -> bytes:
    """The 32-byte session id as a client was told."""
    _, adverts = msg.decode_keys(round_.told[Kind.KEYS, client].body)
    return msg.session_id(round_.context.digest, adverts)


def uploads(round_: Round, attacker: int, change: Callable[[Frame], Frame]) -> None:
    """Play a round until the uploads are in, that of one corrupted client changed."""
    round_.begin()
    batch, round_.down = round_.run(until=Kind.RELAY), []
    for frame in batch:
        for own in round_.hand(frame):
            round_.up([change(own) if own.sender == attacker else own])


def crafted(round_: Round, frame: Frame, factor: int) -> Frame:
    """(0, factor) in place of a corrupted client's ciphertext; its session goes on with that."""
    count = round_.field.params.layout.ciphertexts  # type: ignore[attr-defined]
    c1 = constant(factor, count)
    raw = encode_polynomials(c1)
    round_.own(frame.sender)._state.c1 = msg.c1_digest(raw)
    return stamped(round_, frame, encode_polynomials(np.zeros_like(c1)), raw)


def nothing(count: int) -> tuple[bytes, bytes]:
    """(stamp, c1) of a ciphertext that adds next to nothing: c1 = 1, and no signature."""
    return bytes(SIGNATURE), encode_polynomials(constant(1, count))


def counted(round_: Round, client: int) -> bool:
    """Whether the server has added the client's ciphertext."""
    return client in round_.server._book.parts


def unit(params: Any) -> int:
    """What one step of a code is worth in a coefficient: the scale, exactly."""
    return int(params.layout.delta) * PRIMES[0]


def constant(value: int, count: int) -> Residues:
    """`count` times the constant polynomial `value`, in NTT form."""
    row = np.array([value % p for p in PRIMES[:DATA]], dtype=np.int64)
    return np.broadcast_to(row[None, :, None], (count, DATA, DEGREE)).copy()


def stamped(round_: Round, frame: Frame, c0: bytes, c1: bytes, sid: bytes | None = None) -> Frame:
    """A client's UPLOAD with other polynomials, stamped and signed by that corrupted client."""
    own = round_.field.key(frame.sender)
    true, view = session_id(round_, frame.sender), frame.body[: msg.DIGEST]
    fields = msg.stamp_fields(sid or true, frame.sender, view, msg.c1_digest(c1))
    stamp = sign(own.sign_key, msg.STAMP, *fields)
    body = msg.encode_upload(Upload(view, stamp, c0, c1))
    return replace(frame, body=body, signature=b"").signed(own.sign_key, true)


def _zero_one_prime(c1: Residues) -> Residues:
    out = c1.copy()
    out[:, 1] = 0
    return out


def _too_large(c1: Residues) -> bytes:
    """One residue is its prime: zero, but not in canonical form."""
    out = c1.copy()
    out[0, 0, 0] = PRIMES[0]
    return encode_polynomials(out)


def _library(c0: Residues, c1: Residues) -> bytes:
    """TenSEAL's own serialised form of the whole ciphertext."""
    from merveil.protocols.ckks.seal import seal_ciphertext

    return seal_ciphertext(c0[0], c1[0])


Pair = tuple[bytes, bytes]
MALFORMED: dict[str, Callable[[Residues, Residues], Pair]] = {
    "transparent": lambda c0, c1: (encode_polynomials(c0), encode_polynomials(np.zeros_like(c1))),
    "transparent modulo one prime": lambda c0, c1: (
        encode_polynomials(c0), encode_polynomials(_zero_one_prime(c1))
    ),
    "residue above its prime": lambda c0, c1: (encode_polynomials(c0), _too_large(c1)),
    "one byte short": lambda c0, c1: (encode_polynomials(c0), encode_polynomials(c1)[:-1]),
    "another ciphertext too many": lambda c0, c1: (encode_polynomials(c0), encode_polynomials(c1) * 2),
    "bytes of a library": lambda c0, c1: (encode_polynomials(c0), _library(c0, c1)),
    "stamped for another session": lambda c0, c1: (encode_polynomials(c0), encode_polynomials(c1)),
}  # fmt: skip


def malformed_upload(round_: Round, frame: Frame, what: str) -> Frame:
    """The client's upload of this round, made malformed in one of the ways of MALFORMED."""
    count = round_.field.params.layout.ciphertexts  # type: ignore[attr-defined]
    size = count * CIPHERTEXT_BYTES
    c0, c1 = (decode_polynomials(frame.body[-k * size :][:size], count, DATA, frame.sender) for k in (2, 1))
    foreign = bytes(32) if what == "stamped for another session" else None
    return stamped(round_, frame, *MALFORMED[what](c0, c1), foreign)
