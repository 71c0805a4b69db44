"""What an adversary of `lattice` computes from frames, stolen or own keys, and answers.

Guarantees: every function reads frames that the adversary holds as server, long-term keys of members that it
owns or stole, or what a round publishes. Nothing here knows an honest client's session. Source: the layouts
of docs/wire.md.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from merveil.attacks.protocol import Round
from merveil.protocols.errors import Aborted
from merveil.protocols.frame import SERVER, Frame
from merveil.protocols.identity import Identity
from merveil.protocols.lattice import encryption, packed
from merveil.protocols.lattice import messages as msg
from merveil.protocols.lattice.committee import Ends, committee, member_key
from merveil.protocols.lattice.encryption import Total
from merveil.protocols.lattice.messages import SUITE, Kind, Upload
from merveil.protocols.lattice.params import LatticeParams
from merveil.protocols.primitives.aead import open_once
from merveil.protocols.survivors import to_bitmap

Codes = NDArray[np.int64]
Elements = NDArray[np.int64]


def upload(round_: Round, client: int) -> Upload | None:
    """What a client sent in a round, or None where it sent nothing."""
    frame = round_.heard.get((Kind.UPLOAD, client))
    return None if frame is None else msg.decode_upload(round_.field.params, frame.body, client)


def members(round_: Round) -> tuple[int, ...]:
    """The committee: public."""
    return committee(round_.field.params, round_.field.roster, round_.context.cohort)


def residues(params: LatticeParams, found: Upload) -> NDArray[np.uint32]:
    """Coefficients of a ciphertext modulo each prime, (primes, count)."""
    total = Total(params.layout)
    total.add(encryption.residues(params.layout, found.ciphertext))
    return total.rows


def lifted(params: LatticeParams, rows: NDArray[Any]) -> list[int]:
    """Residues as the integers of least magnitude that have them."""
    primes = params.layout.primes
    whole = math.prod(primes)
    units = [whole // p * pow(whole // p, -1, p) for p in primes]
    values = (sum(u * int(x) for u, x in zip(units, column)) % whole for column in rows.T)
    return [v - whole if v > whole // 2 else v for v in values]


def difference(params: LatticeParams, one: Upload, two: Upload) -> Codes:
    """Codes of `one` minus codes of `two`, if both are masked by one key under one set of polynomials."""
    layout, radix = params.layout, params.digits.radix
    primes = np.array(layout.primes, dtype=np.int64)[:, None]
    rows = (residues(params, one).astype(np.int64) - residues(params, two)) % primes
    digits = np.empty((layout.values, layout.count), dtype=np.int64)
    for m, x in enumerate(lifted(params, rows)):
        rest = (x - _centred(x, layout.step)) // layout.step
        for i in range(layout.values):
            digit = _centred(rest, radix)
            digits[i, m], rest = digit, (rest - digit) // radix
    return encryption.from_digits(params, digits.reshape(-1)[: params.digits.total], 0)


def _centred(x: int, modulus: int) -> int:
    return (x + modulus // 2) % modulus - modulus // 2


def opened(params: LatticeParams, context: bytes, found: Upload, secret: Elements) -> Codes | None:
    """The codes of one upload under a secret; None where the scheme's own check says that it is wrong."""
    total = Total(params.layout)
    total.add(encryption.residues(params.layout, found.ciphertext))
    try:
        return encryption.open_sum(params, context, total, secret, 1)
    except Aborted:
        return None


def box_of(round_: Round, dealer: int, member: int) -> bytes:
    """The sealed share of a dealer for a member."""
    found, size = upload(round_, dealer), msg.box_size(round_.field.params)
    assert found is not None
    at = members(round_).index(member) * size
    return found.boxes[at : at + size]


def unsealed(round_: Round, dealer: int, member: int, keys: Identity) -> Elements | None:
    """A dealer's share, opened with a member's long-term keys."""
    found = upload(round_, dealer)
    if found is None:
        return None
    ends = Ends(round_.context.digest, dealer, member, found.ephemeral)
    static = round_.field.roster.member(dealer).agree_key
    key = member_key(ends, keys.agree_key, static)
    plain = open_once(key, box_of(round_, dealer, member), ends.aad())
    return None if plain is None else packed.decode(round_.field.params, plain)


def key_sum(round_: Round, answers: Mapping[int, Elements]) -> Elements | None:
    """The secret that at least t shares or summed shares give, by member; None where there are fewer."""
    params, places = round_.field.params, members(round_)
    points = sorted((places.index(i) + 1, i) for i in answers)[: params.quorum]
    if len(points) < params.quorum:
        return None
    return packed.recover(params, {x: answers[i] for x, i in points})


def list_frame(round_: Round, member: int, alive: Iterable[int]) -> Frame:
    """A SURVIVORS frame that names whom the server likes, with the true shares of each."""
    context, named = round_.context, sorted(alive)
    dealt = []
    for i in named:
        found = upload(round_, i)
        assert found is not None
        dealt.append(msg.Dealt(found.ephemeral, box_of(round_, i, member)))
    bitmap = to_bitmap([context.cohort.index(i) for i in named], len(context.cohort))
    return _frame(round_, Kind.SURVIVORS, member, msg.encode_survivors(bitmap, dealt))


def request_frame(round_: Round, member: int, signatures: Mapping[int, bytes]) -> Frame:
    return _frame(round_, Kind.REQUEST, member, msg.encode_request(signatures))


def _frame(round_: Round, kind: Kind, to: int, body: bytes) -> Frame:
    return Frame(SUITE, kind, round_.context.digest[:16], SERVER, to, body)


def answer_of(round_: Round, frames: Iterable[Frame]) -> Elements | None:
    """The summed share in a member's answer."""
    for f in frames:
        if f.kind == Kind.ANSWER:
            return packed.decode(round_.field.params, f.body)
    return None
