"""What an adversary of `ckks` computes from frames, key shares and decryptions: keys, sums, single uploads.

Guarantees: every function reads frames that the adversary holds, memory of clients that it owns, or what a
round publishes. Sources: Li and Micciancio, EUROCRYPT 2021 (`solve`); eprint 2024/194 and 2025/409
(`from_retries`); the layouts of docs/wire.md.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from merveil.attacks import lattice3
from merveil.attacks.protocol import Round
from merveil.protocols.ckks import encoding, encryption, ring
from merveil.protocols.ckks import messages as msg
from merveil.protocols.ckks.constants import DATA, DEGREE, PRIMES
from merveil.protocols.ckks.messages import Kind
from merveil.protocols.ckks.ring import Residues
from merveil.protocols.ckks.wire import decode_polynomials
from merveil.protocols.frame import Frame

Codes = NDArray[np.int64]
_PRIMES = np.array(PRIMES[:DATA], dtype=np.int64)[:, None]


# Keys


def divide(x: Residues, y: Residues) -> Residues:
    """x/y in NTT form; a random ciphertext's y is invertible almost surely. ValueError where it is not."""
    inverse = [[pow(int(v), -1, PRIMES[r]) for v in y[0, r]] for r in range(DATA)]
    return ring.multiply(x, np.array(inverse, dtype=np.int64)[None])


def solve(c0: Residues, c1: Residues, plain: Residues) -> Residues:
    """Coefficients of s in c0 + c1*s = plain: what a ciphertext and its exact raw decryption give away."""
    return ring.inverse(divide(ring.add(plain.copy(), ring.negate(c0)), c1))


def small(x: Residues, bound: int) -> float:
    """Share of coefficients of magnitude at most `bound` modulo every prime; by chance about 2^-68."""
    return float((np.minimum(x, _PRIMES - x) <= bound).all(axis=1).mean())


def reencoded(slots: NDArray[np.complex128], scale: float) -> Residues:
    """Published complex slots as a plaintext polynomial again, rounded: exact at small scales."""
    where, twist = encoding.roots()
    table = np.zeros(DEGREE, dtype=complex)
    table[where], table[DEGREE - 1 - where] = slots, np.conj(slots)
    polynomial = np.rint((np.fft.fft(table) / DEGREE / twist).real * scale).astype(np.int64)
    return ring.forward(ring.residues(polynomial[None], DATA))


def joint_share(shares: Mapping[int, Residues]) -> Residues:
    """What Lagrange gives from shares by holder: the joint secret in NTT form where they are enough."""
    total = None
    for i, share in shares.items():
        part = ring.scale_add(share.copy(), encryption.lagrange(sorted(shares), i), np.zeros_like(share))
        total = part if total is None else ring.add(total, part)
    assert total is not None
    return total


def as_secret(coefficients: Codes) -> Residues:
    """Small coefficients, shape (4096,), as a secret in NTT form."""
    return ring.forward(ring.residues(coefficients[None], DATA))


def read(params: Any, plain: Residues) -> Codes:
    """Codes of a plaintext in NTT form, whatever its noise."""
    return encoding.from_limbs(params, encoding.read(params, plain)[0])


def opened(params: Any, upload: tuple[Residues, Residues], secret: Residues) -> Codes:
    """Codes of one upload under a secret in NTT form, right or not."""
    return read(params, ring.multiply_add(upload[0].copy(), upload[1], secret))


# Frames


def upload_of(params: Any, frame: Frame) -> tuple[Residues, Residues]:
    """(c0, c1) of a client's UPLOAD."""
    count = params.layout.ciphertexts
    found = msg.decode_upload(frame.body, frame.sender, count)
    parts = (decode_polynomials(x, count, DATA, frame.sender) for x in (found.c0, found.c1))
    c0, c1 = parts
    return c0, c1


def share_of(round_: Round, client: int) -> Residues:
    """The key share in a corrupted client's memory, until it has answered."""
    share: Residues = round_.own(client)._state.share
    return share


def upload(round_: Round, client: int) -> tuple[Residues, Residues]:
    return upload_of(round_.field.params, round_.heard[Kind.UPLOAD, client])


