"""What a client remembers between its moves, and its canonical bytes for a sealed snapshot."""

from dataclasses import dataclass, field

import numpy as np

from merveil.protocols.errors import AbortCode, Aborted
from merveil.protocols.lattice.constants import SIGMA
from merveil.protocols.lattice.messages import Kind
from merveil.protocols.lattice.packed import Elements
from merveil.protocols.session import Phase
from merveil.protocols.snapshot import pack_fields, unpack_fields


@dataclass
class ClientState:
    """Everything secret is left out of repr.

    secret: the short key, until the vector is masked with it. ephemeral, boxes: what the upload carries
    beside the vector. bitmap, root: the survivor list that was signed. share: the sum of the survivors'
    shares for this member, until it is answered. seen: digests of server frames.
    """

    secret: Elements | None = field(default=None, repr=False)
    ephemeral: bytes = b""
    boxes: bytes = field(default=b"", repr=False)
    bitmap: bytes = b""
    root: bytes = b""
    share: bytes = field(default=b"", repr=False)
    seen: dict[Kind, bytes] = field(default_factory=dict, repr=False)

    def dump(self, phase: Phase) -> bytes:
        return pack_fields(
            (
                phase.value.encode(),
                b"" if self.secret is None else self.secret.astype("i1").tobytes(),
                self.ephemeral,
                self.boxes,
                self.bitmap,
                self.root,
                self.share,
                b"".join(bytes((kind,)) + digest for kind, digest in self.seen.items()),
            )
        )

    @classmethod
    def load(cls, data: bytes, degree: int) -> "tuple[Phase, ClientState]":
        f = unpack_fields(data, 8)
        try:
            phase = Phase(f[0].decode())
            if len(f[7]) % 33 or len(f[1]) not in (0, degree):
                raise ValueError("fields of another length")
            seen = {Kind(f[7][i]): f[7][i + 1 : i + 33] for i in range(0, len(f[7]), 33)}
        except ValueError as error:
            raise Aborted(AbortCode.STATE_ROLLBACK, "the snapshot is damaged") from error
        secret = np.frombuffer(f[1], dtype=np.int8).astype(np.int64) if f[1] else None
        return phase, cls(secret, f[2], f[3], f[4], f[5], f[6], seen)


assert SIGMA * 12 < 128, "a coefficient of the key fits one byte"
