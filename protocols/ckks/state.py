"""What a client remembers between frames, and its canonical bytes for a sealed snapshot."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from merveil.protocols.ckks.constants import DATA, PRIMES
from merveil.protocols.ckks.messages import ADVERT, Advert, Kind, read_advert
from merveil.protocols.ckks.ring import Residues
from merveil.protocols.ckks.wire import decode_polynomials, encode_polynomials
from merveil.protocols.codec import Codes
from merveil.protocols.errors import AbortCode, Aborted, RemoteError
from merveil.protocols.frame import Reader
from merveil.protocols.session import Phase
from merveil.protocols.snapshot import pack_fields, unpack_fields


@dataclass
class ClientState:
    """Secrets are left out of repr.

    secret: ternary coefficients, until dealt. public, salt: own b and the opening of its commitment, until
    sent. seed: behind the ephemeral share key, until the boxes are sealed. incoming: box keys by dealer,
    until opened. share: own share of the joint key, until answered. joint: sum of b, until encrypted. c1:
    digest of the own c1 part. survivors: the list as signed. seen: digests of server frames.
    """

    codes: Codes | None = field(default=None, repr=False)
    advert: Advert | None = None
    secret: Residues | None = field(default=None, repr=False)
    public: bytes = field(default=b"", repr=False)
    salt: bytes = field(default=b"", repr=False)
    seed: bytes = field(default=b"", repr=False)
    sid: bytes = b""
    adverts: dict[int, Advert] = field(default_factory=dict, repr=False)
    incoming: dict[int, bytes] = field(default_factory=dict, repr=False)
    share: Residues | None = field(default=None, repr=False)
    joint: Residues | None = field(default=None, repr=False)
    dealers: tuple[int, ...] = ()
    view: bytes = b""
    c1: bytes = b""
    survivors: bytes = field(default=b"", repr=False)
    root: bytes = b""
    seen: dict[Kind, bytes] = field(default_factory=dict, repr=False)

    def dump(self, phase: Phase) -> bytes:
        return pack_fields(
            (
                phase.value.encode(),
                b"" if self.codes is None else self.codes.astype("<i8").tobytes(),
                b"" if self.advert is None else self.advert.encode(),
                b"" if self.secret is None else self.secret.astype(np.int8).tobytes(),
                self.public,
                self.salt,
                self.seed,
                self.sid,
                join({i: a.encode() for i, a in self.adverts.items()}),
                join(self.incoming),
                b"" if self.share is None else encode_polynomials(self.share),
                b"" if self.joint is None else encode_polynomials(self.joint),
                b"".join(i.to_bytes(2, "big") for i in self.dealers),
                self.view,
                self.c1,
                self.survivors,
                self.root,
                join({int(k): d for k, d in self.seen.items()}),
            )
        )

    @classmethod
    def load(cls, data: bytes) -> "tuple[Phase, ClientState]":
        f = unpack_fields(data, 18)
        try:
            phase = Phase(f[0].decode())
            share = decode_polynomials(f[10], 1, DATA, 0) if f[10] else None
            joint = decode_polynomials(f[11], 1, len(PRIMES), 0) if f[11] else None
            seen = {Kind(k): d for k, d in split(f[17], 32).items()}
        except (ValueError, RemoteError) as error:
            raise Aborted(AbortCode.STATE_ROLLBACK, "the snapshot is damaged") from error
        state = cls(
            codes=np.frombuffer(f[1], dtype="<i8").astype(np.int64) if f[1] else None,
            advert=read_advert(Reader(f[2], 0)) if f[2] else None,
            secret=np.frombuffer(f[3], dtype=np.int8).astype(np.int64).reshape(1, -1) if f[3] else None,
            public=f[4],
            salt=f[5],
            seed=f[6],
            sid=f[7],
            adverts={i: read_advert(Reader(a, 0)) for i, a in split(f[8], ADVERT).items()},
            incoming=split(f[9], 32),
            share=share,
            joint=joint,
            dealers=tuple(int.from_bytes(f[12][i : i + 2], "big") for i in range(0, len(f[12]), 2)),
            view=f[13],
            c1=f[14],
            survivors=f[15],
            root=f[16],
            seen=seen,
        )
        return phase, state


def join(entries: Mapping[int, bytes]) -> bytes:
    return b"".join(i.to_bytes(2, "big") + v for i, v in entries.items())


def split(data: bytes, size: int) -> dict[int, bytes]:
    step = 2 + size
    if len(data) % step:
        raise Aborted(AbortCode.STATE_ROLLBACK, "the snapshot is damaged")
    return {int.from_bytes(data[i : i + 2], "big"): data[i + 2 : i + step] for i in range(0, len(data), step)}