def total(parts: Iterable[Residues]) -> Residues:
    """Their sum."""
    first, *rest = parts
    out = first.copy()
    for x in rest:
        ring.add(out, x)
    return out


@dataclass(frozen=True)
class Released:
    """What one sum gives away. c0, c1: of the sum. plaintexts: each form it was decrypted to."""

    c0: Residues
    c1: Residues
    plaintexts: tuple[Residues, ...]
    clients: int


def released(view: Any, rng: np.random.Generator) -> Released:
    """One mean over an in-process aggregator of the build: its frames, and every decryption one can see."""
    aggregator = view.build.aggregator("ckks", record=True)
    updates = [rng.uniform(-1, 1, DEGREE // 2) for _ in range(view.size)]
    mean = aggregator.mean(updates)
    frames, params = mean.transcript.frames, mean.transcript.params
    pairs = [upload_of(params, f) for f in frames if f.kind == Kind.UPLOAD]
    c0, c1 = total(c for c, _ in pairs), total(c for _, c in pairs)
    if np.iscomplexobj(mean.value):  # raw floats, as others publish them
        return Released(c0, c1, (reencoded(mean.value * len(pairs), aggregator.scale),), len(pairs))
    codes = np.rint(mean.value * len(pairs) / params.clip * params.levels).astype(np.int64)
    published = encoding.message(params, encoding.to_limbs(params, codes))
    count = params.layout.ciphertexts
    answers = [f for f in frames if f.kind == Kind.ANSWER and len(f.body) > msg.DIGEST]
    parts = (decode_polynomials(f.body[msg.DIGEST :], count, DATA, f.sender) for f in answers)
    return Released(c0, c1, (published, total((c0, *parts))), len(pairs))


# A lying server


def request(round_: Round, to: int, signers: Sequence[int], parts: Sequence[tuple[bytes, bytes]]) -> Frame:
    """A REQUEST of the server's own making to one decryptor. parts: (stamp, c1) as a survivor sent them."""
    signed = {i: round_.heard[Kind.SIGNED, i].signature for i in signers}
    true = round_.heard[Kind.SIGNED, to]
    body = msg.encode_request(signed, parts)
    return replace(true, kind=Kind.REQUEST, sender=0, to=to, body=body, signature=b"")


def part_of(round_: Round, client: int) -> tuple[bytes, bytes]:
    found = msg.decode_upload(
        round_.heard[Kind.UPLOAD, client].body, client, round_.field.params.layout.ciphertexts
    )
    return found.stamp, found.c1


def answer_of(round_: Round, frames: Sequence[Frame]) -> Residues | None:
    """A decryptor's answer in the frames it just gave, or None."""
    count = round_.field.params.layout.ciphertexts
    for f in frames:
        if f.kind == Kind.ANSWER and len(f.body) > msg.DIGEST:
            return decode_polynomials(f.body[msg.DIGEST :], count, DATA, f.sender)
    return None


def reach(subsets: Sequence[tuple[int, ...]], own: int) -> float:
    """How much noise the weights of these subsets let a lattice take off."""
    return lattice3.reach(tuple(encryption.lagrange(s, own) for s in subsets))


def from_retries(c1: Residues, own: int, answers: Mapping[tuple[int, ...], Residues]) -> Residues:
    """A decryptor's key share from its answers to three subsets on one ciphertext c1, shape (1, 2, 4096).

    Each answer is weight*x + noise with x = c1*share; a lattice of dimension three holds the noiseless ones.
    """
    weights = tuple(encryption.lagrange(subset, own) for subset in answers)
    halves = [encoding.split(ring.inverse(a[:1].copy())) for a in answers.values()]
    noise = lattice3.nearest(weights, [(low[0], high[0]) for low, high in halves])
    first = ring.inverse(next(iter(answers.values()))[:1].copy())
    clean = ring.add(first, ring.negate(ring.residues(noise[None], DATA)))
    back = tuple(pow(w, -1, p) for w, p in zip(weights[0], PRIMES))
    x = ring.forward(ring.scale_add(clean, back, np.zeros_like(clean)))
    return divide(x, c1[:1])
