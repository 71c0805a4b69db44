"""Rebuild the lattice vectors byte for byte: `python tests/vectors/lattice/generate_lattice.py [FOLDER]`.

layouts.json: what follows from parameters. derivations.json: tables, streams, shares, a ciphertext and its
opening; long values as SHA-256. Keys and errors come from SeededRng; nothing is secret.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from merveil.protocols.identity import Coordinator, Identity
from merveil.protocols.lattice import Lattice, encryption, packed
from merveil.protocols.lattice.committee import Ends, committee, committee_digest, dealer_key
from merveil.protocols.lattice.messages import survivor_root
from merveil.protocols.lattice.params import LatticeParams
from merveil.protocols.lattice.ring import least_root
from merveil.protocols.lattice.sampling import gaussian_table, public
from merveil.protocols.primitives.agreement import private_key, public_bytes
from merveil.protocols.rng import SeededRng

Fields = dict[str, Any]
SEED = SeededRng(b"merveil lattice vectors 1")
CONTEXT = bytes(range(32))
CASES = ((5, 7, 16, 1), (6, 200, 4, 15), (7, 65, 40, 1), (100, 1_700, 16, 1), (100, 55_000, 16, 1),
         (100, 1_000_000, 16, 1), (1_000, 1_000_000, 16, 9), (10_000, 10_000, 24, 65_535))  # fmt: skip


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def layout(case: tuple[int, int, int, int]) -> Fields:
    cohort, dim, bits, weight = case
    p = Lattice().params(cohort, dim, bits=bits, max_weight=weight)
    assert isinstance(p, LatticeParams)
    d, x = p.digits, p.layout
    return {
        "params": p.encoded.decode(),
        "digits": {"base": d.base, "a_code": d.limbs, "weight": d.weight, "total": d.total, "radix": d.radix},
        "count": x.count, "groups": x.groups, "error": x.error, "step": x.step,
        "primes": list(x.primes), "roots": [least_root(p.degree, q) for q in x.primes],
        "ciphertext_bytes": x.size, "share_field": p.field, "blocks": p.blocks, "share_bytes": p.share_size,
    }  # fmt: skip


def ciphertext(case: tuple[int, int, int, int]) -> Fields:
    """Two clients' vectors masked, added and opened with the sum of their keys."""
    cohort, dim, bits, weight = case
    p, rng = Lattice().params(cohort, dim, bits=bits, max_weight=weight), SEED.child(f"case/{case}")
    assert isinstance(p, LatticeParams)
    total, keys, vectors, data = encryption.Total(p.layout), [], [], []
    for i in (0, 1):
        words = np.frombuffer(rng.draw(8 * p.size, "codes"), dtype="<u8")
        codes = (words % np.uint64(2 * p.levels + 1)).astype(np.int64) - p.levels
        if p.weighted:
            codes[-1] = 1 + i
        key = encryption.Key.draw(p.degree, rng)
        keys.append(key.peek())
        data.append(encryption.mask(p, CONTEXT, key, codes, rng))
        total.add(encryption.residues(p.layout, data[-1]))
        vectors.append(codes)
    opened = encryption.open_sum(p, CONTEXT, total, keys[0] + keys[1], 2)
    assert np.array_equal(opened, vectors[0] + vectors[1])
    values, offset = encryption.to_digits(p, vectors[0])
    return {
        "params": p.encoded.decode(),
        "context": CONTEXT.hex(),
        "codes": [v[:8].tolist() for v in vectors],
        "digits": (values[:8] + offset).tolist(),
        "keys_sha256": [sha(k.astype("i1").tobytes()) for k in keys],
        "public_first": [
            public(CONTEXT, p.degree, p.layout.groups, r, q)[:4].tolist()
            for r, q in enumerate(p.layout.primes)
        ],
        "ciphertexts": [d.hex() if len(d) < 600 else sha(d) for d in data],
        "sum": opened[:8].tolist(),
    }


def sharing() -> Fields:
    p, rng = Lattice().params(12, 10), SEED.child("sharing")
    assert isinstance(p, LatticeParams)
    secret = (np.arange(p.degree) % 61 - 30).astype(np.int64)
    shares = packed.share(p, secret, rng)
    return {
        "params": p.encoded.decode(),
        "secret": "coefficient i is i mod 61 - 30",
        "shares_of_polynomial_0": shares[:, 0].tolist(),
        "shares_of_polynomial_1": shares[:, 1].tolist(),
        "packed_sha256": [sha(packed.encode(p, row)) for row in shares],
    }


def sealing() -> Fields:
    people = [Identity.generate(f"member-{i}", SEED.child(f"member/{i}")) for i in range(1, 41)]
    roster = Coordinator.generate(SEED.child("coordinator")).sign(
        [x.member for x in people], serial=1, not_before=1, expires=2, rng=SEED.child("beacon")
    )
    p = Lattice().params(40, 3)
    assert isinstance(p, LatticeParams)
    members = committee(p, roster, tuple(range(1, 41)))
    scalar = private_key(SEED.child("ephemeral").draw(32, "scalar"))
    ends = Ends(CONTEXT, 7, members[0], public_bytes(scalar))
    static = roster.member(members[0]).agree_key
    return {
        "beacon": roster.beacon.hex(),
        "roster_hash": roster.hash.hex(),
        "members": list(members),
        "committee_digest": committee_digest(roster, members).hex(),
        "dealer": 7,
        "dealer_private": people[6].agree_key.private_bytes_raw().hex(),
        "member_key": static.hex(),
        "ephemeral_private": scalar.private_bytes_raw().hex(),
        "ephemeral": ends.ephemeral.hex(),
        "box_key": dealer_key(ends, scalar, people[6].agree_key, static).hex(),
        "box_aad": ends.aad().hex(),
        "root": survivor_root(CONTEXT, b"\x05", [b"a" * 32, b"b" * 32]).hex(),
    }


def files() -> dict[str, str]:
    derived = {
        "gaussian_table": gaussian_table().tolist(),
        "ciphertexts": [ciphertext(c) for c in CASES[:4]],
        "sharing": sharing(),
        "sealing": sealing(),
    }
    made = {"layouts.json": {"layouts": [layout(c) for c in CASES]}, "derivations.json": derived}
    return {name: json.dumps({"format": 1, **value}, indent=1) + "\n" for name, value in made.items()}


def main() -> int:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    for name, text in files().items():
        (folder / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
