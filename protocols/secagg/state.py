"""What a client remembers between frames, and its canonical bytes for a sealed snapshot."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from merveil.protocols.codec import Codes
from merveil.protocols.errors import AbortCode, Aborted
from merveil.protocols.frame import Reader
from merveil.protocols.primitives.prg import KEY
from merveil.protocols.secagg.dealing import Dealing
from merveil.protocols.secagg.keys import WORD
from merveil.protocols.secagg.messages import BOX_PLAIN, Advert, Held, Kind, read_advert
from merveil.protocols.session import Phase
from merveil.protocols.snapshot import pack_fields, unpack_fields


@dataclass
class ClientState:
    """Everything secret is left out of repr.

    dealt, tree: own shares by holder and the Merkle tree over them, until they are sent. masks, incoming:
    keys by neighbour, until used. words: own word and the neighbour's, by neighbour, sparse graphs only.
    held: shares of others by dealer, until answered. masked: digest of the masked frame. seen: server frames.
    """

    codes: Codes | None = field(default=None, repr=False)
    advert: Advert | None = None
    seed: bytes = field(default=b"", repr=False)
    key_seed: bytes = field(default=b"", repr=False)
    dealt: dict[int, Held] = field(default_factory=dict, repr=False)
    tree: bytes = field(default=b"", repr=False)
    sid: bytes = b""
    adverts: dict[int, Advert] = field(default_factory=dict, repr=False)
    masks: dict[int, bytes] = field(default_factory=dict, repr=False)
    incoming: dict[int, bytes] = field(default_factory=dict, repr=False)
    words: dict[int, bytes] = field(default_factory=dict, repr=False)
    held: dict[int, Held] = field(default_factory=dict, repr=False)
    masked: bytes = b""
    bitmap: bytes = b""
    root: bytes = b""
    seen: dict[Kind, bytes] = field(default_factory=dict, repr=False)

    def deal(self, dealing: Dealing) -> None:
        self.advert, self.seed, self.key_seed = dealing.advert, dealing.seed, dealing.key_seed
        self.dealt, self.tree = dict(dealing.held), dealing.tree

    def keep_shares(self, sid: bytes, adverts: Mapping[int, Advert], own: int) -> None:
        """The shares have been sealed: keep only one's own, and drop the seed behind the mask key."""
        self.sid, self.adverts = sid, dict(adverts)
        if own in self.dealt:
            self.held[own] = self.dealt[own]
        self.dealt, self.tree, self.key_seed = {}, b"", b""

    def forget_mask(self, masked: bytes) -> None:
        """The masked frame is built: keep its digest, never the means to build a second."""
        self.masked = masked
        self.codes, self.seed, self.masks = None, b"", {}

    def dump(self, phase: Phase) -> bytes:
        return pack_fields(
            (
                phase.value.encode(),
                b"" if self.codes is None else self.codes.astype("<i8").tobytes(),
                b"" if self.advert is None else self.advert.encode(),
                self.seed,
                self.key_seed,
                _join({i: h.encode() for i, h in self.dealt.items()}),
                self.sid,
                _join({i: a.encode() for i, a in self.adverts.items()}),
                _join(self.masks),
                _join(self.incoming),
                _join({i: h.encode() for i, h in self.held.items()}),
                self.masked,
                self.bitmap,
                self.root,
                _join({int(k): d for k, d in self.seen.items()}),
                self.tree,
                _join(self.words),
            )
        )

    @classmethod
    def load(cls, data: bytes) -> "tuple[Phase, ClientState]":
        f = unpack_fields(data, 17)
        try:
            phase = Phase(f[0].decode())
        except ValueError as error:
            raise Aborted(AbortCode.STATE_ROLLBACK, "the snapshot names no phase") from error
        state = cls(
            codes=np.frombuffer(f[1], dtype="<i8").astype(np.int64) if f[1] else None,
            advert=read_advert(Reader(f[2], 0)) if f[2] else None,
            seed=f[3],
            key_seed=f[4],
            dealt={i: Held.decode(h) for i, h in _split(f[5], BOX_PLAIN).items()},
            sid=f[6],
            adverts={i: read_advert(Reader(a, 0)) for i, a in _split(f[7], 128).items()},
            masks=_split(f[8], KEY),
            incoming=_split(f[9], 32),
            held={i: Held.decode(h) for i, h in _split(f[10], BOX_PLAIN).items()},
            masked=f[11],
            bitmap=f[12],
            root=f[13],
            seen={Kind(k): d for k, d in _split(f[14], 32).items()},
            tree=f[15],
            words=_split(f[16], 2 * WORD),
        )
        return phase, state


def _join(entries: Mapping[int, bytes]) -> bytes:
    return b"".join(i.to_bytes(2, "big") + v for i, v in entries.items())


def _split(data: bytes, size: int) -> dict[int, bytes]:
    step = 2 + size
    if len(data) % step:
        raise Aborted(AbortCode.STATE_ROLLBACK, "the snapshot is damaged")
    return {int.from_bytes(data[i : i + 2], "big"): data[i + 2 : i + step] for i in range(0, len(data), step)}
